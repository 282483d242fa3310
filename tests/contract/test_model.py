"""SteeredHF as lm-eval sees it: counts, refusals, identities that only show through requests."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.model import CachingLM

import lm_eval_steer
from lm_eval_steer.attachment import attach
from lm_eval_steer.errors import ConfigError, ForeignCacheError, NonFiniteError, ScopeError
from lm_eval_steer.fingerprint import fingerprint
from lm_eval_steer.layout import probe_layout
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import SteeringPlan
from tests.conftest import random_vector
from tests.steered import generate, loglikelihood, make_plan, plain_lm, steered_lm
from tests.tiny_models import WIDTH, build, tiny_tokenizer

PAIRS = [("the context", " a"), ("the context", " b"), ("the context", " c"), ("other", " text")]


def done(lm: SteeredHF) -> dict[str, Any]:
    return dict(lm.get_model_info()["steering"]["done"][0])


def test_public_names_are_what_they_say_even_after_submodules_are_imported() -> None:
    assert callable(lm_eval_steer.attach)
    names = {path.stem for path in Path(lm_eval_steer.__file__).parent.iterdir()}
    assert not names & (set(lm_eval_steer.__all__) - {"__version__"}), "a submodule would shadow a public name"


def test_a_neutral_placement_beside_a_working_one_is_counted() -> None:
    vector = random_vector(WIDTH, 4)
    plan = SteeringPlan(make_plan(vector, multiplier=0.0).placements + make_plan(vector, layer=2).placements)
    lm = steered_lm(plan)
    loglikelihood(lm, PAIRS)
    info = lm.get_model_info()["steering"]
    answers = sum(len(lm._encode_pair(*pair)[1]) for pair in PAIRS)
    assert [placement["scoped_tokens"] for placement in info["done"]] == [answers, answers]
    assert info["done"][0]["steered_tokens"] == 0


@pytest.mark.parametrize("scope", ["after_prompt", "each_last", "all"])
def test_requests_and_scoped_tokens_do_not_depend_on_the_multiplier(scope: str) -> None:
    counts = []
    for multiplier in (0.0, 2.0):
        lm = steered_lm(make_plan(random_vector(WIDTH, 4), scope=scope, multiplier=multiplier))
        loglikelihood(lm, [*PAIRS, ("longer", " answer of several tokens")])
        generate(lm, ["the context", "x"])
        counts.append((lm.steering.requests, done(lm)["scoped_tokens"]))
    assert counts[0] == counts[1]
    assert counts[0][0] == 7


def test_requests_left_unsteered_are_counted() -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4), scope="last_prompt", skip_first=True))
    loglikelihood(lm, [("a", " b"), ("the context", " c")])
    assert done(lm)["untouched_requests"] == 1


def test_an_empty_plan_generates_from_an_empty_prompt_as_hf_does() -> None:
    assert generate(steered_lm(None), ["", "the quick"]) == generate(plain_lm(), ["", "the quick"])


def test_each_last_leaves_the_first_token_alone_while_generating() -> None:
    plan = make_plan(random_vector(WIDTH, 4), scope="each_last", skip_first=True, multiplier=50.0)
    model, ids = build("llama"), torch.tensor([[7]])
    plain = model(ids).logits
    with attach(model, plan) as handle, handle.generation(ids):
        assert torch.equal(model(ids).logits, plain)


def test_infinite_logits_are_never_scored() -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4)))
    lm.model.lm_head.bias = torch.nn.Parameter(torch.zeros(lm.model.lm_head.out_features))
    with torch.no_grad():
        lm.model.lm_head.bias[:] = float("inf")
    with pytest.raises(NonFiniteError):
        loglikelihood(lm, PAIRS)
    with pytest.raises(NonFiniteError):
        generate(lm, ["the context"])


def test_masked_vocabulary_is_no_error() -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4)))
    lm.model.lm_head.bias = torch.nn.Parameter(torch.zeros(lm.model.lm_head.out_features))
    with torch.no_grad():
        lm.model.lm_head.bias[-1] = float("-inf")
    assert all(torch.isfinite(torch.tensor(value)) for value, _ in loglikelihood(lm, PAIRS))


@pytest.mark.parametrize("change", ["o_proj", "down_proj"])
@pytest.mark.parametrize("layer", range(4))
def test_an_edit_of_any_matrix_is_another_model(change: str, layer: int) -> None:
    model, plain = build("llama"), build("llama")
    block = model.model.layers[layer]
    matrix = block.self_attn.o_proj if change == "o_proj" else block.mlp.down_proj
    with torch.no_grad():
        direction = torch.nn.functional.normalize(torch.randn(WIDTH), dim=0)
        matrix.weight.sub_(torch.outer(direction, direction @ matrix.weight))
    assert "weights" in fingerprint(plain, probe_layout(plain)).differs_from(fingerprint(model, probe_layout(model)))


def test_a_cache_of_another_precision_or_length_is_refused(tmp_path: Path) -> None:
    plan = make_plan(random_vector(WIDTH, 4))
    CachingLM(steered_lm(plan), str(tmp_path / "c.db")).loglikelihood([])
    with pytest.raises(ForeignCacheError):
        CachingLM(steered_lm(plan, max_length=16), str(tmp_path / "c.db"))


def test_guidance_is_refused() -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4)))
    with pytest.raises(ConfigError, match="guidance_scale"):
        generate(lm, ["the context"], guidance_scale=2.0)


def test_a_second_plan_on_a_steered_model_says_so() -> None:
    lm = steered_lm(make_plan(random_vector(WIDTH, 4)))
    with pytest.raises(ScopeError, match="steered model outside"):
        SteeredHF(lm.model, tokenizer=tiny_tokenizer(), plan=SteeringPlan())


def test_the_default_marker_is_written_into_the_plan() -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer(chat=True))
    plan = make_plan(random_vector(WIDTH, 4), scope="from_marker")
    lm = SteeredHF(build("llama"), tokenizer=tokenizer, plan=plan)
    (placement,) = lm.get_model_info()["steering"]["plan"]["placements"]
    assert placement["scope"] == "from_marker:<|im_start|>assistant\n"


def test_the_plan_does_not_depend_on_what_else_the_vector_file_holds() -> None:
    vector = random_vector(WIDTH, 4)
    assert make_plan(vector, layer=2).id == make_plan(vector.select([2]), layer=2).id


@pytest.mark.parametrize("operation", ["clamp", "ablate"])
def test_normalising_a_direction_is_refused(operation: str) -> None:
    with pytest.raises(ConfigError, match="direction only"):
        make_plan(random_vector(WIDTH, 4), operation=operation, normalize="unit", scale=0.5)
