"""Choice of a path: the fastest shared way of scoring that gives the plain path's numbers on real requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from lm_eval_steer.scored_rows import Group, TokenRequest
from lm_eval_steer.sweep.shared import Path, Scores

if TYPE_CHECKING:
    from lm_eval_steer.sweep.engine import SweepLM


@dataclass(frozen=True)
class Chosen:
    """How the cells are computed.

    Attributes:
        path: ``tree``, ``rows`` or ``plain``.
        reason: why not a faster one; empty for ``tree``.
        difference: largest difference of a log-probability to the plain path in the self-check, in nats.
    """

    path: Path | Literal["plain"]
    reason: str
    difference: float


def choose_path(lm: SweepLM, groups: Sequence[Group], requests: Sequence[TokenRequest]) -> Chosen:
    """Compare shared paths with the plain one on a few real requests and cells; choose the fastest equal one."""
    cells = sorted({lm.shared[0], lm.shared[len(lm.shared) // 2], lm.shared[-1]})
    # A request edited from its first token on has no prefix to share, so it would not test the tree.
    prefixed = [g for g in groups if all(s.start for c in cells for s in lm.handles[c].spans(g.view))]
    chosen = prefixed or list(groups)
    batch = [chosen[i] for i in sorted({0, len(chosen) // 2, len(chosen) - 1})]
    members = [number for group in batch for number in group.members]
    expected = {cell: lm.score_alone(cell, [requests[n] for n in members])[0] for cell in cells}
    half = lm.model.dtype in (torch.float16, torch.bfloat16)
    tolerance, reasons = (0.3 if half else 1e-3), []
    paths: tuple[Path, ...] = ("tree", "rows")
    for path in paths:
        if path == "tree" and (not prefixed or not lm.forward.can_tree(groups)):
            why = "the attention takes no mask of floats, or its window is shorter than a request"
            reasons.append(f"tree: {why if prefixed else 'every request is edited from its first token on'}")
            continue
        try:
            worst = max(
                abs(value - expected[cell][column])
                for found, scores in lm.run_shared(batch, requests, cells, path)
                for cell, row in zip(found, scores, strict=True)
                if cell in expected
                for column, value in enumerate(collect(row)[0])
                if math.isfinite(expected[cell][column])
            )
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
            reasons.append(f"{path}: {type(error).__name__}")
            continue
        if worst <= tolerance:
            return Chosen(path, "; ".join(reasons), worst)
        reasons.append(f"{path}: differs by {worst:.2g} nats")
    return Chosen("plain", "; ".join(reasons), 0.0)


def collect(row: Sequence[Scores]) -> tuple[list[float], list[bool]]:
    """Return the summed log-probability and greediness of every member, group after group."""
    values, best = [], []
    for scores in row:
        values += scores.log_probs.sum(0).tolist()
        best += scores.greedy.all(0).tolist()
    return values, best
