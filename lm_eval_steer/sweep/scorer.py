"""Scorer: the answers to a batch of loglikelihood requests under all cells of a sweep."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lm_eval_steer.edit import Edit
from lm_eval_steer.errors import NonFiniteError
from lm_eval_steer.handle import SteeringHandle
from lm_eval_steer.measured import is_measured, kl_of
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.scope import RequestView
from lm_eval_steer.scored_rows import Group, TokenRequest
from lm_eval_steer.sweep.alone import steered_as
from lm_eval_steer.sweep.bundle import Bundle, make_bundles
from lm_eval_steer.sweep.item import Item, members, shared_items, single_items
from lm_eval_steer.sweep.shared import Part, Path, SharedForward, collect, collect_kl

if TYPE_CHECKING:
    from lm_eval_steer.sweep.engine import SweepLM

Arrays = dict[str, np.ndarray[Any, Any]]
#: Arrays of :meth:`Scorer.score` with an answer a cell and request.
ANSWERS = ("log_prob", "greedy", "kl")


class Scorer:
    """Scores batches of requests under all cells, by the shared path or by the plain one.

    Attributes:
        handles: one a cell, without hooks: what resolves its scopes.
        shared: cells that the shared path can score.
        alone_because: the other cells that steer, and why each has to run by itself.
        forward: the shared path.
    """

    def __init__(self, lm: SweepLM) -> None:
        self._lm = lm
        layout = lm.steering.layout
        self.handles = [
            SteeringHandle(
                layout,
                plan,
                [Edit(p) for p in plan.placements],
                lm.tokenizer,
                [],
                keeper=lm.steering.keeper,
                install=False,
            )
            for plan in lm.plans
        ]
        neutral = [plan.neutral for plan in lm.plans]
        reasons = {i: _why_alone(plan) for i, plan in enumerate(lm.plans) if not neutral[i]}
        self.alone_because = {i: why for i, why in reasons.items() if why}
        self.shared = [i for i, why in reasons.items() if not why]
        self.forward = SharedForward(lm.model, layout, lm.softmax_dtype)
        scopes = {str((p.scope, p.skip_first)): (i, n) for i in self.shared for n, p in self._placements(i)}
        self._scopes = sorted(set(scopes.values()))

    def items(self, groups: Sequence[Group], path: str) -> list[Item]:
        """Return the rows that hold ``groups``; options of an item share one where the path can mask."""
        return shared_items(groups, self._edited_context) if path == "tree" else single_items(groups)

    def can_take(self, groups: Sequence[Group], path: str) -> bool:
        """Say whether a path that was chosen on other requests is right for these, as far as can be told beforehand."""
        return path != "tree" or self.forward.can_mask(max(len(group.view.tokens) for group in groups))

    def shares(self, item: Item, cells: Sequence[int]) -> bool:
        """Say whether a mask saves anything for an item: a prefix that no cell edits, or a context of several."""
        starts = [s.start for c in cells for g in item.groups for s in self.handles[c].spans(g.view)]
        return len(item.groups) > 1 or min([*starts, item.context_len - 1]) > 0

    def score(self, items: Sequence[Item], requests: Sequence[TokenRequest], path: str) -> Arrays:
        """Return the answers of a batch under all cells.

        Args:
            items: the rows.
            requests: all requests; the items' members are numbers of these.
            path: ``tree``, ``rows`` or ``plain``.

        Returns:
            ``log_prob`` and ``greedy``, ``[cells, requests]`` in the order of :func:`members`. NaN marks what is not
            finite, and the unsteered cells where items share a context (see :meth:`unsteered`). Where a request is
            measured, ``kl`` of the same shape, NaN for the others; such items hold one group each. Also
            ``scoped_tokens``, ``[cells]``; ``touched``, ``[cells, placements]``, whether each named any; and ``moved``,
            ``[cells, 3]``: sums over steered tokens of ‖h′−h‖ and ‖h‖ and their number, of the plans' first placements.
        """
        numbers = members(items)
        found = _Found(len(self._lm.plans), [is_measured(requests[number]) for number in numbers])
        if path != "plain":
            for part in self.run_shared(items, requests, self.shared, path):
                found.take(part)
            # In a tree a cell whose activations overflow makes NaN of its neighbours: 0 · inf in their attention.
            broken = [cell for cell in self.shared if np.isnan(found.log_prob[cell]).any()]
            if broken and path == "tree":
                for part in self.run_shared(items, requests, broken, path, together=False):
                    found.take(part)
        wanted = [requests[n] for n in numbers]
        for cell in [*self.alone_because, *([0, *self.shared] if path == "plain" else [])]:
            found.log_prob[cell], found.greedy[cell], found.kl[cell] = self.measured(cell, wanted, found.moved)
        for cell, plan in enumerate(self._lm.plans):
            if plan.neutral:
                found.log_prob[cell], found.greedy[cell] = found.log_prob[0], found.greedy[0]
                found.kl[cell] = np.where(found.wanted, 0.0, np.nan)
        views = [group.view for item in items for group in item.groups for _ in group.members]
        return {**found.arrays(), **self.counts(range(len(self.handles)), views)}

    def unsteered(self, groups: Sequence[Group], requests: Sequence[TokenRequest]) -> Arrays:
        """Return ``log_prob``, ``greedy`` and ``kl`` as :meth:`score` does, ``[1, requests]``, of the unsteered model.

        Args:
            groups: one batch of lm-eval's.
            requests: all requests.
        """
        wanted = [requests[number] for group in groups for number in group.members]
        found = _Found(1, [is_measured(request) for request in wanted])
        found.log_prob[0], found.greedy[0], found.kl[0] = self.measured(0, wanted)
        arrays = found.arrays()
        return {name: arrays[name] for name in ANSWERS if name in arrays}

    def run_shared(
        self,
        items: Sequence[Item],
        requests: Sequence[TokenRequest],
        cells: Sequence[int],
        path: Path | str,
        *,
        together: bool = True,
    ) -> Iterator[Part]:
        """Yield the unsteered scores, where they can be had, and those of each bundle of cells, or of each cell."""
        answers = [[[requests[n][2] for n in group.members] for group in item.groups] for item in items]
        by_scope: dict[object, list[Bundle]] = {}
        for bundle in make_bundles(self._lm.plans, cells):
            scopes = tuple((str(p.scope), p.skip_first) for p in bundle.shape.placements)
            by_scope.setdefault(scopes, []).extend([bundle] if together else bundle.split(1))
        chosen: Path = "tree" if path == "tree" else "rows"
        for number, bundles in enumerate(list(by_scope.values()) or [[]]):
            spans = [self._spans(bundle, items) for bundle in bundles]
            for part in self.forward.score(items, answers, bundles, spans, chosen):
                if part.cells != (0,) or number == 0:
                    yield part

    def measured(
        self, cell: int, requests: list[TokenRequest], moved: Any = None
    ) -> tuple[list[float], list[bool], list[float]]:
        """Return what :meth:`alone` does, and the KL of measured requests, NaN for the others."""
        values, best = self.alone(cell, requests, moved)
        return values, best, [kl_of(value) for value in values]

    def alone(self, cell: int, requests: list[TokenRequest], moved: Any = None) -> tuple[list[float], list[bool]]:
        """Return log-probabilities and greediness under one cell by the plain hooked path; NaN where it broke.

        Args:
            cell: its number.
            requests: what to score.
            moved: ``[cells, 3]``, where the cell's row is filled in (see :meth:`score`); None for nowhere.
        """
        try:
            with steered_as(self._lm, cell) as handle:
                found = SteeredHF._loglikelihood_tokens(self._lm, requests, disable_tqdm=True)
        except NonFiniteError:
            return [math.nan] * len(requests), [False] * len(requests)
        if moved is not None and handle.edits:
            moved[cell] = handle.edits[0].moved
        return [value for value, _ in found], [best for _, best in found]

    def _placements(self, cell: int) -> list[tuple[int, Any]]:
        return list(enumerate(self._lm.plans[cell].placements))

    def _edited_context(self, group: Group) -> Hashable:
        """Return what the sweep's scopes edit of a group's context."""
        c, spans = group.view.context_len, {i: self.handles[i].spans(group.view) for i, _ in self._scopes}
        chosen = [spans[i][n] for i, n in self._scopes]
        return tuple((min(s.start, c), c if s.stop is None else min(s.stop, c), s.origin) for s in chosen)

    def _spans(self, bundle: Bundle, items: Sequence[Item]) -> list[list[list[Any]]]:
        handle = self.handles[bundle.cells[0]]
        rows = [[handle.spans(group.view) for group in item.groups] for item in items]
        return [[[span[n] for span in row] for row in rows] for n in range(len(bundle.shape.placements))]

    def counts(self, cells: Iterable[int], views: Sequence[RequestView]) -> Arrays:
        """Return ``scoped_tokens``, ``[cells]``, and ``touched``, ``[cells, placements]``, of all the sweep's cells.

        Args:
            cells: those that are counted; the others get zeros.
            views: the requests.
        """
        tokens = np.zeros((len(self.handles), max(len(handle.edits) for handle in self.handles)), dtype=np.int64)
        named: dict[Hashable, Any] = {}  # many cells share few scopes
        for cell in cells:
            handle = self.handles[cell]
            scopes = tuple((edit.placement.scope, edit.placement.skip_first) for edit in handle.edits)
            if scopes not in named:
                lengths = [[span.length(len(view.tokens)) for span in handle.spans(view)] for view in views]
                named[scopes] = np.sum(lengths, axis=0, dtype=np.int64)
            tokens[cell, : len(scopes)] = named[scopes]
        return {"scoped_tokens": tokens.sum(-1), "touched": tokens > 0}


def _why_alone(plan: SteeringPlan) -> str:
    if plan.order is not None:
        return "blocks in another order share no hidden states with the unsteered model's"
    if any(placement.scope.kind == "each_last" for placement in plan.placements):
        return "scope each_last recomputes every answer token"
    return ""


class _Found:
    """The arrays of a batch, as its parts come in."""

    def __init__(self, cells: int, wanted: Sequence[bool]) -> None:
        self.wanted = np.array(wanted, dtype=bool)
        self.log_prob, self.kl = (np.full((cells, len(wanted)), np.nan) for _ in range(2))
        self.greedy = np.zeros((cells, len(wanted)), dtype=bool)
        self.moved = np.zeros((cells, 3))

    def take(self, part: Part) -> None:
        for cell, row, moved in zip(part.cells, part.scores, part.moved, strict=True):
            self.log_prob[cell], self.greedy[cell] = collect(row)
            self.kl[cell] = collect_kl(row)
            if moved.shape[0]:
                self.moved[cell] = moved[0].numpy()

    def arrays(self) -> Arrays:
        kl = {"kl": self.kl} if self.wanted.any() else {}
        return {"log_prob": self.log_prob, "greedy": self.greedy, **kl, "moved": self.moved}
