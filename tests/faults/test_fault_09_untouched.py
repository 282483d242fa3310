"""Row 9: an edit that resolved to no token is an error, counted at λ = 0 too; never a quiet baseline."""

from __future__ import annotations

import pytest

from lm_eval_steer.errors import ScopeError, UntouchedError
from tests.conftest import random_vector
from tests.steered import generate, loglikelihood, make_plan, steered_lm
from tests.tiny_models import WIDTH

NOTHING = {"scope": "front:1", "skip_first": True}


@pytest.mark.parametrize("multiplier", [0.0, 2.0])
def test_a_placement_that_touched_nothing_fails_the_run(multiplier: float) -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4), multiplier=multiplier, **NOTHING))
    loglikelihood(lm, [("the context", " answer"), ("other", " text")])
    with pytest.raises(UntouchedError, match=r"random add .* at block_out.1.* steered no token in 2 requests"):
        lm.get_model_info()


@pytest.mark.parametrize("multiplier", [0.0, 2.0])
def test_generation_too(multiplier: float) -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4), multiplier=multiplier, **NOTHING))
    generate(lm, ["the context"])
    with pytest.raises(UntouchedError):
        lm.get_model_info()


def test_a_run_without_requests_is_no_error() -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4), **NOTHING))
    assert lm.get_model_info()["steering"]["requests"] == 0


@pytest.mark.parametrize("multiplier", [0.0, 2.0])
def test_an_absent_marker_is_an_error_and_never_everything(multiplier: float) -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4), scope="from_marker:[/INST]", multiplier=multiplier))
    with pytest.raises(ScopeError, match=r"the marker '\[/INST\]' of scope from_marker is not in the context"):
        loglikelihood(lm, [("no marker here", " x")])


@pytest.mark.parametrize("multiplier", [0.0, 1.0])
def test_tokens_are_counted_the_same_at_zero(multiplier: float) -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4), multiplier=multiplier))
    loglikelihood(lm, [("the context", " a long answer"), ("other", " text")])
    counted = lm.get_model_info()["steering"]["done"][0]["scoped_tokens"]
    answers = [lm._encode_pair("the context", " a long answer")[1], lm._encode_pair("other", " text")[1]]
    assert counted == sum(map(len, answers))
