"""Scaling: whether steerability goes with the size of the model, one language at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.crosslingual.clusters import Clusters, without_value
from lm_eval_steer.stats.curve import Estimate

MIN_SIZES = 3
TOO_FEW_MODELS = "not enough models"
NO_COMMON = "no item is in all models"


@dataclass(frozen=True)
class Scaling:
    """S against the size of the model.

    Attributes:
        slope: change of S for each factor e in parameters; its interval draws items, the models are these.
        sizes: parameters of the models, ascending.
        steerability: S of each.
    """

    slope: Estimate
    sizes: tuple[int, ...]
    steerability: tuple[float, ...]


def scaling(parameters: Sequence[int], slopes: Floats, clusters: Clusters) -> Scaling:
    """Return the least-squares slope of S on the natural logarithm of the number of parameters.

    Args:
        parameters: of each model.
        slopes: ``[items, models]``, each item's steerability in each model.
        clusters: of the items.
    """
    order = np.argsort(parameters, kind="stable")
    sizes = tuple(int(parameters[at]) for at in order)
    means = tuple(float(np.mean(slopes[:, at])) for at in order) if len(slopes) else ()
    if len(set(sizes)) < MIN_SIZES:
        return Scaling(without_value(clusters, TOO_FEW_MODELS), sizes, means)
    if not len(slopes):
        return Scaling(without_value(clusters, NO_COMMON), sizes, means)
    logs = np.log(np.asarray(parameters, dtype=np.float64))
    weights = (logs - logs.mean()) / np.sum((logs - logs.mean()) ** 2)
    return Scaling(clusters.means((slopes @ weights)[:, None])[0], sizes, means)
