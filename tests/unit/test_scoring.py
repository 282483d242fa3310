"""Per-item scores against their formulas, written out plainly."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_steer import scoring
from lm_eval_steer.errors import ConfigError, DataError, NonFiniteError

NATS = st.floats(min_value=-200, max_value=0, allow_nan=False)
OPTIONS = st.lists(NATS, min_size=2, max_size=6)


def doc(options: int = 2, matching: int = 0, **more) -> dict:
    return {"item_id": "refusal/test/007", "order": 0, "options": ["x"] * options, "matching": matching, **more}


def answers(*logprobs: float) -> list[tuple[float, bool]]:
    return [(value, False) for value in logprobs]


@given(OPTIONS, st.data())
def test_formulas_by_brute_force(logprobs: list[float], data: st.DataObject) -> None:
    matching = data.draw(st.integers(0, len(logprobs) - 1))
    scores = scoring.letter_scores(logprobs, matching)
    # Unscaled exponentials underflow far down, so the plain formula is taken of the shifted values.
    shifted = [value - max(logprobs) for value in logprobs]
    probability = math.exp(shifted[matching]) / sum(map(math.exp, shifted))
    assert scores["p_match"] == pytest.approx(probability, abs=1e-9)
    assert scores["mass"] == pytest.approx(sum(math.exp(value) for value in logprobs), abs=1e-9)
    others = [value for index, value in enumerate(logprobs) if index != matching]
    if len(logprobs) == 2:
        assert scores["logit_diff"] == pytest.approx(logprobs[matching] - others[0], abs=1e-9)
    first = 1 / (1 + math.exp(min(700, logprobs[1] - logprobs[0])))
    assert scores["position_bias"] == pytest.approx(first - 0.5, abs=1e-9)
    assert scores["match"] == {True: 1.0, False: 0.0}[logprobs[matching] > max(others)] or (
        scores["match"] == 0.5 and logprobs[matching] == max(others)
    )


@given(OPTIONS, st.randoms(use_true_random=False))
def test_options_and_scores_permuted_together_change_nothing(logprobs: list[float], rng: random.Random) -> None:
    order = list(range(len(logprobs)))
    rng.shuffle(order)
    plain = scoring.letter_scores(logprobs, 0)
    moved = scoring.letter_scores([logprobs[index] for index in order], order.index(0))
    for key in ("logit_diff", "p_match", "match", "mass"):
        assert moved[key] == pytest.approx(plain[key], abs=1e-9)


@given(OPTIONS, st.integers(1, 40), st.data())
def test_text_scores_of_equal_lengths_are_letter_scores_over_length(
    logprobs: list[float], length: int, data: st.DataObject
) -> None:
    matching = data.draw(st.integers(0, len(logprobs) - 1))
    text = scoring.text_scores(logprobs, [length] * len(logprobs), matching)
    letters = scoring.letter_scores([value / length for value in logprobs], matching)
    assert text["logit_diff_tok"] == pytest.approx(letters["logit_diff"], abs=1e-9)
    assert text["p_match"] == pytest.approx(letters["p_match"], abs=1e-9)
    assert text["logit_diff"] == pytest.approx(scoring.logit_diff(logprobs, matching), abs=1e-9)


def test_text_headline_is_per_token() -> None:
    """A long answer with more nats in all, but fewer a token, is the preferred one."""
    scores = scoring.text_scores([-30.0, -20.0], [20, 10], 0)
    assert scores["logit_diff"] == -10.0
    assert scores["logit_diff_tok"] == pytest.approx(0.5)
    assert scores["p_match"] == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert scores["match"] == 1.0


def test_more_than_two_options_are_matched_against_all_others() -> None:
    scores = scoring.letter_scores([math.log(0.2), math.log(0.3), math.log(0.1), math.log(0.4)], 3)
    assert scores["p_match"] == pytest.approx(0.4)
    assert scores["logit_diff"] == pytest.approx(math.log(0.4 / 0.6))
    assert scores["match"] == 1.0
    assert scores["mass"] == pytest.approx(1.0)


def test_ties_are_worth_a_half() -> None:
    assert scoring.preference([-1.0, -1.0, -2.0], 0) == 0.5
    assert scoring.preference([-1.0, -1.0, -2.0], 2) == 0.0


def test_rotations_cancel_what_the_options_say() -> None:
    """With no pull of the place, position_bias averages to 0 over both orders."""
    assert scoring.position_bias([-1.0, -4.0]) + scoring.position_bias([-4.0, -1.0]) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("x", [-1e4, -50.0, -1.0, 0.0, 1.0, 50.0, 1e4])
def test_sigmoid_neither_overflows_nor_loses_symmetry(x: float) -> None:
    assert 0.0 <= scoring.sigmoid(x) <= 1.0
    assert scoring.sigmoid(x) + scoring.sigmoid(-x) == pytest.approx(1.0, abs=1e-15)


def test_processors_return_their_metric_lists() -> None:
    letters = scoring.process_letters(doc(), answers(-1.0, -2.0))
    text = scoring.process_text(doc(answer_tokens=[3, 4]), answers(-1.0, -2.0))
    assert set(letters) == set(scoring.LETTER_METRICS)
    assert set(text) == set(scoring.TEXT_METRICS)
    assert all(type(value) is float for value in [*letters.values(), *text.values()])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_answers_that_are_no_numbers_are_never_scored(bad: float) -> None:
    with pytest.raises(NonFiniteError, match=r"'refusal/test/007' .*option 2 of 2"):
        scoring.process_letters(doc(), answers(-1.0, bad))


def test_answers_that_do_not_fit_the_options() -> None:
    with pytest.raises(DataError, match="3 options but 2 answers"):
        scoring.process_letters(doc(options=3), answers(-1.0, -2.0))
    with pytest.raises(DataError, match="matching option 2 of 2"):
        scoring.process_letters(doc(matching=2), answers(-1.0, -2.0))
    with pytest.raises(DataError, match="matching option 0 of 1"):
        scoring.process_letters(doc(options=1), answers(-1.0))


def test_text_without_token_counts_is_an_error_that_says_what_to_write() -> None:
    with pytest.raises(ConfigError, match="class: !function lm_eval_steer"):
        scoring.process_text(doc(), answers(-1.0, -2.0))


def test_caa_scores_take_the_original_order_only() -> None:
    samples = [
        {"doc": {"item_id": "a", "order": 0}, "logit_diff": 0.0},
        {"doc": {"item_id": "a", "order": 1}, "logit_diff": 9.0},
        {"doc": {"item_id": "b", "order": 0}, "logit_diff": math.log(3)},
    ]
    assert scoring.caa_scores(samples) == {"a": 0.5, "b": pytest.approx(0.75)}
    with pytest.raises(DataError, match="occurs twice"):
        scoring.caa_scores([samples[0], samples[0]])
