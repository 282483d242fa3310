"""Agreement: kappa, Krippendorff's alpha and rank correlation of items between languages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.crosslingual.clusters import Clusters
from lm_eval_steer.stats.curve import Estimate

Scale = Literal["nominal", "interval"]
_OfSums = Callable[[Floats, Floats], Floats]


def cohen_kappa(a: Floats, b: Floats, clusters: Clusters) -> Estimate:
    """Return Cohen's kappa, ``(p_o − p_e) / (1 − p_e)``, with p_e from the two sides' own shares.

    Not defined where both sides are one and the same category throughout.

    Args:
        a: ``[items]``, the category of each item in one language.
        b: the same in another.
        clusters: of the items.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    kinds = np.unique([a, b])
    of_a, of_b = (kinds[None, :] == side[:, None] for side in (a, b))
    columns = np.column_stack([(a == b), of_a, of_b]).astype(np.float64)

    def kappa(sums: Floats, items: Floats) -> Floats:
        observed = sums[:, 0] / items
        left, right = (sums[:, 1 + k * len(kinds) : 1 + (k + 1) * len(kinds)] / items[:, None] for k in (0, 1))
        expected = np.sum(left * right, axis=1)
        return _ratio(observed - expected, 1 - expected)

    return _from_sums(columns, kappa, clusters)


def krippendorff_alpha(values: Floats, scale: Scale, clusters: Clusters) -> Estimate:
    """Return Krippendorff's alpha, ``1 − D_o / D_e``, over items with at least two values.

    ``D_o`` is the mean of ``δ`` over pairs of values of one item (each value weighs the same), ``D_e`` that over all
    pairs of values; ``δ`` is 0 or 1 (nominal) or the squared difference (interval). Not defined where all values are
    equal.

    Args:
        values: ``[items, languages]``; NaN where there is none.
        scale: of the values.
        clusters: of the items.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".
    """
    paired = np.sum(~np.isnan(values), axis=1) > 1
    known = np.where(paired[:, None], values, np.nan)
    count = np.sum(~np.isnan(known), axis=1).astype(np.float64)
    if scale == "nominal":
        kinds = np.unique(known[~np.isnan(known)])
        by_kind = np.sum(known[:, :, None] == kinds, axis=1).astype(np.float64)
        within = count**2 - np.sum(by_kind**2, axis=1)
        parts = by_kind
    else:
        centre = float(np.nanmean(known)) if paired.any() else 0.0
        shifted = known - centre
        total, squares = np.nansum(shifted, axis=1), np.nansum(shifted**2, axis=1)
        within = 2 * (count * squares - total**2)
        parts = np.column_stack([total, squares])
    each = np.divide(within, count - 1, out=np.zeros_like(within), where=count > 1)

    def alpha(sums: Floats, _: Floats) -> Floats:
        observed, n, rest = sums[:, 0], sums[:, 1], sums[:, 2:]
        nominal = scale == "nominal"
        between = n**2 - np.sum(rest**2, axis=1) if nominal else 2 * (n * rest[:, 1] - rest[:, 0] ** 2)
        return 1 - _ratio(observed * (n - 1), between)

    return _from_sums(np.column_stack([each, count, parts]), alpha, clusters)


def spearman(a: Floats, b: Floats, clusters: Clusters) -> Estimate:
    """Return Spearman's rank correlation; ties share their mean rank. Not defined where a side is constant.

    Args:
        a: ``[items]``.
        b: the same items in another language.
        clusters: of the items.
    """
    value = _weighted_spearman(a, b, np.ones((1, len(a))))[0]
    return clusters.around(
        None if np.isnan(value) else float(value),
        lambda: np.concatenate([_weighted_spearman(a, b, chunk) for chunk in clusters.weights()]),
    )


def same_sign(a: Floats, b: Floats, floor: float, clusters: Clusters) -> Estimate:
    """Return the share of items whose sign agrees; what is at most ``floor`` from 0 has the sign 0."""
    equal = signs(a, floor) == signs(b, floor)
    return clusters.means(equal.astype(np.float64)[:, None])[0]


def signs(values: Floats, floor: float = 0.0) -> Floats:
    """Return −1, 0 or 1; 0 for what is at most ``floor`` from 0."""
    result: Floats = np.where(np.abs(values) <= floor, 0.0, np.sign(values))
    return result


def _from_sums(columns: Floats, make: _OfSums, clusters: Clusters) -> Estimate:
    """Return a number that depends on sums over items only, with its interval."""
    whole = make(np.sum(columns, axis=0)[None, :], np.asarray([float(len(columns))]))[0]

    def resampled() -> Floats:
        sums = clusters.sums(np.column_stack([columns, np.ones(len(columns))]))
        return make(sums[:, :-1], sums[:, -1])

    return clusters.around(None if np.isnan(whole) else float(whole), resampled)


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return a ratio; NaN where what is below is nothing but rounding."""
    tiny = np.abs(below) <= 1e-12 * np.maximum(1.0, np.abs(above))
    result: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=~tiny)
    return result


def _weighted_spearman(a: Floats, b: Floats, weights: Floats) -> Floats:
    """Return the correlation of ranks in each resample, ``[draws]``, from how often each item is in it."""
    x, y = _weighted_ranks(a, weights), _weighted_ranks(b, weights)
    total = np.sum(weights, axis=1, keepdims=True)
    x = x - np.sum(weights * x, axis=1, keepdims=True) / total
    y = y - np.sum(weights * y, axis=1, keepdims=True) / total
    both, of_x, of_y = (np.sum(weights * u * v, axis=1) for u, v in ((x, y), (x, x), (y, y)))
    scale = np.sqrt(of_x * of_y)
    result: Floats = np.divide(both, scale, out=np.full(len(weights), np.nan), where=scale > 1e-9)
    return result


def _weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """Return each item's mean rank in each resample, ``[draws, items]``."""
    distinct, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(distinct)))
    inside = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(inside, axis=1) - inside + (inside + 1) / 2
    result: Floats = ranks[:, group]
    return result
