"""Slots: where the positions of several cells of several requests stand in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lm_eval_steer.scope import Span
from lm_eval_steer.scored_rows import Group


@dataclass(frozen=True)
class Slots:
    """Request i, cell m, position p stands at ``base[i] + m·stride + p − first[i]`` of the flattened activations.

    In a tree all cells of a request lie behind each other on the query axis, from its first edited position on; in
    rows each (request, cell) has a row of its own, from position 0 on.

    Attributes:
        rows: rows of the forward.
        columns: its columns.
        stride: distance between two cells of a request.
        base: where each request begins.
        first: the position that stands at its beginning.
        cells: how many cells.
    """

    rows: int
    columns: int
    stride: int
    base: tuple[int, ...]
    first: tuple[int, ...]
    cells: int

    def positions(self, chosen: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return slots ``[n]`` and cells ``[n]`` of positions, given for each request; cells outermost in a request."""
        index, cell = [], []
        for base, first, positions in zip(self.base, self.first, chosen, strict=True):
            offsets = torch.tensor(positions, dtype=torch.long) - first + base
            steps = torch.arange(self.cells) * self.stride
            index.append((offsets[None, :] + steps[:, None]).reshape(-1))
            cell.append(torch.arange(self.cells).repeat_interleave(len(positions)))
        return torch.cat(index), torch.cat(cell)


def tree_slots(groups: Sequence[Group], first: Sequence[int], cells: int) -> Slots:
    """Return the slots of a tree: one row a request, its columns the cells' suffixes from ``first`` on."""
    width = max(len(group.view.tokens) - start for group, start in zip(groups, first, strict=True))
    base = tuple(i * cells * width for i in range(len(groups)))
    return Slots(len(groups), cells * width, width, base, tuple(first), cells)


def row_slots(groups: Sequence[Group], cells: int) -> Slots:
    """Return the slots of plain rows: one row a (request, cell), whole requests, right-padded."""
    width = max(len(group.view.tokens) for group in groups)
    base = tuple(i * cells * width for i in range(len(groups)))
    return Slots(len(groups) * cells, width, width, base, (0,) * len(groups), cells)


def edited(spans: Sequence[Span], lengths: Sequence[int]) -> list[list[int]]:
    """Return for each request the positions that its span holds."""
    return [
        list(range(span.start, n if span.stop is None else min(span.stop, n)))
        for span, n in zip(spans, lengths, strict=True)
    ]


def read_positions(groups: Sequence[Group]) -> list[list[int]]:
    """Return for each request the positions that predict its answer."""
    return [list(range(group.view.context_len - 1, group.view.context_len - 1 + group.answer_len)) for group in groups]
