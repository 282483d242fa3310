"""Positions: which columns of a forward's activations one placement edits, for a batch of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lm_eval_steer.scope import Span


@dataclass(frozen=True)
class Batch:
    """The rows of one forward, or of all forwards of one generation.

    Attributes:
        lengths: real tokens in each row at the first forward.
        offsets: column of the first real token in each row (0 under right padding).
        width: columns of the first forward.
        grows: whether later forwards append tokens (generation).
    """

    lengths: Sequence[int]
    offsets: Sequence[int]
    width: int
    grows: bool = False

    @property
    def rows(self) -> int:
        """Number of requests."""
        return len(self.lengths)


@dataclass(frozen=True)
class Chosen:
    """Edited positions of one forward, as indices into the activations flattened to ``[rows·columns, d_model]``.

    Attributes:
        index: ``[n]``, int64, on the CPU, ascending.
        vector_row: ``[n]``, which row of a ``[k, d_model]`` vector each position takes.
        total: rows·columns.
    """

    index: Tensor
    vector_row: Tensor
    total: int

    @property
    def count(self) -> int:
        """How many positions are edited."""
        return int(self.index.numel())

    @property
    def every(self) -> bool:
        """Whether all positions are edited."""
        return self.count == self.total


def choose(
    batch: Batch, spans: Sequence[Span], step: int, columns: int, copies: int, *, last_only: bool = False
) -> Chosen:
    """Return the positions that ``spans`` choose in one forward.

    Args:
        batch: the rows.
        spans: one a row, in positions that count from the row's first real token.
        step: how many forwards of this generation came before; 0 for a single forward.
        columns: sequence length of this forward's activations.
        copies: consecutive rows of activations for each request (beams).
        last_only: choose the last column of this forward instead (``each_last`` while generating).
    """
    first = batch.width + step - columns
    column = torch.arange(first, first + columns)
    position = column[None, :] - torch.tensor(batch.offsets)[:, None]
    start = torch.tensor([span.start for span in spans])[:, None]
    if last_only:
        mask = (column == batch.width + step - 1)[None, :] & (position >= start)
    else:
        limit = [_limit(batch, span, row, step) for row, span in enumerate(spans)]
        mask = (position >= start) & (position < torch.tensor(limit)[:, None])
    origin = torch.tensor([span.origin for span in spans])[:, None]
    rows = (position - origin).expand_as(mask).repeat_interleave(copies, 0)
    mask = mask.repeat_interleave(copies, 0)
    return Chosen(mask.reshape(-1).nonzero().squeeze(-1), rows[mask], mask.numel())


def _limit(batch: Batch, span: Span, row: int, step: int) -> int:
    end = batch.lengths[row] + (step if batch.grows else 0)
    return end if span.stop is None else min(span.stop, end)
