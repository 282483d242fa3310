"""Row 14: padding side, batch neighbours, cache, beams and automatic batch size: the same answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_steer.errors import ScopeError
from tests.conftest import random_vector
from tests.steered import generate, loglikelihood, make_plan, rolling, steered_lm
from tests.tiny_models import WIDTH

SCOPES = ["all", "prompt", "after_prompt", "last_prompt", "each_last", "front:1", "window:0:1", "from_marker:q"]
TEXT = st.text(alphabet="abc dé北", min_size=1, max_size=40).map(lambda text: "q" + text.rstrip() + "z")
PAIR = st.tuples(TEXT, st.text(alphabet="xyz ", min_size=1, max_size=12).map(lambda text: "A" + text))


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.lists(PAIR, min_size=2, max_size=7),
    scope=st.sampled_from(SCOPES),
    skip=st.booleans(),
    size=st.integers(2, 5),
)
def test_loglikelihood_never_depends_on_the_neighbours(
    pairs: list[tuple[str, str]], scope: str, skip: bool, size: int
) -> None:
    plan = make_plan(random_vector(WIDTH, 4), scope=scope, skip_first=skip, multiplier=3.0)
    # max_length 64 truncates some of them, so that the boundary under truncation is tested too.
    together = loglikelihood(steered_lm(plan, batch_size=size, max_length=64), pairs)
    lm = steered_lm(plan, batch_size=1, max_length=64)
    for pair, (value, greedy) in zip(pairs, together, strict=True):
        alone = loglikelihood(lm, [pair])[0]
        assert value == pytest.approx(alone[0], abs=1e-4)
        assert greedy == alone[1]


@settings(max_examples=10, deadline=None)
@given(
    texts=st.lists(st.text(alphabet="abc dé北", min_size=1, max_size=90), min_size=2, max_size=5),
    scope=st.sampled_from(["all", "after_prompt", "each_last", "front:1"]),
)
def test_rolling_never_depends_on_the_neighbours(texts: list[str], scope: str) -> None:
    plan = make_plan(random_vector(WIDTH, 4), scope=scope, multiplier=3.0)
    together = rolling(steered_lm(plan, batch_size=4, max_length=24), texts)
    lm = steered_lm(plan, batch_size=1, max_length=24)
    assert together == pytest.approx([rolling(lm, [text])[0] for text in texts], abs=1e-3)


@pytest.mark.parametrize("scope", SCOPES)
def test_generation_never_depends_on_the_neighbours(scope: str) -> None:
    prompts = ["q a", "q much longer than the other prompts here", "q b c d e"]
    plan = make_plan(random_vector(WIDTH, 4), scope=scope, multiplier=3.0)
    together = generate(steered_lm(plan, batch_size=3), prompts)
    lm = steered_lm(plan, batch_size=1)
    assert together == [generate(lm, [prompt])[0] for prompt in prompts]


@pytest.mark.parametrize("scope", ["all", "after_prompt", "front:1", "last_prompt"])
def test_beams(scope: str) -> None:
    prompts = ["q a", "q much longer than the other"]
    plan = make_plan(random_vector(WIDTH, 4), scope=scope, multiplier=3.0)
    together = generate(steered_lm(plan, batch_size=2), prompts, num_beams=3, do_sample=False)
    lm = steered_lm(plan, batch_size=1)
    assert together == [generate(lm, [prompt], num_beams=3, do_sample=False)[0] for prompt in prompts]


def test_automatic_batch_size() -> None:
    plan = make_plan(random_vector(WIDTH, 4), multiplier=3.0)
    pairs = [("the context", " x"), ("another", " y")]
    auto = steered_lm(plan, batch_size="auto", max_batch_size=2, max_length=32)
    fixed = steered_lm(plan, batch_size=2, max_length=32)
    values = [value for value, _ in loglikelihood(auto, pairs)]
    assert values == pytest.approx([value for value, _ in loglikelihood(fixed, pairs)], abs=1e-5)


def test_two_splits_of_the_same_tokens_do_not_share_logits() -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4), scope="after_prompt", multiplier=20.0))
    tokens = list(range(10, 18))
    both = lm._loglikelihood_tokens([(("a", "b"), tokens[:5], tokens[5:]), (("c", "d"), tokens[:7], tokens[7:])])
    alone = [
        lm._loglikelihood_tokens([(("a", "b"), tokens[:5], tokens[5:])])[0],
        lm._loglikelihood_tokens([(("c", "d"), tokens[:7], tokens[7:])])[0],
    ]
    assert [value for value, _ in both] == pytest.approx([value for value, _ in alone], abs=1e-5)


def test_a_forward_outside_of_a_request_is_refused_rather_than_unsteered() -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4)))
    with pytest.raises(ScopeError, match="outside"):
        lm.model(torch.arange(5)[None])
