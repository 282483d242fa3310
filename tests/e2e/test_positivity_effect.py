"""The positive control on the real model: an effect of size, against 20 random directions of the same norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

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
DOSES = (-1.0, -0.5, 0.0, 0.5, 1.0)
POINT = Hookpoint(Site.BLOCK_OUT, LAYER)


def plan(vector: SteeringVector, multiplier: float) -> SteeringPlan:
    scope = TokenScope("all")
    return SteeringPlan((Placement(vector, POINT, POINT, multiplier=multiplier, scope=scope, skip_first=True),))


@pytest.fixture(scope="module")
def scores(real_model_dir: Any) -> dict[str, Any]:
    """Nats per token, positive minus negative answer, of 60 held-out items: by dose, flipped, and random by seed."""
    model, tokenizer = load_causal_lm(str(real_model_dir))
    vector = find_vector("smollm2-positivity").vector
    row = vector.at(LAYER)[None]
    nulls = [
        SteeringVector(f"random-{i}", {POINT: random_direction(row, (POINT,), 7, i)[0]}, Provenance("random"))
        for i in range(RANDOM)
    ]
    plans = [SteeringPlan(), *(plan(vector, dose) for dose in DOSES if dose), plan(vector.scaled(-1.0), 1.0)]
    plans += [plan(null, dose) for null in nulls for dose in (-1.0, 1.0)]
    tasks = load_tasks([TASK], tokenizer)
    reuse_requests(tasks["tasks"][TASK])
    lm = SweepLM(model, tokenizer=tokenizer, plans=plans, batch_size=8)
    means = []
    for cell in range(len(plans)):
        lm.cell = cell
        samples = evaluate_plan(lm, tasks)["samples"][TASK]
        assert len(samples) == 60
        means.append(float(np.mean([sample["logit_diff_tok"] for sample in samples])))
    curve = {0.0: means[0], **dict(zip([d for d in DOSES if d], means[1:5], strict=True))}
    pairs = np.array(means[6:]).reshape(RANDOM, 2)
    return {"curve": curve, "flipped": means[5], "random": pairs[:, 1] - pairs[:, 0]}


def test_the_effect_is_at_least_one_nat_per_token(scores: dict[str, Any]) -> None:
    curve = scores["curve"]
    print({dose: round(curve[dose], 3) for dose in DOSES}, np.round(np.sort(np.abs(scores["random"])), 3))
    assert curve[1.0] - curve[-1.0] >= 1.0


def test_it_rises_with_every_step(scores: dict[str, Any]) -> None:
    means = [scores["curve"][dose] for dose in DOSES]
    assert means == sorted(means)
    assert len(set(means)) == len(means)


def test_random_directions_of_the_same_norm_do_much_less(scores: dict[str, Any]) -> None:
    effect = scores["curve"][1.0] - scores["curve"][-1.0]
    assert np.percentile(np.abs(scores["random"]), 95) <= 0.4 * effect


def test_the_sign_flips_with_the_vector(scores: dict[str, Any]) -> None:
    assert scores["flipped"] == pytest.approx(scores["curve"][-1.0], abs=1e-4)
    assert scores["flipped"] < scores["curve"][0.0] < scores["curve"][1.0]
