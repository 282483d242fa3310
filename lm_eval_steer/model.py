"""SteeredHF: lm-eval's ``hf`` model with a steering plan, registered as ``steered_hf``."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers
from lm_eval.models.huggingface import HFLM

from lm_eval_steer import __version__
from lm_eval_steer.attachment import attach
from lm_eval_steer.check import check_finite
from lm_eval_steer.errors import ConfigError, ForeignCacheError
from lm_eval_steer.files import content_id
from lm_eval_steer.fingerprint import fingerprint
from lm_eval_steer.handle import generation_requests
from lm_eval_steer.layout import probe_layout
from lm_eval_steer.measured import LogProb, is_measured
from lm_eval_steer.model_args import check_unknown, parse_arguments
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.row_scorer import RowScorer
from lm_eval_steer.scope import assistant_marker
from lm_eval_steer.scored_rows import (
    TokenRequest,
    group_requests,
    mixes_boundaries,
)

_CACHE_KEY = "lm_eval_steer:plan"


class SteeredHF(HFLM):  # type: ignore[misc]
    """A Hugging Face causal LM whose activations are edited while lm-eval scores or generates.

    A plan that is neutral (no placement, or λ = 0 with a neutral operation) takes the inherited path untouched, so
    the numbers are bit-identical to ``hf``; its scopes are resolved and counted all the same. One exception: where
    lm-eval's logits cache mixes answer lengths over equal tokens, and is wrong, the answers are those of
    ``hf,logits_cache=False``.

    Args:
        pretrained: folder, hub name, or a loaded model.
        vector: name or file of a vector; several with ``;``.
        layer: ``12``, ``10-14`` (together), ``10;12``, ``all``; needed unless the file has one layer.
        multiplier: λ.
        operation: ``add`` by default (see :mod:`lm_eval_steer.operations`).
        scope: which tokens (see :mod:`lm_eval_steer.scope`).
        normalize: ``none``, ``unit``, ``dose`` or ``set``.
        skip_first: leave the first real token alone.
        site: where in the block; the vector's own by default.
        vector_layer: take the vector of this layer, whatever layer it is applied at.
        gate: name or file of a condition vector: only requests whose prompt resembles it are steered.
        gate_layer: the layer at which the prompt is read; needed unless the gate's file has one layer.
        gate_threshold: the cosine above which the gate is open.
        gate_below: open where the cosine is at most the threshold instead.
        order: another order of the blocks, without a vector: ``skip:15``, ``repeat:5-8``, ``first:27``, ``run:…``.
        allow_foreign_vector: accept a vector made on another model.
        spec: a YAML or JSON file (or a mapping) with ``placements``, in place of the arguments above.
        plan: a ready :class:`SteeringPlan`, in place of all of them (Python only).
        **kwargs: whatever ``hf`` takes.

    Raises:
        ConfigError: an argument that has no single meaning, or looks like one of ours misspelt.
        InputError: a vector that cannot be read, or does not belong to this model.
    """

    def __init__(
        self,
        pretrained: Any,
        *,
        vector: Any = None,
        layer: Any = None,
        multiplier: Any = None,
        operation: Any = None,
        scope: Any = None,
        normalize: Any = None,
        skip_first: Any = None,
        site: Any = None,
        vector_layer: Any = None,
        gate: Any = None,
        gate_layer: Any = None,
        gate_threshold: Any = None,
        gate_below: Any = None,
        order: Any = None,
        allow_foreign_vector: Any = None,
        spec: Any = None,
        plan: SteeringPlan | None = None,
        **kwargs: Any,
    ) -> None:
        known = inspect.signature(HFLM.__init__).parameters
        check_unknown([name for name in kwargs if name not in known])
        own = {
            "vector": vector,
            "layer": layer,
            "multiplier": multiplier,
            "operation": operation,
            "scope": scope,
            "normalize": normalize,
            "skip_first": skip_first,
            "site": site,
            "vector_layer": vector_layer,
            "gate": gate,
            "gate_layer": gate_layer,
            "gate_threshold": gate_threshold,
            "gate_below": gate_below,
            "order": order,
            "spec": spec,
        }
        if plan is not None and any(value is not None for value in own.values()):
            raise ConfigError("plan is given together with arguments that describe one; give either.")
        if plan is not None and not isinstance(plan, SteeringPlan):
            raise ConfigError(f"plan {plan!r} is no SteeringPlan; a plan in a file is given by spec=FILE.")
        request = parse_arguments({**own, "allow_foreign_vector": allow_foreign_vector})
        super().__init__(pretrained, **kwargs)
        if self.backend != "causal":
            raise ConfigError(f"steered_hf steers causal models; {self.backend} models are not supported.")
        layout = probe_layout(self.model)
        self.fingerprint = fingerprint(self.model, layout, self.tokenizer)
        wanted = plan if plan is not None else request.resolve(layout.n_layers, layout.targets)
        self.steering = attach(
            self.model,
            wanted.with_marker(lambda: assistant_marker(self.tokenizer, **self.chat_template_args)),
            tokenizer=self.tokenizer,
            layout=layout,
            allow_foreign_vector=request.allow_foreign_vector,
            own=self.fingerprint,
        )

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Take lm-eval's response cache, if its answers are of this plan and model.

        Raises:
            ForeignCacheError: it holds answers of another plan or model, or of plain ``hf``.
        """
        database = cache_hook.dbdict
        if database is not None:
            facts = [vars(self.fingerprint), str(self.model.dtype), self.max_length, self.add_bos_token]
            identity = f"plan {self.steering.plan.id} model {content_id(facts)}"
            found = database.get(_CACHE_KEY)
            if found is None and len(database) > 0:
                found = "another model class"
            if found not in (None, identity):
                raise ForeignCacheError(
                    f"this response cache holds answers of {found}, and this run is {identity}. lm-eval's cache keys "
                    "hold the request only, so it would return the other's answers. Give each plan its own --use_cache."
                )
            database[_CACHE_KEY] = identity
        super().set_cache_hook(cache_hook)

    def get_model_info(self) -> dict[str, Any]:
        """Return lm-eval's facts of the model, and ``steering``: the resolved plan, its id, and what it did.

        Raises:
            UntouchedError: requests were run and a placement steered no token.
        """
        self.steering.check_touched()
        info: dict[str, Any] = super().get_model_info()
        info["steering"] = {
            "version": __version__,
            "plan": self.steering.plan.to_dict(),
            "neutral": self.steering.plan.neutral,
            "foreign_vectors": self.steering.foreign,
            "plain_residual": self.steering.layout.plain_residual,
            "fingerprint": vars(self.fingerprint),
            "requests": self.steering.requests,
            "done": self.steering.report(),
        }
        return info

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        with self.steering.paused():
            return int(super()._detect_batch_size(requests, pos))

    def _loglikelihood_tokens(
        self, requests: list[TokenRequest], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        groups = group_requests(requests, self.max_length, share=self.logits_cache)
        for group in groups:
            spans, size = self.steering.spans(group.view), len(group.members)
            self.steering.count([spans] * size, [len(group.view.tokens)] * size)
        if self.steering.plan.neutral and not (self.logits_cache and mixes_boundaries(requests)):
            answers: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
            return [
                (LogProb(value, 0.0), greedy) if is_measured(request) else (value, greedy)
                for request, (value, greedy) in zip(requests, answers, strict=True)
            ]
        return RowScorer(self).score(requests, groups, silent=disable_tqdm, override_bs=override_bs)

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        plan, mask = self.steering.plan, kwargs.get("attention_mask")
        if plan.neutral:
            if not plan.empty:
                requests = generation_requests(context, mask)
                self.steering.count([self.steering.spans(r) for r in requests], [len(r.tokens) for r in requests])
            return self._inherited_generate(context, max_length, stop, kwargs)
        if kwargs.get("guidance_scale") not in (None, 1, 1.0):
            raise ConfigError("guidance_scale runs a second, unconditional prompt that has no positions to steer.")
        kwargs["logits_processor"] = transformers.LogitsProcessorList(
            [*kwargs.get("logits_processor", ()), _FiniteLogits(plan)]
        )
        uncached = _uncached(self.model) if self.steering.recomputes else contextlib.nullcontext()
        with self.steering.generation(context, mask), uncached:
            return self._inherited_generate(context, max_length, stop, kwargs)

    def _inherited_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], kwargs: Mapping[str, Any]
    ) -> torch.Tensor:
        generated: torch.Tensor = super()._model_generate(context, max_length, stop, **kwargs)
        return generated


@contextlib.contextmanager
def _uncached(model: Any) -> Iterator[None]:
    """Let ``model.generate`` recompute every step, whatever the caller asks, as ``each_last`` is defined."""
    inherited = model.generate
    model.generate = lambda **kwargs: inherited(**{**kwargs, "use_cache": False})
    try:
        yield
    finally:
        del model.generate


class _FiniteLogits(transformers.LogitsProcessor):  # type: ignore[misc]
    """Stops a generation whose logits are no numbers, instead of decoding token 0 for ever."""

    def __init__(self, plan: SteeringPlan) -> None:
        self._plan = plan

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        check_finite(scores, self._plan)
        return scores
