"""Texts of many cells decoded together against each cell's own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_steer.errors import NonFiniteError
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.sweep.engine import SweepLM
from tests.conftest import random_vector
from tests.steered import generate, make_plan, plain_lm
from tests.tiny_models import DEFAULT_NAMES, WIDTH, build, shared, tiny_tokenizer

PROMPTS = ["the context of it", "a", "longer prompt than the others", "q q q"]
VECTOR = random_vector(WIDTH, 4)


def plans(scope: str, **options: object) -> list[SteeringPlan]:
    return [
        make_plan(VECTOR, layer, scope=scope, multiplier=multiplier, **options)
        for layer, multiplier in [*itertools.product((0, 2, 3), (-3.0, 1.0, 4.0)), (0, 0.0)]
    ]


def sweep(cells: Sequence[SteeringPlan], family: str = "llama", size: int = 3) -> SweepLM:
    return SweepLM(build(family), tokenizer=tiny_tokenizer(), plans=[SteeringPlan(), *cells], batch_size=size)


def assert_equal_texts(lm: SweepLM, family: str, prompts: Sequence[str] = PROMPTS, size: int = 3) -> None:
    for cell, plan in enumerate(lm.plans):
        lm.cell = cell
        expected = SteeredHF(shared(family), tokenizer=tiny_tokenizer(), plan=plan, batch_size=size)
        assert generate(lm, prompts) == generate(expected, prompts), plan
        expected.steering.remove()


@pytest.mark.parametrize("scope", ["after_prompt", "all"])
@pytest.mark.parametrize("family", DEFAULT_NAMES)
def test_every_family_says_the_same(family: str, scope: str) -> None:
    lm = sweep(plans(scope), family)
    assert_equal_texts(lm, family)


def test_an_ordinary_model_shares_the_prompt() -> None:
    lm = sweep(plans("after_prompt"))
    generate(lm, PROMPTS)
    assert lm.generation.chosen is None  # the unsteered cell needs no other
    lm.cell = 1
    generate(lm, PROMPTS)
    assert lm.generation.chosen is not None
    assert (lm.generation.chosen.path, lm.generation.chosen.reason) == ("tree", "")


@pytest.mark.parametrize("scope", ["prompt", "last_prompt", "each_last", "front:1", "window:0:1"])
def test_every_scope_says_the_same(scope: str) -> None:
    assert_equal_texts(sweep(plans(scope)), "llama")


@pytest.mark.parametrize("operation", ["add_norm_preserving", "ablate", "clamp"])
def test_every_operation_says_the_same(operation: str) -> None:
    assert_equal_texts(sweep(plans("after_prompt", operation=operation)), "llama")


@settings(max_examples=8, deadline=None)
@given(prompts=st.lists(st.text("abc xyz", min_size=1, max_size=30).map("q".__add__), min_size=1, max_size=5))
def test_neighbours_do_not_matter(prompts: list[str]) -> None:
    lm = sweep(plans("after_prompt")[:3], size=4)
    lm.cell = 1
    together = generate(lm, prompts)
    alone = SteeredHF(build("llama"), tokenizer=tiny_tokenizer(), plan=lm.plans[1], batch_size=1)
    assert together == [generate(alone, [prompt])[0] for prompt in prompts]


def test_sampling_and_beams_take_the_plain_path() -> None:
    lm = sweep(plans("after_prompt"))
    lm.cell = 2
    expected = SteeredHF(build("llama"), tokenizer=tiny_tokenizer(), plan=lm.plans[2], batch_size=3)
    assert generate(lm, PROMPTS, num_beams=2) == generate(expected, PROMPTS, num_beams=2)
    assert lm.generation.chosen is None


def test_the_unsteered_text_is_that_of_hf() -> None:
    assert generate(sweep(plans("all")), PROMPTS) == generate(plain_lm(batch_size=3), PROMPTS)


def test_a_cell_that_is_not_finite_is_marked_and_the_others_speak() -> None:
    cells = [make_plan(VECTOR, 1, scope="all", multiplier=m) for m in (1.0, 1e6, 2.0)]
    lm = SweepLM(build("gpt2").half(), tokenizer=tiny_tokenizer(), plans=[SteeringPlan(), *cells], batch_size=3)
    for cell in (1, 3):
        lm.cell = cell
        assert len(generate(lm, PROMPTS)) == len(PROMPTS)
    lm.cell = 2
    with pytest.raises(NonFiniteError, match="not finite"):
        generate(lm, PROMPTS)


def test_tokens_are_counted_once_a_request() -> None:
    lm = sweep(plans("after_prompt")[:2])
    for cell in (1, 1, 2):
        lm.cell = cell
        generate(lm, PROMPTS)
    assert np.array_equal(lm.scoped_tokens, [0, len(PROMPTS), len(PROMPTS)])
