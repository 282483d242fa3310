"""SweepLM: an ordinary lm-eval model that answers for one cell from what it computed for all cells at once."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from lm_eval.models.utils_hf import stop_sequences_criteria

from lm_eval_steer.check import check_plan
from lm_eval_steer.errors import ForeignVectorError, NonFiniteError, UntouchedError
from lm_eval_steer.files import content_id
from lm_eval_steer.fingerprint import generation_facts
from lm_eval_steer.layout import text_config
from lm_eval_steer.measured import LogProb, is_measured
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.scored_rows import Group, TokenRequest, group_requests
from lm_eval_steer.sweep.choice import Chosen, choose_path
from lm_eval_steer.sweep.generation import Decoder, Prompts, SharedGeneration, can_share
from lm_eval_steer.sweep.item import Item, members, single_items
from lm_eval_steer.sweep.scorer import ANSWERS, Scorer
from lm_eval_steer.sweep.shared import Path
from lm_eval_steer.sweep.versions import numeric_versions
from lm_eval_steer.sweep.work import Arrays, Block, Blocks, Worker

Key = tuple[bool, bool, tuple[int, ...], tuple[int, ...]]
Progress = Callable[[int, int], None]


class SweepLM(SteeredHF):
    """Answers lm-eval's requests for the selected cell; cell 0 is unsteered.

    The first time requests are seen they are answered for all cells together, block by block (a block is one batch of
    requests under all cells); later cells are looked up. A self-check on the first real requests compares the shared
    path with the plain hooked one and falls back where they differ. The unsteered answers are those of ``hf`` at the
    same batch size, to the last bit.

    Args:
        pretrained: a loaded model.
        tokenizer: its tokenizer.
        plans: the cells' plans; the first is empty.
        blocks: where finished blocks are kept and found; None keeps them in memory only.
        progress: called with (request, cell) pairs done and their number.
        path: a path to take without a self-check, for tests and benchmarks.
        **kwargs: what :class:`SteeredHF` takes.

    Attributes:
        cell: number of the plan that is answered for.
        chosen: how scored requests are computed; None before the first.
        scoped_tokens: ``[cells]``, how many tokens each plan's scopes named so far.
        moved: for each block so far ``[cells, 3]``: sums over steered tokens of ‖h′−h‖ and ‖h‖ and their number, of the
            plans' first placements.

    Raises:
        ForeignVectorError, ShapeError, …: a plan does not fit the model; as ``attach`` raises it, before any request.
    """

    def __init__(
        self,
        pretrained: Any,
        *,
        tokenizer: Any,
        plans: Sequence[SteeringPlan],
        blocks: Blocks | None = None,
        progress: Progress | None = None,
        path: Path | Literal["plain"] | None = None,
        allow_foreign_vector: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(pretrained, tokenizer=tokenizer, plan=SteeringPlan(), **kwargs)
        self.plans = tuple(plans)
        self.cell = 0
        self.chosen: Chosen | None = None if path is None else Chosen(path, "asked for", math.nan)
        self.scoped_tokens = np.zeros(len(self.plans), dtype=np.int64)
        self._touched: np.ndarray[Any, Any] | None = None
        self.moved: list[np.ndarray[Any, Any]] = []
        for plan in self.plans:
            foreign = check_plan(self.model, plan, self.steering.layout, self.tokenizer, self.fingerprint)
            if foreign and not allow_foreign_vector:
                raise ForeignVectorError(
                    f"{'; '.join(foreign)}. Allow it only if you know that it means something here."
                )
        self._worker, self._progress = Worker(blocks), progress
        # The bars of single requests say nothing in a sweep, which has one of its own.
        for request in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
            setattr(self, request, functools.partial(getattr(self, request), disable_tqdm=True))
        self._values: dict[Key, Arrays] = {}
        self._at_hand: dict[Any, tuple[list[int], list[int], Arrays]] = {}
        self._texts: dict[str, Arrays] = {}
        self._encoded: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        self.scorer = Scorer(self)
        self.generation = SharedGeneration(self, self.scorer)

    @property
    def token_layers(self) -> int:
        """How many (token, block) pairs ran above the shared trunk."""
        return self.scorer.forward.token_layers

    @property
    def computed_blocks(self) -> int:
        """How many blocks were computed, not found."""
        return self._worker.computed

    def path(self, cell: int) -> dict[str, str]:
        """Return how a cell was computed, ``kind`` and ``why`` not faster, for its record."""
        if cell in self.scorer.alone_because:
            return {"kind": "plain", "why": self.scorer.alone_because[cell]}
        if self.chosen is None:
            return {"kind": "plain", "why": ""}
        return {"kind": self.chosen.path, "why": self.chosen.reason if cell else ""}

    def check_cell(self) -> None:
        """Make sure that the selected cell steered something.

        Raises:
            UntouchedError: requests were run, and a placement of its plan steered no token.
        """
        found = [] if self._touched is None else self._touched[self.cell]
        for placement, touched in zip(self.plans[self.cell].placements, found, strict=False):
            if not touched:
                raise UntouchedError(
                    f"cell {self.cell}: the placement «{placement}» steered no token; its numbers would be those of a "
                    "plan without it. Choose another scope."
                )

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        key = (context, continuation)
        if key not in self._encoded:
            self._encoded[key] = super()._encode_pair(context, continuation)
        return self._encoded[key]

    def _loglikelihood_tokens(
        self, requests: list[TokenRequest], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        found = [self._known(request) for request in requests]
        missing = {_key(request): request for request, arrays in zip(requests, found, strict=True) if arrays is None}
        if missing:
            self._compute(list(missing.values()))
            found = [self._known(request) for request in requests]
        answers = []
        for arrays in found:
            assert arrays is not None  # computed above
            value = float(arrays["log_prob"][self.cell])
            if not math.isfinite(value):
                raise self._not_finite()
            value = LogProb(value, float(arrays["kl"][self.cell])) if "kl" in arrays else value
            answers.append((value, bool(arrays["greedy"][self.cell])))
        return answers

    def _known(self, request: TokenRequest) -> Arrays | None:
        """Return the answers of all cells to a request that was asked before."""
        texts, context, answer = request
        if texts in self._at_hand and not is_measured(request):  # equal to what another task asks unmeasured
            before, after, arrays = self._at_hand[texts]
            if before is context and after is answer:  # the very lists, which need not be read
                return arrays
        found = self._values.get(_key(request))
        if texts is not None and found is not None and not is_measured(request):
            self._at_hand[texts] = (context, answer, found)
        return found

    def _compute(self, requests: list[TokenRequest]) -> None:
        """Score requests for all cells, a block at a time, and keep the answers by request."""
        groups = group_requests(requests, self.max_length, share=True)
        if self.scorer.shared and (self.chosen is None or not self.scorer.can_take(groups, self.chosen.path)):
            self.chosen = choose_path(self.scorer, groups, requests, self.model.dtype)
        path = "rows" if self.chosen is None else self.chosen.path
        items, cells = self.scorer.items(groups, path), len(self.plans)
        size = int(self.batch_size) if self.batch_size != "auto" else 16
        # lm-eval has other batches where items share a context, and the unsteered answers are lm-eval's.
        apart = any(len(item.groups) > 1 for item in items)
        parts = _parts(items, apart)
        blocks = [self._block(p[i : i + size], requests, path, apart) for p in parts for i in range(0, len(p), size)]
        if apart:
            blocks += [self._unsteered_block(groups[i : i + size], requests) for i in range(0, len(groups), size)]
        answers = [_nothing(cells, is_measured(request)) for request in requests]
        done, total = 0, len(requests) * cells
        for block, arrays in self._worker.run(blocks):
            for column, number in enumerate(block.requests):
                for name, values in answers[number].items():
                    values[list(block.cells)] = arrays[name][:, column]
            self._count(arrays)
            done += len(block.requests) * len(block.cells)
            if self._progress is not None:
                self._progress(done, total)
        # All at once: what is missing after an interruption is asked again, never taken for NaN.
        self._values.update(zip(map(_key, requests), answers, strict=True))

    def _block(self, items: Sequence[Item], requests: Sequence[TokenRequest], path: str, apart: bool) -> Block:
        groups, numbers = [group for item in items for group in item.groups], members(items)
        cells = [cell for cell, plan in enumerate(self.plans) if not (apart and plan.neutral)]

        def compute() -> Arrays:
            arrays = self.scorer.score(items, requests, path)
            return {**arrays, **{name: arrays[name][cells] for name in ANSWERS if name in arrays}}

        content = [[plan.id for plan in self.plans], path, apart, _content(groups, requests)]
        return Block(self._block_id(content), tuple(numbers), tuple(cells), compute)

    def _unsteered_block(self, groups: Sequence[Group], requests: Sequence[TokenRequest]) -> Block:
        numbers = tuple(number for group in groups for number in group.members)
        cells = tuple(cell for cell, plan in enumerate(self.plans) if plan.neutral)
        block_id = self._block_id(["unsteered", _content(groups, requests)])
        return Block(block_id, numbers, cells, lambda: self.scorer.unsteered(groups, requests))

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        mask = kwargs.pop("attention_mask", None)
        prompts = Prompts(context, torch.ones_like(context) if mask is None else mask)
        beams = getattr(self.model.generation_config, "num_beams", None)  # what generate takes where nobody says
        own = self.cell in self.scorer.shared and can_share({"num_beams": beams, **kwargs})
        cells = self.scorer.shared if own else [self.cell]
        options = {name: str(value) for name, value in sorted(kwargs.items())}
        asked = [prompts.ids.tolist(), prompts.mask.tolist(), max_length, list(stop), options]
        asked.append(generation_facts(self.model))
        block_id = self._block_id(["generate", [self.plans[cell].id for cell in cells], asked])
        if block_id not in self._texts:
            decoder = Decoder(
                functools.partial(self._generate, max_length=max_length, stop=stop, options=kwargs),
                max_length,
                functools.partial(self._stopping, stop),
            )
            compute = functools.partial(self.generation.run, cells, prompts, decoder)
            ((_, self._texts[block_id]),) = self._worker.run([Block(block_id, (), tuple(cells), compute)])
            self._count(self._texts[block_id])
        found, row = self._texts[block_id], cells.index(self.cell)
        if not found["length"][row]:
            raise self._not_finite()
        return torch.from_numpy(found["tokens"][row, :, : found["length"][row]]).to(context.device)

    def _generate(
        self,
        prompts: Prompts,
        *,
        max_length: int,
        stop: list[str],
        options: dict[str, Any],
        columns: int | None = None,
        **more: Any,
    ) -> torch.Tensor:
        """Run lm-eval's own generation, steered by the handle in force; at most to ``columns`` where that is less."""
        longest = max_length if columns is None else min(max_length, columns)
        options = {"attention_mask": prompts.mask, **options, **more}
        return SteeredHF._model_generate(self, prompts.ids, longest, stop, **options)

    def _stopping(self, stop: list[str], prompt: int, rows: int) -> Callable[[torch.Tensor], bool]:
        criteria = stop_sequences_criteria(self.tokenizer, stop, prompt, rows)
        return lambda tokens: bool(criteria(tokens, None).all())

    def _block_id(self, content: Any) -> str:
        """Content id of a block: the model, what it is computed with, and what is asked of which plans."""
        attention = getattr(text_config(self.model), "_attn_implementation", None)
        computed = [str(self.model.dtype), str(self.softmax_dtype), attention, self.device.type]
        facts = [vars(self.fingerprint), computed, dict(numeric_versions()), self.max_length]
        return content_id([*facts, content], 32)

    def _count(self, arrays: Arrays) -> None:
        self.scoped_tokens += arrays.get("scoped_tokens", 0)
        if "touched" in arrays:
            self._touched = arrays["touched"] if self._touched is None else self._touched | arrays["touched"]
        if "moved" in arrays:
            self.moved.append(arrays["moved"])

    def _not_finite(self) -> NonFiniteError:
        plan = self.plans[self.cell]
        return NonFiniteError(f"the logits under «{plan}» are not finite, so the cell is not scored.")


def _key(request: TokenRequest) -> Key:
    strings, context, answer = request
    return strings is None, is_measured(request), tuple(context), tuple(answer)


def _nothing(cells: int, measured: bool) -> Arrays:
    """Return the answers of all cells to one request before there are any."""
    kl = {"kl": np.full(cells, np.nan)} if measured else {}
    return {"log_prob": np.full(cells, np.nan), "greedy": np.zeros(cells, dtype=bool), **kl}


def _parts(items: Sequence[Item], apart: bool) -> list[Sequence[Item]]:
    """Return the items in the parts that are cut into batches.

    Measured groups want the unsteered logits of their batch, which there are only where no item has several groups.
    """
    with_measured = [item for item in items if any(group.measured for group in item.groups)]
    if not apart or not with_measured:
        return [items]
    groups = [group for item in with_measured for group in item.groups]
    beside = single_items([group for group in groups if not group.measured])
    others = [item for item in items if not any(group.measured for group in item.groups)]
    return [single_items([group for group in groups if group.measured]), [*others, *beside]]


def _content(groups: Sequence[Group], requests: Sequence[TokenRequest]) -> list[Any]:
    return [
        [list(g.view.tokens), g.view.kind, [requests[n][2] for n in g.members], *(["kl"] if g.measured else [])]
        for g in groups
    ]
