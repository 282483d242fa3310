"""SweepLM: an ordinary lm-eval model that answers for one cell from what it computed for all cells at once."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch

from lm_eval_steer.attachment import SteeringHandle, attach, check_plan
from lm_eval_steer.edit import Edit
from lm_eval_steer.errors import ForeignVectorError, NonFiniteError, UntouchedError
from lm_eval_steer.files import content_id
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.scope import Span
from lm_eval_steer.scored_rows import Group, TokenRequest, group_requests
from lm_eval_steer.sweep.bundle import Bundle, make_bundles
from lm_eval_steer.sweep.choice import Chosen, choose_path, collect
from lm_eval_steer.sweep.shared import Path, Scores, SharedForward

Key = tuple[bool, tuple[int, ...], tuple[int, ...]]
Progress = Callable[[int, int], None]
Arrays = dict[str, np.ndarray[Any, Any]]


class Blocks(Protocol):
    """Where finished blocks are kept; see :class:`lm_eval_steer.sweep.blocks.BlockStore`."""

    def get(self, block_id: str) -> Arrays | None:
        """Return a finished block, or None."""
        ...

    def computing(self, block_id: str) -> contextlib.AbstractContextManager[bool]:
        """Give True where this process has to compute and ``put`` the block, False where it is there by then."""
        ...

    def claimed(self, block_id: str) -> bool:
        """Say whether another living process works on the block."""
        ...

    def put(self, block_id: str, arrays: Arrays) -> None:
        """Keep a finished block."""
        ...


class SweepLM(SteeredHF):
    """Answers lm-eval's requests for the selected cell; cell 0 is unsteered.

    The first time requests are seen they are scored for all cells together, block by block (a block is one batch of
    requests under all cells); later cells are looked up. A self-check on the first real requests compares the shared
    path with the plain hooked one and falls back where they differ.

    Args:
        pretrained: a loaded model.
        tokenizer: its tokenizer.
        plans: the cells' plans; the first is empty.
        blocks: where finished blocks are kept and found; None keeps them in memory only.
        progress: called with (request, cell) pairs done and their number.
        path: a path to take without a self-check, for tests and benchmarks.
        **kwargs: what :class:`SteeredHF` takes.

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
        layout = self.steering.layout
        self.plans = tuple(plans)
        self.cell = 0
        self.chosen: Chosen | None = None if path is None else Chosen(path, "asked for", math.nan)
        self.scoped_tokens = np.zeros(len(self.plans), dtype=np.int64)
        self.computed_blocks = 0
        for plan in self.plans:
            foreign = check_plan(self.model, plan, layout, self.tokenizer, self.fingerprint)
            if foreign and not allow_foreign_vector:
                raise ForeignVectorError(
                    f"{'; '.join(foreign)}. Allow it only if you know that it means something here."
                )
        self._blocks, self._progress = blocks, progress
        # The bars of single requests say nothing in a sweep, which has one of its own.
        for request in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
            setattr(self, request, functools.partial(getattr(self, request), disable_tqdm=True))
        self._values: dict[Key, Arrays] = {}
        self._encoded: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        self.handles = [
            SteeringHandle(layout, plan, [Edit(p) for p in plan.placements], self.tokenizer, [], install=False)
            for plan in self.plans
        ]
        stepwise = [any(p.scope.kind == "each_last" for p in plan.placements) for plan in self.plans]
        neutral = [plan.neutral for plan in self.plans]
        self._alone = [i for i, step in enumerate(stepwise) if step and not neutral[i]]
        self.shared = [i for i in range(len(self.plans)) if not neutral[i] and not stepwise[i]]
        self.forward = SharedForward(self.model, layout, self.softmax_dtype)

    @property
    def token_layers(self) -> int:
        """How many (token, block) pairs ran above the shared trunk."""
        return self.forward.token_layers

    def check_cell(self) -> None:
        """Make sure that the selected cell steered something.

        Raises:
            UntouchedError: requests were run and its plan has a placement, but no token was steered.
        """
        if self.plans[self.cell].placements and self._values and not self.scoped_tokens[self.cell]:
            raise UntouchedError(f"cell {self.cell} («{self.plans[self.cell].placements[0]}») steered no token.")

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        key = (context, continuation)
        if key not in self._encoded:
            self._encoded[key] = super()._encode_pair(context, continuation)
        return self._encoded[key]

    def _loglikelihood_tokens(
        self, requests: list[TokenRequest], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        keys = [_key(request) for request in requests]
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._values}
        if missing:
            self._compute(list(missing.values()))
        answers = []
        for key in keys:
            value, greedy = self._values[key]["log_prob"][self.cell], self._values[key]["greedy"][self.cell]
            if not math.isfinite(value):
                placements = "; ".join(map(str, self.plans[self.cell].placements))
                raise NonFiniteError(f"the logits under «{placements}» are not finite, so the cell is not scored.")
            answers.append((float(value), bool(greedy)))
        return answers

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        with _Steered(self, self.cell):
            return super()._model_generate(context, max_length, stop, **kwargs)

    def _compute(self, requests: list[TokenRequest]) -> None:
        """Score requests for all cells, a block at a time, and keep the answers by request."""
        groups = group_requests(requests, self.max_length, share=True)
        if self.shared and self.chosen is None:
            self.chosen = choose_path(self, groups, requests)
        size = int(self.batch_size) if self.batch_size != "auto" else 16
        waiting = [groups[start : start + size] for start in range(0, len(groups), size)]
        total, done = len(requests) * len(self.plans), 0
        while waiting:
            # What another process works on comes last, so that two of them share the work instead of queueing.
            free = [b for b in waiting if self._blocks is None or not self._blocks.claimed(self._block_id(b, requests))]
            batch = (free or waiting)[0]
            waiting.remove(batch)
            members = [number for group in batch for number in group.members]
            for number, answer in zip(members, self._block(batch, requests), strict=True):
                self._values[_key(requests[number])] = answer
            done += len(members) * len(self.plans)
            if self._progress is not None:
                self._progress(done, total)

    def _block(self, batch: Sequence[Group], requests: Sequence[TokenRequest]) -> Iterator[Arrays]:
        """Yield for each member of a batch its arrays over cells; from the store where they are there."""
        found = self._stored(batch, requests)
        self.scoped_tokens += found["scoped_tokens"]
        for column in range(found["log_prob"].shape[1]):
            yield {name: found[name][:, column] for name in ("log_prob", "greedy")}

    def _stored(self, batch: Sequence[Group], requests: Sequence[TokenRequest]) -> Arrays:
        if self._blocks is None:
            self.computed_blocks += 1
            return self._score_block(batch, requests)
        block_id = self._block_id(batch, requests)
        while True:
            with self._blocks.computing(block_id) as mine:
                if mine:
                    self._blocks.put(block_id, self._score_block(batch, requests))
                    self.computed_blocks += 1
            found = self._blocks.get(block_id)
            if found is not None:  # None: it was damaged, is set aside, and has to be computed again
                return found

    def _block_id(self, batch: Sequence[Group], requests: Sequence[TokenRequest]) -> str:
        """Content id of a block: model, dtype, path, plans, and the tokens of its requests."""
        tokens = [[list(g.view.tokens), g.view.kind, [requests[m][2] for m in g.members]] for g in batch]
        path = None if self.chosen is None else self.chosen.path
        plans = [plan.id for plan in self.plans]
        return content_id([vars(self.fingerprint), str(self.model.dtype), self.max_length, path, plans, tokens], 32)

    def _score_block(self, batch: Sequence[Group], requests: Sequence[TokenRequest]) -> Arrays:
        members = [number for group in batch for number in group.members]
        log_prob = np.full((len(self.plans), len(members)), np.nan)
        greedy = np.zeros((len(self.plans), len(members)), dtype=bool)
        counts = np.zeros(len(self.plans), dtype=np.int64)
        for cell, handle in enumerate(self.handles):
            spans = [handle.spans(group.view) for group in batch]
            for group, row in zip(batch, spans, strict=True):
                counts[cell] += len(group.members) * sum(span.length(len(group.view.tokens)) for span in row)
        plain = self.chosen is not None and self.chosen.path == "plain"
        if not plain:
            self._score_shared(batch, requests, log_prob, greedy)
        for cell in [*self._alone, *(self.shared if plain else [])]:
            log_prob[cell], greedy[cell] = self.score_alone(cell, [requests[number] for number in members])
        if plain:
            log_prob[0], greedy[0] = self.score_alone(0, [requests[number] for number in members])
        for cell, plan in enumerate(self.plans):
            if plan.neutral:
                log_prob[cell], greedy[cell] = log_prob[0], greedy[0]
        return {"log_prob": log_prob, "greedy": greedy, "scoped_tokens": counts}

    def _score_shared(
        self, batch: Sequence[Group], requests: Sequence[TokenRequest], log_prob: Any, greedy: Any
    ) -> None:
        path: Path = "tree" if self.chosen is not None and self.chosen.path == "tree" else "rows"
        for number, (cells, scores) in enumerate(self.run_shared(batch, requests, self.shared, path)):
            for cell, row in zip(cells if number else (0,), scores, strict=True):
                log_prob[cell], greedy[cell] = collect(row)

    def run_shared(
        self, batch: Sequence[Group], requests: Sequence[TokenRequest], cells: Sequence[int], path: Path
    ) -> Iterator[tuple[tuple[int, ...], list[list[Scores]]]]:
        """Yield the unsteered scores first, then those of each bundle of cells."""
        answers = [[requests[number][2] for number in group.members] for group in batch]
        by_scope: dict[object, list[Bundle]] = {}
        for bundle in make_bundles(self.plans, cells):
            scopes = tuple((str(p.scope), p.skip_first) for p in bundle.shape.placements)
            by_scope.setdefault(scopes, []).append(bundle)
        for number, bundles in enumerate(list(by_scope.values()) or [[]]):
            spans = [self._spans(bundle, batch) for bundle in bundles]
            unsteered, rest = self.forward.score(batch, answers, bundles, spans, path)
            if number == 0:
                yield (0,), [unsteered]
            for part, scores in rest:
                yield part.cells, scores

    def _spans(self, bundle: Bundle, batch: Sequence[Group]) -> list[list[Span]]:
        by_group = [self.handles[bundle.cells[0]].spans(group.view) for group in batch]
        return [[row[number] for row in by_group] for number in range(len(bundle.shape.placements))]

    def score_alone(self, cell: int, requests: list[TokenRequest]) -> tuple[list[float], list[bool]]:
        """Return log-probabilities and greediness under one cell by the plain hooked path; NaN where it broke."""
        try:
            with _Steered(self, cell):
                found = SteeredHF._loglikelihood_tokens(self, requests, disable_tqdm=True)
        except NonFiniteError:
            return [math.nan] * len(requests), [False] * len(requests)
        return [value for value, _ in found], [best for _, best in found]


class _Steered:
    """While open, the LM's handle is that of one cell, hooks installed."""

    def __init__(self, lm: SweepLM, cell: int) -> None:
        self._lm, self._cell = lm, cell

    def __enter__(self) -> None:
        self._before = self._lm.steering
        self._lm.steering = attach(
            self._lm.model,
            self._lm.plans[self._cell],
            tokenizer=self._lm.tokenizer,
            layout=self._before.layout,
            allow_foreign_vector=True,  # checked once for all cells at the start
            own=self._lm.fingerprint,
        )

    def __exit__(self, *_: object) -> None:
        self._lm.steering.remove()
        self._lm.steering = self._before


def _key(request: TokenRequest) -> Key:
    strings, context, answer = request
    return strings is None, tuple(context), tuple(answer)
