"""Panel: one task under many cells of one setting; every cell has the same items, clusters and resamples."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.bootstrap import estimates, resampling
from lm_eval_steer.stats.choice import split
from lm_eval_steer.stats.curve import Estimate, SideMetric
from lm_eval_steer.stats.groups import Group
from lm_eval_steer.stats.items import ItemScores
from lm_eval_steer.stats.layout import Headline, Layout
from lm_eval_steer.stats.permutation import sign_flip_p
from lm_eval_steer.stats.slopes import slopes

Mask = NDArray[np.bool_]


class Panel:
    """A task's items under every cell that was read.

    Args:
        layout: of the task.
        head: what the task is read by.
        base: the unsteered cell.
        draws: bootstrap resamples.
        seed: of resamples, sign flips and the split.

    Attributes:
        cells: cell id → its items; None for a cell that is not finite.
        side_metrics: cell id → metrics beside the headline, the unsteered cell among them.
    """

    def __init__(self, layout: Layout, head: Headline, base: ItemScores, draws: int, seed: int) -> None:
        self.layout, self.head, self.base = layout, head, base
        self.draws, self.seed = draws, seed
        self.cells: dict[str, ItemScores | None] = {}
        self.side_metrics: dict[str, Mapping[str, SideMetric]] = {}

    @functools.cached_property
    def choosing(self) -> Mask:
        """Which clusters λ* is chosen on, ``[clusters]``."""
        return np.asarray(split(self.layout.clusters, self.seed), dtype=np.bool_)

    def estimates(self, columns: Sequence[Floats], clusters: Mask | None = None) -> list[Estimate]:
        """Return the mean over items of each column ``[n]`` with its interval, over all clusters or some."""
        sums, sizes = self.layout.cluster_sums(np.column_stack(columns)), self.layout.sizes
        if clusters is not None:
            sums, sizes = sums[clusters], sizes[clusters]
        return estimates(sums, sizes, resampling(len(sizes), self.draws, self.seed))

    @functools.cached_property
    def p_permutation(self) -> dict[str, float]:
        """The sign-flip p value of every finite cell's effect, by cell id; all cells share the signs."""
        cells = {cell: scores for cell, scores in sorted(self.cells.items()) if scores is not None}
        effects = np.column_stack([self.effect(scores) for scores in cells.values()])
        found = sign_flip_p(self.layout.cluster_sums(effects), self.draws, self.seed)
        return dict(zip(cells, map(float, found), strict=True))

    def effect(self, scores: ItemScores) -> Floats:
        """Return each item's change of the score, ``[n]``."""
        return scores.score - self.base.score

    def sloped(self, scores: ItemScores) -> Floats:
        """Return what slopes are of, ``[n]``: the logit difference, or the score where there is none."""
        return scores.score if scores.propensity is None else scores.propensity

    def series(self, group: Group) -> dict[float, ItemScores]:
        """Return the finite cells of a group by λ, ascending, with the unsteered one at 0.

        Where an operation does something at λ = 0 (``clamp``), its own cell is there instead.
        """
        found = {at: scores for at, record in group.cells.items() if (scores := self.cells[record.cell_id]) is not None}
        if 0.0 not in group.cells:
            found[0.0] = self.base
        return dict(sorted(found.items()))

    def item_slopes(self, group: Group, at: Sequence[float]) -> Floats | None:
        """Return each item's slope over the multipliers ``at``; None where there are too few or a cell is missing."""
        series = self.series(group)
        if not set(at) <= set(series):
            return None
        return slopes(np.column_stack([self.sloped(series[m]) for m in at]), at)
