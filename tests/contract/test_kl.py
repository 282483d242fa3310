"""KL to the unsteered model: equal to brute force on every path, 0 without steering, and nothing for other requests."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_steer.attachment import attach
from lm_eval_steer.divergence import float_log_probs, kl_sum
from lm_eval_steer.errors import NonFiniteError
from lm_eval_steer.layer_order import OrderRequest
from lm_eval_steer.measured import LogProb, MeasuredText, kl_of
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.neutral_text import mean_per_token, process_results
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.positions import Batch
from lm_eval_steer.scope import RequestView
from lm_eval_steer.sweep.engine import SweepLM
from tests.conftest import random_vector
from tests.steered import loglikelihood, make_plan, plain_lm, steered_lm
from tests.tiny_models import WIDTH, build, shared, shared_layout, tiny_tokenizer

Pairs = Sequence[tuple[str, str]]

TEXTS = [
    ("Write about foxes.", MeasuredText(" The quick brown fox jumps over the lazy dog.")),
    ("Write.", MeasuredText(" I think that the answer is yes")),
    ("Say it:", MeasuredText(" no")),
]
LETTERS = [("the answer is (", "A"), ("the answer is (", "B"), ("the dog is (", "A"), ("the dog is (", "B")]
VECTOR = random_vector(WIDTH, 4)
ORDER = SteeringPlan(order=OrderRequest.parse("skip:1").resolve(4))


def brute_force(plan: SteeringPlan, pair: tuple[str, str], *, each: bool = False) -> float:
    """Σ_t Σ_k p (log p − log q) over the positions that predict the text, one request at a time, in float64.

    With ``each`` every position is the last of a forward of its own.
    """
    context, answer = plain_lm()._encode_pair(*pair)
    ids = (context + answer)[:-1]
    ends = range(len(context), len(ids) + 1) if each else [len(ids)]
    total = 0.0
    for end in ends:
        first = end - 1 if each else len(context) - 1
        p, q = (torch.log_softmax(logits[first:].double(), -1) for logits in both(plan, ids[:end], first + 1))
        total += math.fsum((p.exp() * (p - q)).flatten().tolist())
    return total


def both(plan: SteeringPlan, tokens: list[int], context_len: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``[tokens, vocabulary]`` of the model without and with the plan."""
    model, ids = shared("llama"), torch.tensor([tokens])
    view, batch = RequestView(tokens, context_len, "loglikelihood"), Batch([len(tokens)], [0], len(tokens))
    with torch.no_grad(), attach(model, plan, tokenizer=tiny_tokenizer(), layout=shared_layout("llama")) as handle:
        with handle.paused():
            plain = model(input_ids=ids).logits[0]
        with handle.forward(batch, [handle.spans(view)]):
            return plain, model(input_ids=ids).logits[0]


def kls(lm: SteeredHF, pairs: Pairs) -> list[float]:
    return [kl_of(value) for value, _ in loglikelihood(lm, pairs)]


def sweep(plans: Sequence[SteeringPlan], **options: Any) -> SweepLM:
    plans = [SteeringPlan(), *plans]
    options = {"batch_size": 2, "max_length": 48, **options}
    return SweepLM(build("llama"), tokenizer=tiny_tokenizer(), plans=plans, **options)


# ------------------------------------------------------------------------------------------------ against brute force


@pytest.mark.parametrize("scope", ["all", "after_prompt", "each_last"])
def test_a_steered_model_knows_its_kl(scope: str) -> None:
    plan = make_plan(VECTOR, layer=1, scope=scope, multiplier=2.0)
    own = make_plan(VECTOR, layer=1, scope="after_prompt", multiplier=2.0) if scope == "each_last" else plan
    expected = [brute_force(own, text, each=scope == "each_last") for text in TEXTS]
    assert kls(steered_lm(plan), TEXTS) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert min(expected) > 1e-3


@pytest.mark.parametrize("path", ["tree", "rows", "plain"])
@pytest.mark.parametrize("beside", [[], LETTERS], ids=["alone", "beside letters"])
def test_every_path_of_a_sweep_gives_the_same(path: Any, beside: Pairs) -> None:
    scopes = [make_plan(VECTOR, layer=1, scope="all", multiplier=1.0), make_plan(VECTOR, layer=3, multiplier=-2.0)]
    plans = [*scopes, make_plan(VECTOR, layer=2, multiplier=3.0), make_plan(VECTOR, layer=2, multiplier=0.0), ORDER]
    lm = sweep(plans, path=path)
    pairs = [*beside, *TEXTS]
    for cell, plan in enumerate(lm.plans):
        lm.cell = cell
        found = kls(lm, pairs)
        assert all(map(math.isnan, found[: len(beside)]))
        expected = [0.0 if plan.neutral else brute_force(plan, text) for text in TEXTS]
        assert found[len(beside) :] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_plan_that_does_nothing_has_exactly_no_kl_and_the_bits_of_hf() -> None:
    plain = loglikelihood(plain_lm(), TEXTS)
    for plan in (SteeringPlan(), make_plan(VECTOR, multiplier=0.0)):
        found = loglikelihood(steered_lm(plan), TEXTS)
        assert found == plain
        assert [kl_of(value) for value, _ in found] == [0.0] * len(TEXTS)
    assert all(math.isnan(kl_of(value)) for value, _ in plain)


def test_log_probabilities_do_not_depend_on_being_measured() -> None:
    plan, plain = make_plan(VECTOR, multiplier=2.0), [(context, str(text)) for context, text in TEXTS]
    assert loglikelihood(steered_lm(plan), TEXTS) == loglikelihood(steered_lm(plan), plain)
    lms = [sweep([plan]), sweep([plan])]
    for lm in lms:
        lm.cell = 1
    assert loglikelihood(lms[0], TEXTS) == loglikelihood(lms[1], plain)


def test_a_text_that_two_tasks_ask_is_measured_for_the_one_that_wants_it() -> None:
    lm = sweep([make_plan(VECTOR, multiplier=2.0)])
    lm.cell = 1
    plain = [(context, str(text)) for context, text in TEXTS]
    for pairs, wanted in ((plain, False), (TEXTS, True), (plain, False)):
        assert [math.isfinite(kl) for kl in kls(lm, pairs)] == [wanted] * len(TEXTS)
    both = sweep([make_plan(VECTOR, multiplier=2.0)])
    both.cell = 1
    assert [math.isfinite(kl) for kl in kls(both, [*plain, *TEXTS])] == [False] * 3 + [True] * 3


def test_a_cell_without_numbers_leaves_the_others_theirs() -> None:
    plans = [SteeringPlan(), *(make_plan(VECTOR, 1, scope="all", multiplier=m) for m in (1.0, 1e6))]
    lm = SweepLM(build("gpt2").half(), tokenizer=tiny_tokenizer(), plans=plans, batch_size=3, max_length=48)
    lm.cell = 1
    assert all(math.isfinite(kl) and kl > 0 for kl in kls(lm, TEXTS))
    lm.cell = 2
    with pytest.raises(NonFiniteError):
        loglikelihood(lm, TEXTS)


# ------------------------------------------------------------------------------------------------ other requests


class Kept(dict):  # type: ignore[type-arg]
    """Blocks in memory."""

    def computing(self, block_id: str) -> Any:
        import contextlib

        return contextlib.nullcontext(block_id not in self)

    def claimed(self, block_id: str) -> bool:
        return False

    def put(self, block_id: str, arrays: Any) -> None:
        self[block_id] = arrays


def test_blocks_of_other_requests_hold_nothing_more() -> None:
    blocks = Kept()
    loglikelihood(sweep([make_plan(VECTOR, multiplier=2.0)], blocks=blocks), LETTERS)
    assert blocks
    assert all("kl" not in arrays for arrays in blocks.values())
    measured = Kept()
    loglikelihood(sweep([make_plan(VECTOR, multiplier=2.0)], blocks=measured), TEXTS)
    assert all(arrays["kl"].shape == arrays["log_prob"].shape for arrays in measured.values())
    before = dict(measured)
    again = sweep([make_plan(VECTOR, multiplier=2.0)], blocks=measured)
    again.cell = 1
    assert all(kl > 0 for kl in kls(again, TEXTS))
    assert again.computed_blocks == 0
    assert set(measured) == set(before)


# ------------------------------------------------------------------------------------------------ formula and number


@given(st.integers(1, 70), st.integers(2, 9), st.integers(0, 99))
def test_kl_is_that_of_torch_and_never_negative(positions: int, vocabulary: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    base, steered = (torch.randn(positions, vocabulary, generator=generator) for _ in range(2))
    p, q = (torch.log_softmax(each.double(), -1) for each in (base, steered))
    expected = torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True)
    found = kl_sum(float_log_probs(base), float_log_probs(steered))
    assert found == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
    for same in (base, base.bfloat16()):
        assert kl_sum(float_log_probs(same), float_log_probs(same)) == 0.0


def test_tokens_that_a_model_rules_out() -> None:
    ruled_out, even = (float_log_probs(torch.tensor([[0.0, 0.0, last]])) for last in (-torch.inf, 0.0))
    assert kl_sum(ruled_out, ruled_out) == 0.0
    assert kl_sum(ruled_out, even) == pytest.approx(math.log(1.5))
    assert kl_sum(even, ruled_out) == math.inf


def test_a_log_probability_is_a_number_like_any_other() -> None:
    value = LogProb(-1.5, 0.25)
    assert (value, str(value), repr(value), json.dumps(value)) == (-1.5, "-1.5", "-1.5", "-1.5")
    again = pickle.loads(pickle.dumps(value))
    assert (again, again.kl) == (-1.5, 0.25)


def test_the_task_reports_it_where_there_is_one() -> None:
    doc = {"item_id": "a", "answer_tokens": [4]}
    found = process_results(doc, [(LogProb(-8.0, 2.0), False)])
    assert (found["nll"], found["kl"], found["token_kl"]) == (8.0, 2.0, (2.0, 4))
    assert set(process_results(doc, [(-8.0, False)])) == {"nll", "tokens", "token_perplexity"}
    assert mean_per_token([(2.0, 4), (1.0, 2)]) == 0.5
