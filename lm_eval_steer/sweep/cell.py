"""Cell: one plan of a sweep and what tables call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.sweep.records import Label


@dataclass(frozen=True)
class Cell:
    """One plan of a sweep.

    Attributes:
        plan: what is applied.
        labels: vector, control, control_of, layer, site, scope, operation, normalize, skip_first, multiplier.
        aliases: labels of other points of the grid that are this very plan.
    """

    plan: SteeringPlan
    labels: Mapping[str, Label]
    aliases: tuple[Mapping[str, Label], ...] = ()
