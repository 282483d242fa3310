"""Bootstrap: intervals from resampled clusters; all columns share one resampling, so their differences are paired."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.curve import Estimate

DRAWS = 2000
LEVEL = 0.95
MIN_CLUSTERS = 10
MIN_PERCENTILE = 30
TOO_FEW = f"under {MIN_CLUSTERS} clusters"
TOO_EQUAL = "too few clusters differ"

_CHUNK_BYTES = 32 << 20
_KEPT_BYTES = 128 << 20
_ROUNDING = 1e-10
_INFINITE = 1e300


class Resampling:
    """``draws`` resamples with replacement of ``clusters`` clusters, the same for the same numbers and seed.

    Args:
        clusters: how many there are, at least 1.
        draws: B.
        seed: of PCG64.
    """

    def __init__(self, clusters: int, draws: int = DRAWS, seed: int = 0) -> None:
        self.clusters, self.draws, self.seed = clusters, draws, seed
        self._rows = max(1, _CHUNK_BYTES // (8 * clusters))
        self._kept: list[NDArray[np.uint8]] | None = None

    def sums(self, columns: Floats) -> Floats:
        """Return each column's sum over each resample: ``weights[B, n] @ columns[n, m]``, made in chunks of B.

        Args:
            columns: ``[clusters, m]``.

        Returns:
            ``[draws, m]``.
        """
        found = np.empty((self.draws, columns.shape[1]))
        at = 0
        for weights in self.weights():
            np.matmul(weights.astype(np.float64), columns, out=found[at : at + len(weights)])
            at += len(weights)
        return found

    def weights(self) -> Iterator[NDArray[np.uint8]]:
        """Give how often each cluster is in each resample, ``[chunk, clusters]``; kept where that is small."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[NDArray[np.uint8]] | None = [] if self.draws * self.clusters <= _KEPT_BYTES else None
        random = np.random.Generator(np.random.PCG64(self.seed))
        for at in range(0, self.draws, self._rows):
            rows = min(self._rows, self.draws - at)
            drawn = random.integers(0, self.clusters, size=(rows, self.clusters))
            drawn += np.arange(rows)[:, None] * self.clusters
            counts = np.bincount(drawn.ravel(), minlength=rows * self.clusters)
            weights = counts.reshape(rows, self.clusters).astype(np.uint8)
            if kept is not None:
                kept.append(weights)
            yield weights
        self._kept = kept


@functools.lru_cache(maxsize=4)
def resampling(clusters: int, draws: int = DRAWS, seed: int = 0) -> Resampling:
    """Return a resampling, the very one that was made before with these numbers."""
    return Resampling(clusters, draws, seed)


def estimates(sums: Floats, sizes: Floats, drawn: Resampling, level: float = LEVEL) -> list[Estimate]:
    """Return ``Σ_c sums_c / Σ_c sizes_c`` of every column with its interval, of 95 % unless another level is given.

    With one item a cluster that is the mean over items. Under 10 clusters there is no interval; from 10 to 29 it is
    the studentised one (bootstrap-t), which does not exist where most clusters are equal, from 30 the percentile one.
    A column that is the same in every cluster has the interval [value, value].

    Args:
        sums: ``[clusters, m]``, each column summed over the items of a cluster.
        sizes: ``[clusters]``, items (or tokens) in each, all positive.
        drawn: the resampling, of as many clusters.
        level: of the interval.
    """
    count = len(sizes)
    values = np.sum(sums, axis=0) / np.sum(sizes)
    if count < MIN_CLUSTERS:
        return [Estimate(float(value), n=count, why=TOO_FEW) for value in values]
    each = sums / sizes[:, None]
    constant = np.ptp(each, axis=0) == 0
    values = np.where(constant, each[0], values)
    make = _studentised if count < MIN_PERCENTILE else _percentile
    low, high = make(sums, sizes, drawn, (1 - level) / 2)
    low, high = np.where(constant, values, low), np.where(constant, values, high)
    method = "studentised" if count < MIN_PERCENTILE else "percentile"
    return [
        Estimate(float(v), float(a), float(b), count, method)  # type: ignore[arg-type]
        if np.isfinite(a)
        else Estimate(float(v), n=count, why=TOO_EQUAL)
        for v, a, b in zip(values, low, high, strict=True)
    ]


def means(sums: Floats, sizes: Floats, drawn: Resampling) -> Floats:
    """Return the ratio ``Σ sums / Σ sizes`` in every resample, ``[draws, m]``; arguments as for :func:`estimates`.

    Columns of two calls with the same resampling are paired: their difference is the difference's bootstrap.
    """
    totals = drawn.sums(np.column_stack([sums, sizes]))
    result: Floats = totals[:, :-1] / totals[:, -1:]
    return result


def _percentile(sums: Floats, sizes: Floats, drawn: Resampling, tail: float) -> tuple[Floats, Floats]:
    low, high = np.quantile(means(sums, sizes, drawn), [tail, 1 - tail], axis=0)
    return low, high


def _studentised(sums: Floats, sizes: Floats, drawn: Resampling, tail: float) -> tuple[Floats, Floats]:
    """Return ``[θ − q_{1−tail}·se, θ − q_tail·se]`` with q the quantiles of ``(θ* − θ)/se*``.

    ``se² = Σ_c (sums_c − θ·sizes_c)² / (Σ sizes)²`` is the ratio's linearised variance, se* the same in the resample.
    A resample without variance has an infinite t. Where these are so many that an end of the interval would be
    infinite (few items, most of them equal), both ends are NaN.
    """
    total = np.sum(sizes)
    values = np.sum(sums, axis=0) / total
    residuals = sums - values * sizes[:, None]
    width = sums.shape[1]
    squares = np.column_stack([residuals, residuals**2, residuals * sizes[:, None], sizes, sizes**2])
    drawn_sums = drawn.sums(squares)
    residual, square, cross = (drawn_sums[:, k * width : (k + 1) * width] for k in range(3))
    size, size_square = drawn_sums[:, -2:-1], drawn_sums[:, -1:]
    shift = residual / size  # θ* − θ
    variance = np.maximum(square - 2 * shift * cross + shift**2 * size_square, 0.0) / size**2
    scale = np.sqrt(np.sum(residuals**2, axis=0)) / total
    # Under that, what is left of the variance is rounding.
    usable = variance > _ROUNDING * scale**2
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(usable, shift / np.sqrt(variance), np.sign(shift) * _INFINITE)
    upper, lower = np.quantile(t, [1 - tail, tail], axis=0)
    found = (upper < np.sqrt(_INFINITE)) & (lower > -np.sqrt(_INFINITE))
    return np.where(found, values - upper * scale, np.nan), np.where(found, values - lower * scale, np.nan)
