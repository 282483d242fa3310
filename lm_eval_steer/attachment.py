"""attach: put a plan's edits into a model, after checking everything, and take them out again.

The hooks act only inside :meth:`SteeringHandle.forward` and :meth:`SteeringHandle.generation`, where the requests
of the coming forwards are known; a forward outside of them is refused rather than left unsteered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from lm_eval_steer.edit import Edit
from lm_eval_steer.errors import (
    ForeignVectorError,
    NonFiniteError,
    ScopeError,
    ShapeError,
    SteerError,
    UntouchedError,
    VectorValueError,
)
from lm_eval_steer.fingerprint import fingerprint
from lm_eval_steer.hookpoint import Hookpoint, Site, check_layer
from lm_eval_steer.layout import ModelLayout, block_input, first_tensor, probe_layout
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.positions import Batch, Chosen, choose
from lm_eval_steer.scope import RequestView, Span, assistant_marker
from lm_eval_steer.vector import Fingerprint


def attach(
    model: nn.Module,
    plan: SteeringPlan,
    *,
    tokenizer: Any | None = None,
    layout: ModelLayout | None = None,
    allow_foreign_vector: bool = False,
    own: Fingerprint | None = None,
) -> SteeringHandle:
    """Check ``plan`` against ``model`` and install its hooks.

    Args:
        model: a causal LM; its weights are not changed.
        plan: what to apply; placements that are neutral (λ = 0) get no hook but are counted.
        tokenizer: wanted by ``from_marker`` scopes, and compared with the vectors' fingerprint when given.
        layout: of this model, when it is known; else it is probed.
        allow_foreign_vector: accept vectors made on another model; it is recorded.
        own: the model's fingerprint, when it is known; else it is taken.

    Returns:
        A handle; use it as a context manager, or call :meth:`SteeringHandle.remove`.

    Raises:
        SiteError, LayerError: the architecture lacks a hookpoint.
        ShapeError: a vector has another width than the model.
        ForeignVectorError: a vector was made on another model, revision or tokenizer.
        ScopeError: ``from_marker`` without a tokenizer.
        UnsupportedModelError: the model's blocks cannot be found.
    """
    layout = probe_layout(model) if layout is None else layout
    foreign = check_plan(model, plan, layout, tokenizer, own)
    if foreign and not allow_foreign_vector:
        raise ForeignVectorError(
            f"{'; '.join(foreign)}. A direction of another model means nothing here. If you know that it does (it is "
            "the same model in float16, say), pass allow_foreign_vector=true, which the results record."
        )
    if tokenizer is not None:
        plan = plan.with_marker(lambda: assistant_marker(tokenizer))
    edits = [Edit(placement) for placement in plan.placements]
    return SteeringHandle(layout, plan, edits, tokenizer, foreign)


def check_plan(
    model: nn.Module,
    plan: SteeringPlan,
    layout: ModelLayout,
    tokenizer: Any | None,
    own: Fingerprint | None = None,
) -> list[str]:
    """Check every placement against a model, without touching it.

    Returns:
        A sentence for each vector that was made elsewhere.

    Raises:
        As :func:`attach`, save ForeignVectorError.
    """
    if own is None and any(placement.vector.provenance.fingerprint for placement in plan.placements):
        own = fingerprint(model, layout, tokenizer)
    foreign: dict[str, str] = {}
    for placement in plan.placements:
        check_layer(placement.target.layer, layout.n_layers)
        layout.target(placement.target)
        width = placement.direction().shape[-1]
        if width != layout.d_model:
            raise ShapeError(
                f"{placement.target} of this model wants ({layout.d_model},), vector {placement.vector.name!r} has "
                f"({width},); it was made for another model."
            )
        if not bool(torch.isfinite(placement.direction() * placement.multiplier).all()):
            raise VectorValueError(f"λ·v of «{placement}» is not finite in float32.")
        if placement.scope.kind == "from_marker" and tokenizer is None:
            raise ScopeError("scope from_marker needs the model's tokenizer; pass attach(…, tokenizer=…).")
        made_on = placement.vector.provenance.fingerprint
        if made_on is not None and own is not None and (parts := made_on.differs_from(own)):
            foreign[placement.vector.id] = (
                f"vector {placement.vector.name!r} was made on {placement.vector.provenance.model_id or 'another'}; "
                f"this model differs in {' and '.join(parts)}"
            )
    return list(foreign.values())


class SteeringHandle:
    """A model with a plan's hooks in it.

    Attributes:
        layout: of the model.
        plan: what is attached.
        foreign: a sentence for each vector that was made on another model and allowed all the same.
        requests: how many requests were seen.
    """

    def __init__(
        self,
        layout: ModelLayout,
        plan: SteeringPlan,
        edits: Sequence[Edit],
        tokenizer: Any | None,
        foreign: list[str],
        *,
        install: bool = True,
    ) -> None:
        self.layout = layout
        self.plan = plan
        self.foreign = foreign
        self.requests = 0
        self._edits = list(edits)
        # Many placements share few scopes (ablate: one for three placements a layer), which are resolved once.
        keys = [(placement.scope, placement.skip_first) for placement in plan.placements]
        unique = list(dict.fromkeys(keys))
        self._distinct = [keys.index(key) for key in unique]
        self._scope_of = [unique.index(key) for key in keys]
        self._tokenizer = tokenizer
        self._handles: list[Any] = []
        self._batch: Batch | None = None
        self._spans: list[list[Span]] = []
        self._step = -1
        self._chosen: list[Chosen] = []
        self._paused = False
        if install and not plan.neutral:
            self._install()

    def __enter__(self) -> SteeringHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Take every hook out of the model; it is then as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def spans(self, request: RequestView) -> list[Span]:
        """Return, for each placement, the positions of ``request`` that it edits.

        Raises:
            ScopeError: a scope does not fit the request.
        """
        found = [self._resolve(self._edits[number].placement, request) for number in self._distinct]
        return [found[number] for number in self._scope_of]

    def count(self, spans: Sequence[Sequence[Span]], lengths: Sequence[int]) -> None:
        """Count requests and the positions that each scope names in them, whatever λ is and whoever runs them.

        Args:
            spans: for each request what :meth:`spans` returned.
            lengths: the requests' input tokens.
        """
        self.requests += len(spans)
        for row, length in zip(spans, lengths, strict=True):
            for edit, span in zip(self._edits, row, strict=True):
                edit.count(span.length(length))

    @contextlib.contextmanager
    def forward(self, batch: Batch, spans: Sequence[Sequence[Span]], *, counted: bool = True) -> Iterator[None]:
        """Steer the forwards inside: one for a plain batch, many for a generation (``batch.grows``).

        Args:
            batch: the rows of the forward.
            spans: for each row what :meth:`spans` returned for its request.
            counted: whether each row is a request to count; False where the caller counts.

        Raises:
            ScopeError: inside, if the model runs a forward of another shape than was declared.
        """
        if self._batch is not None:
            raise ScopeError("a steered forward is already under way on this handle.")
        self._batch, self._step = batch, -1
        self._spans = [[row[number] for row in spans] for number in range(len(self._edits))]
        if counted:
            self.count(spans, batch.lengths)
        try:
            yield
        finally:
            self._batch, self._chosen = None, []

    @contextlib.contextmanager
    def generation(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Iterator[None]:
        """Steer ``model.generate`` on left-padded prompts.

        Args:
            input_ids: ``[batch, seq]``.
            attention_mask: ``[batch, seq]``, 1 for real tokens; None where nothing is padded.
        """
        requests = generation_requests(input_ids, attention_mask)
        width = int(input_ids.shape[1])
        lengths = [len(request.tokens) for request in requests]
        batch = Batch(lengths, [width - n for n in lengths], width, grows=True)
        with self.forward(batch, [self.spans(request) for request in requests]):
            yield

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let forwards inside run unsteered, on purpose."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def report(self) -> list[dict[str, Any]]:
        """Return for each placement what it did: firings, steered tokens, realised dose (see :meth:`Edit.report`)."""
        return [edit.report() for edit in self._edits]

    def check_touched(self) -> None:
        """Make sure that every placement steered something, once requests have been run.

        Raises:
            UntouchedError: a scope named no token in all of them, or a hook did not run.
        """
        for edit in self._edits:
            silent = bool(self._handles) and not edit.placement.neutral and not edit.firings
            if self.requests and (not edit.scoped or silent):
                raise UntouchedError(
                    f"the placement «{edit.placement}» steered no token in {self.requests} requests; these results "
                    "would be an unsteered baseline under another name. Choose another scope."
                )

    def _resolve(self, placement: Placement, request: RequestView) -> Span:
        return placement.scope.resolve(request, skip_first=placement.skip_first, decoder=self._tokenizer)

    def _install(self) -> None:
        by_point: dict[Hookpoint, list[int]] = {}
        for number, edit in enumerate(self._edits):
            if not edit.placement.neutral:
                by_point.setdefault(edit.placement.target, []).append(number)
        with contextlib.ExitStack() as undo:
            undo.callback(self.remove)
            for point, numbers in by_point.items():
                self._handles.append(self._hook(point, numbers))
            # Registered last and put first, so that the positions are known before any edit of this forward.
            first = self.layout.blocks[0]
            self._handles.append(first.register_forward_pre_hook(self._advance, prepend=True, with_kwargs=True))
            undo.pop_all()

    def _hook(self, point: Hookpoint, numbers: list[int]) -> Any:
        module = self.layout.target(point).module

        def on_output(_module: nn.Module, _args: Any, output: Any) -> Any:
            hidden = first_tensor(output)
            if hidden is None:
                raise SteerError(f"{point} returned {type(output).__name__}, not hidden states.")
            edited = self._apply(hidden, numbers)
            if isinstance(output, Tensor):
                return edited
            return _replace_first(output, edited)

        def on_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = block_input(args, kwargs)
            if hidden is None:
                raise SteerError(f"{point} got no hidden states.")
            edited = self._apply(hidden, numbers)
            return ((edited, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": edited})

        if point.site is Site.BLOCK_IN:
            return module.register_forward_pre_hook(on_input, prepend=True, with_kwargs=True)
        # prepend: transformers collects hidden_states by hooks of its own, which must see the edited ones.
        return module.register_forward_hook(on_output, prepend=True)

    def _advance(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._paused:
            return
        if self._batch is None:
            raise ScopeError(
                "a forward of a steered model outside SteeringHandle.forward() or generation(): its positions are not "
                "known. Wrap it, or use SteeringHandle.paused() to run it unsteered."
            )
        hidden = block_input(args, kwargs)
        if hidden is None:
            raise SteerError("the first block got no hidden states.")
        rows, columns = (int(n) for n in hidden.shape[self.layout.batch_axis : self.layout.batch_axis + 2])
        self._step += 1
        self._check_shape(self._batch, rows, columns)
        copies = rows // self._batch.rows
        stepwise = [self._batch.grows and edit.placement.scope.kind == "each_last" for edit in self._edits]
        if self._step and columns == 1 and any(stepwise):
            raise ScopeError("scope each_last recomputes every step; generate with use_cache=False.")
        distinct = [
            choose(self._batch, self._spans[n], self._step, columns, copies, last_only=stepwise[n])
            for n in self._distinct
        ]
        self._chosen = [distinct[number] for number in self._scope_of]

    def _check_shape(self, batch: Batch, rows: int, columns: int) -> None:
        allowed = {batch.width} if self._step == 0 else ({1, batch.width + self._step} if batch.grows else set())
        if columns not in allowed or rows % batch.rows:
            raise ScopeError(
                f"forward {self._step} has [{rows}, {columns}] positions where [{batch.rows}, {batch.width}] were "
                "declared at the start; prompt tuning, chunked prefill and assisted decoding cannot be steered."
            )

    def _apply(self, hidden: Tensor, numbers: list[int]) -> Tensor:
        if self._paused:
            return hidden
        for number in numbers:
            hidden = self._edits[number].apply(hidden, self._chosen[number])
        return hidden


def generation_requests(input_ids: Tensor, attention_mask: Tensor | None) -> list[RequestView]:
    """Return the requests of a left-padded batch of prompts, ``[batch, seq]``.

    Raises:
        ScopeError: a row is right-padded or empty; generation needs left padding.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    requests = []
    for ids, real in zip(input_ids.tolist(), mask.tolist(), strict=True):
        tokens = [token for token, keep in zip(ids, real, strict=True) if keep]
        if not tokens or any(real[i] > real[i + 1] for i in range(len(real) - 1)):
            raise ScopeError("generation needs left-padded prompts of at least one token each.")
        requests.append(RequestView(tokens, len(tokens), "generation"))
    return requests


def check_finite(logits: Tensor, plan: SteeringPlan) -> None:
    """Make sure that logits, or the log-probabilities of answers, are numbers.

    Minus infinity among logits is allowed: models mask unused vocabulary with it.

    Raises:
        NonFiniteError: one is NaN or plus infinity; the message names the plan.
    """
    if bool((torch.isnan(logits) | torch.isposinf(logits)).any()):
        raise non_finite(plan)


def non_finite(plan: SteeringPlan) -> NonFiniteError:
    """Return the error of a plan whose logits are no numbers."""
    placements = "; ".join(map(str, plan.placements)) or "the unsteered model"
    return NonFiniteError(
        f"the logits under «{placements}» are not finite, so nothing can be scored. Use a smaller multiplier, or "
        "dtype=float32 if half precision overflowed."
    )


def _replace_first(output: Any, first: Tensor) -> Any:
    if isinstance(output, list):
        return [first, *output[1:]]
    if hasattr(output, "_fields"):
        return type(output)(first, *output[1:])
    return (first, *output[1:])
