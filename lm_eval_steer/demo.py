"""The demonstration: extract a positivity vector, steer inside lm-eval, compare with a random direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lm_eval_steer.evaluation import evaluate_plan, load_tasks
from lm_eval_steer.extraction.extract import Extraction
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.report.dose import DoseCurve
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.sweep.engine import SweepLM
from lm_eval_steer.sweep.requests import reuse_requests
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
    subjects = [(made.vector, grid.multipliers), (made.controls["random"], grid.control_multipliers)]
    places = [(vector, layer, m) for vector, each in subjects for layer in grid.layers for m in each if m]
    tasks = load_tasks([TASK], tokenizer)
    reuse_requests(tasks["tasks"][TASK])
    plans = [SteeringPlan(), *(_plan(vector, layer, m, grid.scope) for vector, layer, m in places)]
    lm = SweepLM(model, tokenizer=tokenizer, plans=plans, batch_size=8)
    scores = []
    for number, name in enumerate(["unsteered", *(f"{v.name}, layer {i}, λ = {m:+g}" for v, i, m in places)]):
        step(name)
        lm.cell = number
        samples = evaluate_plan(lm, tasks, limit=grid.limit)["samples"][TASK]
        scores.append([float(sample[METRIC]) for sample in samples])
    curves: dict[tuple[str, int], dict[float, list[float]]] = {}
    for (vector, layer, multiplier), values in zip(places, scores[1:], strict=True):
        curves.setdefault((vector.name, layer), {0.0: scores[0]})[multiplier] = values
    return [_curve(vector, layer, curves[vector.name, layer]) for vector, _ in subjects for layer in grid.layers]


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
