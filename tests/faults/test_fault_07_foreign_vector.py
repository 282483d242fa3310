"""Row 7: a vector of another model, revision or tokenizer is refused; allowing it is recorded."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from lm_eval_steer.attachment import attach
from lm_eval_steer.errors import EXIT_INPUT, ForeignVectorError
from lm_eval_steer.fingerprint import fingerprint
from lm_eval_steer.layout import probe_layout
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.vector import SteeringVector
from tests.conftest import random_vector
from tests.steered import make_plan
from tests.tiny_models import WIDTH, build, tiny_tokenizer


def vector_of(model: torch.nn.Module, tokenizer: object | None = None) -> SteeringVector:
    vector = random_vector(WIDTH, 4)
    own = fingerprint(model, probe_layout(model), tokenizer)
    return dataclasses.replace(
        vector, provenance=dataclasses.replace(vector.provenance, fingerprint=own, model_id="maker")
    )


def test_the_models_own_vector_is_accepted() -> None:
    with attach(build("llama"), make_plan(vector_of(build("llama")))) as handle:
        assert handle.foreign == []


def test_bfloat16_and_float32_copies_are_one_model() -> None:
    model = build("llama").to(torch.bfloat16)
    plan = make_plan(vector_of(build("llama").to(torch.bfloat16).float()))
    with attach(model, plan) as handle:
        assert handle.foreign == []


def test_changed_weights_are_another_model() -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.layers[-1].self_attn.q_proj.weight.mul_(1.5)
    with pytest.raises(ForeignVectorError, match=r"was made on maker; this model differs in weights") as caught:
        attach(model, make_plan(vector_of(build("llama"))))
    assert caught.value.exit_code == EXIT_INPUT


def test_another_configuration_is_another_model() -> None:
    with pytest.raises(ForeignVectorError, match="differs in config"):
        attach(build("llama", num_key_value_heads=4), make_plan(vector_of(build("llama"))))


def test_another_tokenizer_is_another_model() -> None:
    other = copy.deepcopy(tiny_tokenizer())
    other.add_tokens(["surprise"])
    plan = make_plan(vector_of(build("llama"), tiny_tokenizer()))
    with pytest.raises(ForeignVectorError, match="differs in tokenizer"):
        attach(build("llama"), plan, tokenizer=other)


def test_allowing_it_is_recorded_in_the_results() -> None:
    plan = make_plan(vector_of(build("gpt2")))
    lm = SteeredHF(build("llama"), tokenizer=tiny_tokenizer(), plan=plan, allow_foreign_vector=True)
    assert "was made on maker" in lm.get_model_info()["steering"]["foreign_vectors"][0]
