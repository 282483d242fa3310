"""Levels: the difference of a number between a language and the reference, and whether it is small for sure."""

from __future__ import annotations

from dataclasses import dataclass

from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.crosslingual.clusters import Clusters
from lm_eval_steer.stats.curve import Estimate

MARGIN = 0.05
"""δ: a level gap within ±0.05 of the score (5 points of a probability) counts as none."""
_TWO_ONE_SIDED = 0.90


@dataclass(frozen=True)
class Gap:
    """A language's level against the reference's.

    Attributes:
        difference: ``D_l``, the mean over items of the paired difference, with its 90 % interval.
        margin: δ.
        equivalent: whether the interval lies within ±δ, two one-sided tests at 5 %; None without an interval.
    """

    difference: Estimate
    margin: float
    equivalent: bool | None


def level_gap(own: Floats, reference: Floats, clusters: Clusters, margin: float = MARGIN) -> Gap:
    """Return ``D_l = mean_i(x[l,i] − x[ref,i])`` with its 90 % interval, and whether that lies within ±δ.

    Args:
        own: ``[items]``, the score of each item in a language.
        reference: the same items in the reference language.
        clusters: of the items.
        margin: δ, in units of the score.

    Source: Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach".
    """
    (found,) = clusters.means((own - reference)[:, None], _TWO_ONE_SIDED)
    inside = None if found.low is None or found.high is None else -margin <= found.low and found.high <= margin
    return Gap(found, margin, inside)
