"""The demonstration: extract a positivity vector, steer inside lm-eval, compare with a random direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lm_eval_steer.evaluation import evaluate_plan, load_tasks, steered
from lm_eval_steer.extraction.extract import Extraction
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.report.dose import DoseCurve
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.vector import SteeringVector

TASK = "control_positivity"
METRIC = "logit_diff_tok"

Step = Callable[[str], None]


@dataclass(frozen=True)
class Grid:
    """What the demonstration runs.

    Attributes:
        layers: canonical layers, one at a time.
        multipliers: λ, 0 among them; the unsteered cell is run once.
        control_multipliers: the λ at which the control is run.
        limit: how many test items.
        scope: which tokens are steered.
    """

    layers: tuple[int, ...] = (5, 10, 15, 20, 25)
    multipliers: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    control_multipliers: tuple[float, ...] = (-1.0, 0.0, 1.0)
    limit: int = 20
    scope: str = "all"

    @property
    def cells(self) -> int:
        """Number of evaluations."""
        steered_ones = [m for m in self.multipliers if m] + [m for m in self.control_multipliers if m]
        return 1 + len(self.layers) * len(steered_ones)


def run_grid(model: Any, tokenizer: Any, made: Extraction, grid: Grid, step: Step) -> list[DoseCurve]:
    """Evaluate the vector and its random control at every layer and multiplier, by lm-eval's ``evaluate``.

    Args:
        model: a causal LM.
        tokenizer: its tokenizer.
        made: the vector and a control named ``random``.
        grid: what to run.
        step: called before each evaluation with what it is.

    Returns:
        Two curves a layer: the vector's and the control's.
    """
    tasks = load_tasks([TASK], tokenizer)

    def scores(plan: SteeringPlan) -> list[float]:
        with steered(model, tokenizer, plan) as lm:
            results = evaluate_plan(lm, tasks, limit=grid.limit)
        return [float(sample[METRIC]) for sample in results["samples"][TASK]]

    step("unsteered")
    unsteered = scores(SteeringPlan())
    curves = []
    for vector, multipliers in _subjects(made, grid):
        for layer in grid.layers:
            values = {0.0: unsteered}
            for multiplier in multipliers:
                if multiplier:
                    step(f"{vector.name}, layer {layer}, λ = {multiplier:+g}")
                    values[multiplier] = scores(_plan(vector, layer, multiplier, grid.scope))
            curves.append(_curve(vector, layer, values))
    return curves


def _subjects(made: Extraction, grid: Grid) -> Iterator[tuple[SteeringVector, tuple[float, ...]]]:
    yield made.vector, grid.multipliers
    yield made.controls["random"], grid.control_multipliers


def _plan(vector: SteeringVector, layer: int, multiplier: float, scope: str) -> SteeringPlan:
    point = Hookpoint(Site.BLOCK_OUT, layer)
    placement = Placement(
        vector, point, point, multiplier=multiplier, scope=TokenScope.parse(scope), skip_first=scope == "all"
    )
    return SteeringPlan((placement,))


def _curve(vector: SteeringVector, layer: int, values: dict[float, list[float]]) -> DoseCurve:
    key = str(Hookpoint(Site.BLOCK_OUT, layer))
    stream = vector.provenance.activation_norms.get(key)
    dose = None if not stream else vector.norms()[key] / stream
    return DoseCurve(vector.name, vector.provenance.control, layer, dose, values)
