"""The positive control on the real model: an effect of size, against 20 random directions of the same norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lm_eval_steer.evaluation import evaluate_plan, load_tasks
from lm_eval_steer.extraction.controls import random_direction
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.loading import load_causal_lm
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.store import find_vector
from lm_eval_steer.sweep.engine import SweepLM
from lm_eval_steer.sweep.requests import reuse_requests
from lm_eval_steer.vector import Provenance, SteeringVector

pytestmark = [pytest.mark.slow, pytest.mark.real]

TASK, LAYER, RANDOM = "control_positivity", 20, 20
ITEMS, FOR_RANDOM = 60, 24  # the random directions would take most of the time, and need fewer
DOSES = (-1.0, -0.5, 0.0, 0.5, 1.0)
POINT = Hookpoint(Site.BLOCK_OUT, LAYER)


def plan(vector: SteeringVector, multiplier: float) -> SteeringPlan:
    scope = TokenScope("all")
    return SteeringPlan((Placement(vector, POINT, POINT, multiplier=multiplier, scope=scope, skip_first=True),))


@pytest.fixture(scope="module")
def scores(real_model_dir: Any) -> dict[str, Any]:
    """Nats per token, positive minus negative answer, of held-out items: by dose and item, flipped, random by seed."""
    model, tokenizer = load_causal_lm(str(real_model_dir))
    vector = find_vector("smollm2-positivity").vector
    row = vector.at(LAYER)[None]
    nulls = [
        SteeringVector(f"random-{i}", {POINT: random_direction(row, (POINT,), 7, i)[0]}, Provenance("random"))
        for i in range(RANDOM)
    ]
    steered = [d for d in DOSES if d]
    plans = [SteeringPlan(), *(plan(vector, dose) for dose in steered), plan(vector.scaled(-1.0), 1.0)]
    own = by_item(SweepLM(model, tokenizer=tokenizer, plans=plans, batch_size=8), ITEMS)
    plans = [SteeringPlan(), *(plan(null, dose) for null in nulls for dose in (-1.0, 1.0))]
    other = by_item(SweepLM(model, tokenizer=tokenizer, plans=plans, batch_size=8), FOR_RANDOM)
    pairs = other[1:].mean(1).reshape(RANDOM, 2)
    curve = {0.0: own[0], **dict(zip(steered, own[1:5], strict=True))}
    return {"curve": curve, "flipped": own[5].mean(), "random": pairs[:, 1] - pairs[:, 0]}


def by_item(lm: SweepLM, items: int) -> NDArray[np.float64]:
    """The scores of the first ``items`` items in every cell, ``[cells, items]``."""
    tasks = load_tasks([TASK], lm.tokenizer)
    reuse_requests(tasks["tasks"][TASK])
    rows = []
    for cell in range(len(lm.plans)):
        lm.cell = cell
        samples = evaluate_plan(lm, tasks, limit=items)["samples"][TASK]
        rows.append([sample["logit_diff_tok"] for sample in sorted(samples, key=lambda sample: sample["doc_id"])])
    return np.array(rows).reshape(len(lm.plans), items)


def test_the_effect_is_at_least_one_nat_per_token(scores: dict[str, Any]) -> None:
    curve = {dose: values.mean() for dose, values in scores["curve"].items()}
    print({dose: round(curve[dose], 3) for dose in DOSES}, np.round(np.sort(np.abs(scores["random"])), 3))
    assert curve[1.0] - curve[-1.0] >= 1.0


def test_it_rises_with_every_step(scores: dict[str, Any]) -> None:
    means = [scores["curve"][dose].mean() for dose in DOSES]
    assert means == sorted(means)
    assert len(set(means)) == len(means)


def test_random_directions_of_the_same_norm_do_much_less_on_the_same_items(scores: dict[str, Any]) -> None:
    effect = (scores["curve"][1.0] - scores["curve"][-1.0])[:FOR_RANDOM].mean()
    assert np.percentile(np.abs(scores["random"]), 95) <= 0.4 * effect


def test_the_sign_flips_with_the_vector(scores: dict[str, Any]) -> None:
    curve = {dose: values.mean() for dose, values in scores["curve"].items()}
    assert scores["flipped"] == pytest.approx(curve[-1.0], abs=1e-4)
    assert scores["flipped"] < curve[0.0] < curve[1.0]
