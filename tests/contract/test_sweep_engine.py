"""The sweep engine against the plain hooked loop, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_steer.errors import NonFiniteError, ScopeError, UntouchedError
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.sweep.engine import SweepLM
from tests.conftest import random_vector
from tests.steered import generate, loglikelihood, make_plan, plain_lm, rolling
from tests.tiny_models import DEFAULT_NAMES, WIDTH, build, shared, tiny_tokenizer

PAIRS = [
    ("the context of it", " an answer"),
    ("the", " a"),
    ("the", " b"),
    ("a longer context than the others are", " yes"),
    ("q", " many tokens in this answer"),
    ("a" * 90, " z"),
]
VECTOR = random_vector(WIDTH, 4)


def sweep(plans: Sequence[SteeringPlan], *, family: str = "llama", **options: Any) -> SweepLM:
    options.setdefault("batch_size", 3)
    return SweepLM(build(family), tokenizer=tiny_tokenizer(), plans=[SteeringPlan(), *plans], max_length=48, **options)


@contextmanager
def plain(plan: SteeringPlan, family: str) -> Iterator[SteeredHF]:
    lm = SteeredHF(shared(family), tokenizer=tiny_tokenizer(), plan=plan, batch_size=3, max_length=48)
    yield lm
    lm.steering.remove()


def assert_equal_cells(lm: SweepLM, family: str, pairs: Sequence[tuple[str, str]] = PAIRS) -> None:
    for cell in range(len(lm.plans)):
        lm.cell = cell
        ours = loglikelihood(lm, pairs)
        with plain(lm.plans[lm.cell], family) as alone:
            expected = loglikelihood(alone, pairs)
        assert [value for value, _ in ours] == pytest.approx([value for value, _ in expected], abs=1e-4)
        assert [best for _, best in ours] == [best for _, best in expected]


def grid(scope: str, **options: Any) -> list[SteeringPlan]:
    return [
        make_plan(VECTOR, layer=layer, scope=scope, multiplier=multiplier, **options)
        for layer in (0, 2, 3)
        for multiplier in (-2.0, 0.0, 1.5)
    ]


@pytest.mark.parametrize("scope", ["after_prompt", "all"])
@pytest.mark.parametrize("family", DEFAULT_NAMES)
def test_every_family_equals_the_plain_loop(family: str, scope: str) -> None:
    lm = sweep(grid(scope), family=family)
    assert_equal_cells(lm, family)
    assert lm.chosen is not None
    assert lm.chosen.path in ("tree", "rows")


@pytest.mark.parametrize("scope", ["prompt", "last_prompt", "each_last", "front:1", "window:0:1"])
def test_every_scope_equals_the_plain_loop(scope: str) -> None:
    assert_equal_cells(sweep(grid(scope)), "llama")


@pytest.mark.parametrize("operation", ["add_norm_preserving", "ablate", "clamp"])
@pytest.mark.parametrize("scope", ["after_prompt", "all"])
def test_every_operation_equals_the_plain_loop(operation: str, scope: str) -> None:
    assert_equal_cells(sweep(grid(scope, operation=operation)), "llama")


@pytest.mark.parametrize("site", ["block_in", "attn_out", "mlp_out"])
def test_every_site_equals_the_plain_loop(site: str) -> None:
    from lm_eval_steer.hookpoint import Site

    assert_equal_cells(sweep(grid("after_prompt", site=Site(site))), "llama")


def test_two_hundred_cells_of_mixed_plans() -> None:
    plans = [
        make_plan(random_vector(WIDTH, 4, seed=seed), layer=layer, scope=scope, multiplier=multiplier, skip_first=skip)
        for seed in range(5)
        for layer in range(4)
        for scope in ("after_prompt", "all")
        for multiplier in (-1.0, 0.5, 3.0)
        for skip in (False, True)
    ]
    assert len(plans) == 240
    assert_equal_cells(sweep(plans, batch_size=6), "llama", PAIRS[:4])


def test_plans_of_several_placements() -> None:
    vector = random_vector(WIDTH, 4, seed=3)
    plans = [
        SteeringPlan(make_plan(VECTOR, 1, multiplier=m).placements + make_plan(vector, 3, scope="all").placements)
        for m in (-1.0, 2.0)
    ]
    assert_equal_cells(sweep(plans), "llama")


@settings(max_examples=12, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(
            st.text("abc dé北", min_size=1, max_size=60).map(lambda t: "q" + t + "z"),
            st.text("xyz ", min_size=1).map("A".__add__),
        ),
        min_size=1,
        max_size=6,
    ),
    scope=st.sampled_from(["after_prompt", "all", "last_prompt", "front:1"]),
    size=st.integers(1, 5),
)
def test_random_requests(pairs: list[tuple[str, str]], scope: str, size: int) -> None:
    assert_equal_cells(sweep(grid(scope)[3:6], batch_size=size), "llama", [(c, a[:40]) for c, a in pairs])


def test_rolling_requests() -> None:
    texts = ["some text to roll over", "x" * 120]
    lm = sweep(grid("all"))
    for cell in range(len(lm.plans)):
        lm.cell = cell
        with plain(lm.plans[lm.cell], "llama") as alone:
            expected = rolling(alone, texts)
        assert rolling(lm, texts) == pytest.approx(expected, abs=1e-3)


def test_generation_takes_the_plain_path_and_gives_the_same_text() -> None:
    lm = sweep(grid("after_prompt"))
    prompts = ["the context", "a", "longer prompt than that"]
    for cell in range(len(lm.plans)):
        lm.cell = cell
        with plain(lm.plans[lm.cell], "llama") as alone:
            assert generate(lm, prompts) == generate(alone, prompts)


def test_the_unsteered_cell_is_hf() -> None:
    lm = sweep(grid("all"))
    expected = loglikelihood(plain_lm(batch_size=3, max_length=48), PAIRS)
    assert [v for v, _ in loglikelihood(lm, PAIRS)] == pytest.approx([v for v, _ in expected], abs=1e-5)


def test_the_self_check_catches_what_is_silently_wrong() -> None:
    lm = sweep(grid("after_prompt"), family="mpt")
    loglikelihood(lm, PAIRS)
    assert lm.chosen is not None
    assert lm.chosen.path == "rows"
    assert "tree: differs by" in lm.chosen.reason


def test_a_cell_that_is_not_finite_is_marked_and_the_others_are_scored() -> None:
    plans = [SteeringPlan(), *(make_plan(VECTOR, 1, scope="all", multiplier=m) for m in (1.0, 1e6))]
    lm = SweepLM(build("gpt2").half(), tokenizer=tiny_tokenizer(), plans=plans, batch_size=3, max_length=48)
    loglikelihood(lm, PAIRS)
    lm.cell = 1
    assert all(np.isfinite(value) for value, _ in loglikelihood(lm, PAIRS))
    lm.cell = 2
    with pytest.raises(NonFiniteError, match="not finite"):
        loglikelihood(lm, PAIRS)


def test_a_scope_that_a_request_cannot_have_ends_the_sweep() -> None:
    with pytest.raises(ScopeError, match="front:9"):
        loglikelihood(sweep([make_plan(VECTOR, 1, scope="front:9")]), [("a", " b")])


def test_a_cell_that_touched_nothing_is_an_error() -> None:
    lm = sweep([make_plan(VECTOR, 1, scope="front:1", skip_first=True)])
    lm.cell = 1
    loglikelihood(lm, PAIRS)
    with pytest.raises(UntouchedError):
        lm.check_cell()


def test_token_layers_are_those_of_the_formula() -> None:
    """One-token answers after prompts: each cell runs one token through the layers from its own up."""
    plans = [make_plan(VECTOR, layer=layer, multiplier=m) for layer in range(4) for m in (-1.0, 1.0, 2.0)]
    lm = sweep(plans, batch_size=2, path="tree")
    requests = [((str(n), "a"), list(range(10, 20 + n)), [7]) for n in range(4)]
    lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert lm.token_layers == sum(len(requests) * 3 * (4 - layer) for layer in range(4))
