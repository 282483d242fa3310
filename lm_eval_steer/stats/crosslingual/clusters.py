"""Clusters: intervals of what is no plain mean (ratios, kappa, alpha, rank correlations), over items drawn whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lm_eval_steer.stats.arrays import Floats, Ints, run_sums
from lm_eval_steer.stats.bootstrap import DRAWS, LEVEL, MIN_CLUSTERS, TOO_FEW, Resampling, estimates, resampling
from lm_eval_steer.stats.curve import Estimate

UNDEFINED = 0.05
"""Share of resamples that may lack a number before there is no interval."""


@dataclass(frozen=True)
class Clusters:
    """How items fall into the clusters that are drawn; an item with all its languages is in one of them.

    Attributes:
        starts: ``[clusters]``, the first item of each; items are in the order of their clusters.
        items: how many items there are.
        draws: bootstrap resamples.
        seed: of the resamples.
    """

    starts: Ints
    items: int
    draws: int = DRAWS
    seed: int = 0

    @classmethod
    def of(cls, names: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Clusters:
        """Return the clusters of items, of which those of one cluster stand side by side.

        Args:
            names: of each item's cluster.
            draws: bootstrap resamples.
            seed: of the resamples.
        """
        starts = [at for at, name in enumerate(names) if at == 0 or name != names[at - 1]]
        return cls(np.asarray(starts, dtype=np.int64), len(names), draws, seed)

    @property
    def sizes(self) -> Floats:
        """Items in each cluster, ``[clusters]``."""
        return np.diff(self.starts, append=self.items).astype(np.float64)

    @property
    def drawn(self) -> Resampling:
        """The resamples, the same for the same number of clusters."""
        return resampling(len(self.starts), self.draws, self.seed)

    def means(self, columns: Floats, level: float = LEVEL) -> list[Estimate]:
        """Return the mean over items of each column ``[items, m]`` with its interval."""
        return estimates(run_sums(columns, self.starts), self.sizes, self.drawn, level)

    def sums(self, columns: Floats) -> Floats:
        """Return the sum over the items of each resample, ``[draws, m]``, of columns ``[items, m]``."""
        return self.drawn.sums(run_sums(columns, self.starts))

    def weights(self) -> Iterator[Floats]:
        """Give how often each item is in each resample, ``[chunk, items]``."""
        sizes = self.sizes.astype(np.int64)
        for chunk in self.drawn.weights():
            yield np.repeat(chunk.astype(np.float64), sizes, axis=1)

    def around(self, value: float | None, make: Callable[[], Floats], floor: float | None = None) -> Estimate:
        """Return a number with the percentile interval of its resamples.

        Args:
            value: over all items; None where it is not defined.
            make: gives the number in each resample, ``[draws]``, NaN where it is not defined; not called without need.
            floor: the smallest value there is.
        """
        count = len(self.starts)
        if value is None:
            return Estimate(None, n=count, why="not defined")
        if count < MIN_CLUSTERS:
            return Estimate(value, n=count, why=TOO_FEW)
        found = make()
        finite = found[np.isfinite(found)]
        if len(finite) < (1 - UNDEFINED) * len(found):
            return Estimate(value, n=count, why=f"not defined in {len(found) - len(finite)} of {len(found)} resamples")
        tail = (1 - LEVEL) / 2
        low, high = (float(end) for end in np.quantile(finite, [tail, 1 - tail]))
        if floor is not None:
            low, high = max(low, floor), max(high, floor)
        return Estimate(value, low, high, count, "percentile")


def without_value(clusters: Clusters, why: str) -> Estimate:
    """Return an estimate that says why there is no number."""
    return dataclasses.replace(Estimate(None, why=why), n=len(clusters.starts))
