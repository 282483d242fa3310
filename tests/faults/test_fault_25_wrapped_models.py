"""Row 25: PEFT-wrapped, split (``device_map``) and tied models work inside lm-eval's requests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lm_eval_steer.errors import SteerError
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import SteeringPlan
from tests.conftest import random_vector
from tests.steered import generate, loglikelihood, make_plan, steered_lm
from tests.tiny_models import WIDTH, build, tiny_tokenizer

PAIRS = [("the context of it", " an answer"), ("the", " b")]


def plan() -> SteeringPlan:
    return make_plan(random_vector(WIDTH, 4), scope="after_prompt", multiplier=3.0)


def test_an_adapter_that_does_nothing_changes_nothing() -> None:
    wrapped = get_peft_model(build("llama"), LoraConfig(target_modules=["q_proj", "o_proj", "down_proj"], r=2))
    lm = SteeredHF(wrapped.eval(), tokenizer=tiny_tokenizer(), plan=plan(), batch_size=2)
    expected = steered_lm(plan(), batch_size=2)
    assert [v for v, _ in loglikelihood(lm, PAIRS)] == pytest.approx(
        [v for v, _ in loglikelihood(expected, PAIRS)], abs=1e-5
    )
    assert generate(lm, ["the context"]) == generate(expected, ["the context"])


def test_an_adapter_is_another_model() -> None:
    from lm_eval_steer.fingerprint import fingerprint
    from lm_eval_steer.layout import probe_layout

    plain = build("llama")
    own = fingerprint(plain, probe_layout(plain))
    wrapped = get_peft_model(build("llama"), LoraConfig(target_modules=["q_proj"], r=2))
    assert "weights" in own.differs_from(fingerprint(wrapped, probe_layout(wrapped)))


def test_prompt_tuning_is_refused_by_name() -> None:
    wrapped = get_peft_model(build("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(SteerError, match=r"batch and sequence axes|cannot be steered"):
        SteeredHF(wrapped.eval(), tokenizer=tiny_tokenizer(), plan=plan(), batch_size=2)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_split_between_memory_and_disk(tmp_path: Path, family: str) -> None:
    whole = build(family)
    whole.save_pretrained(tmp_path / "model")
    prefix = "model.layers" if family == "llama" else "transformer.h"
    names = [name for name, _ in whole.named_children()]
    base = getattr(whole, names[0])
    places: dict[str, str] = {f"{prefix}.{i}": "disk" if i >= 2 else "cpu" for i in range(4)}
    for name, _ in base.named_children():
        if f"{names[0]}.{name}" != prefix:
            places[f"{names[0]}.{name}"] = "cpu"
    places["lm_head"] = "cpu"
    split = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=str(tmp_path / "offload"), dtype=torch.float32
    )
    assert any(p.device.type == "meta" for p in split.parameters())
    lm = SteeredHF(split, tokenizer=tiny_tokenizer(), plan=plan(), batch_size=2)
    expected = steered_lm(plan(), family=family, batch_size=2)
    assert [v for v, _ in loglikelihood(lm, PAIRS)] == pytest.approx(
        [v for v, _ in loglikelihood(expected, PAIRS)], abs=1e-5
    )
    assert lm.get_model_info()["steering"]["fingerprint"] == expected.get_model_info()["steering"]["fingerprint"]


def test_tied_embeddings() -> None:
    tied = build("llama", tie_word_embeddings=True)
    lm = SteeredHF(tied, tokenizer=tiny_tokenizer(), plan=plan(), batch_size=2)
    assert loglikelihood(lm, PAIRS) != loglikelihood(
        SteeredHF(build("llama", tie_word_embeddings=True), tokenizer=tiny_tokenizer(), batch_size=2), PAIRS
    )
    assert lm.model.lm_head.weight is lm.model.model.embed_tokens.weight
