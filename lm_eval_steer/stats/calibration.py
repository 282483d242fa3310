"""Calibration: how far the probabilities that a model gives to choices are from how often it is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.bootstrap import LEVEL, MIN_PERCENTILE, Resampling, resampling
from lm_eval_steer.stats.curve import Calibration, Estimate
from lm_eval_steer.stats.items import ItemScores
from lm_eval_steer.stats.panel import Panel

BINS = 10

_TOO_FEW = f"under {MIN_PERCENTILE} clusters"


@dataclass(frozen=True)
class _Gaps:
    """Confidence less correctness by bin, summed over the items of each cluster: ``[clusters, BINS]``."""

    base: Floats
    own: Floats


def calibration(panel: Panel, scores: ItemScores) -> Calibration | None:
    """Return what a cell's probabilities are worth, and the paired change from the unsteered cell; None if undefined.

    Args:
        panel: of the task.
        scores: of the cell.
    """
    base = panel.base
    if scores.brier is None or base.brier is None:
        return None
    brier, change = panel.estimates([scores.brier, scores.brier - base.brier])
    drawn = resampling(len(panel.layout.clusters), panel.draws, panel.seed)
    error, error_change = _ece(_Gaps(_gaps(panel, base), _gaps(panel, scores)), panel.layout.sizes, drawn)
    return Calibration(brier, change, error, error_change)


def bins(confidence: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the bin of each item, ``[n]``: :data:`BINS` of equal mass, equal confidences in one."""
    edges = np.unique(np.quantile(confidence, np.arange(1, BINS) / BINS))
    return np.searchsorted(edges, confidence, side="left").astype(np.int64)


def _gaps(panel: Panel, scores: ItemScores) -> Floats:
    """Return ``confidence − correctness`` by bin of the cell's own confidence, ``[clusters, BINS]``."""
    if scores.confidence is None or scores.correct is None:
        raise ValueError("items with a Brier score have a confidence")
    gaps = np.zeros((len(scores.confidence), BINS))
    gaps[np.arange(len(gaps)), bins(scores.confidence)] = scores.confidence - scores.correct
    return panel.layout.cluster_sums(gaps)


def _ece(gaps: _Gaps, sizes: Floats, drawn: Resampling) -> tuple[Estimate, Estimate]:
    """Return ``Σ_b |Σ_{i in b} (confidence_i − correct_i)| / n``, and its change from the unsteered cell.

    Chance alone makes it positive: it is biased upwards, by less the more items there are, and resamples are biased
    once more. The interval is therefore the basic one, ``[2θ − q97.5, 2θ − q2.5]`` cut at 0, which takes as much off as
    resampling adds; θ can lie above it.

    Source: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (ECE); Davison and
    Hinkley 1997, "Bootstrap Methods and their Application", section 5.2 (basic interval).
    """
    count, total = len(sizes), np.sum(sizes)
    own, base = (float(np.abs(each.sum(axis=0)).sum() / total) for each in (gaps.own, gaps.base))
    if count < MIN_PERCENTILE:
        return Estimate(own, n=count, why=_TOO_FEW), Estimate(own - base, n=count, why=_TOO_FEW)
    sums = drawn.sums(np.column_stack([gaps.own, gaps.base, sizes]))
    drawn_own, drawn_base = (np.abs(part).sum(axis=1) / sums[:, -1] for part in (sums[:, :BINS], sums[:, BINS:-1]))
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(drawn_own, tails)
    change = own - base
    change_low, change_high = np.quantile(drawn_own - drawn_base, tails)
    return (
        Estimate(own, max(0.0, 2 * own - float(high)), max(0.0, 2 * own - float(low)), count, "basic"),
        Estimate(change, 2 * change - float(change_high), 2 * change - float(change_low), count, "basic"),
    )
