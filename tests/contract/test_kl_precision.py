"""KL in half precision: as exact on the plain path as on the shared one, and exactly 0 of a plan that does nothing."""

from __future__ import annotations

import torch

from lm_eval_steer.measured import MeasuredText, kl_of
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.sweep.engine import SweepLM
from tests.conftest import random_vector
from tests.steered import loglikelihood, make_plan, steered_lm
from tests.tiny_models import WIDTH, build, tiny_tokenizer

TEXTS = [("Write.", MeasuredText(" The quick brown fox jumps over the lazy dog.")), ("Say:", MeasuredText(" no"))]


def kls(lm: SteeredHF) -> list[float]:
    return [kl_of(value) for value, _ in loglikelihood(lm, TEXTS)]


def test_half_precision_is_not_rounded_twice() -> None:
    """log-probabilities in bfloat16 are up to 1/256 off; the KL has to come from the logits."""
    plan = make_plan(random_vector(WIDTH, 4), multiplier=1e-4)
    model, options = build("llama").to(torch.bfloat16), {"tokenizer": tiny_tokenizer(), "batch_size": 4}
    lm = SweepLM(model, plans=[SteeringPlan(), plan], path="rows", max_length=48, **options)
    lm.cell = 1
    shared, plain = kls(lm), kls(SteeredHF(model, plan=plan, max_length=48, **options))
    assert all(one <= 2 * other + 1e-5 for one, other in zip(plain, shared, strict=True))


def test_a_plan_without_effect_has_no_kl_whatever_else_is_asked() -> None:
    mixed = [*TEXTS, ("Write. The quick brown fox jumps over the lazy", MeasuredText(" dog."))]
    found = loglikelihood(steered_lm(SteeringPlan()), mixed)  # equal tokens, two boundaries: the rows are our own
    assert [kl_of(value) for value, _ in found] == [0.0] * 3
