"""Gemma 3 270M out of the package index: a sane multilingual model that can be steered. Never without being asked for.

The Gemma Terms of Use bind whoever runs this: LM_EVAL_STEER_TEST_GEMMA=accept says that you accept them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_steer import embedded
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.inspection.verify import verify
from lm_eval_steer.layout import probe_layout
from lm_eval_steer.loading import load_causal_lm
from tests.steer_tools import direction, placement, plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("LM_EVAL_STEER_TEST_GEMMA") != "accept",
        reason="Gemma terms; ends with LM_EVAL_STEER_TEST_GEMMA=accept, which accepts them",
    ),
]

#: A sentence and the same words in another order.
SENTENCES = {
    "en": (
        "The weather in London is often cloudy, and it rains a lot in winter.",
        "Lot cloudy winter, the a rains in and is London it often in weather.",
    ),
    "fr": (
        "Le temps à Paris est souvent agréable au printemps, quand les arbres sont en fleurs.",
        "Fleurs les en agréable, quand printemps temps sont Paris au à arbres le est souvent.",
    ),
    "zh": (
        "北京是中华人民共和国的首都，也是全国的政治和文化中心。",
        "中心首都的，人民也政治共和国全国文化是中华北京的是和。",
    ),
}


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any, Path]:
    folder = embedded.ensure("gemma3", accept_terms=True)
    return *load_causal_lm(str(folder), device="cpu"), folder


def perplexity(model: Any, tokenizer: Any, text: str) -> float:
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        return float(model(ids, labels=ids).loss.exp())


@pytest.mark.parametrize("lang", SENTENCES)
def test_perplexity_is_that_of_a_model_that_knows_the_language(lang: str, loaded: tuple[Any, Any, Path]) -> None:
    model, tokenizer, _ = loaded
    said, shuffled = (perplexity(model, tokenizer, text) for text in SENTENCES[lang])
    assert 3 < said < 60
    assert shuffled > 10 * said


def test_tokens_are_gemmas(loaded: tuple[Any, Any, Path]) -> None:
    _, tokenizer, _ = loaded
    assert tokenizer("Hello world")["input_ids"] == [2, 9259, 1902], "BOS, and no blank put in front"
    assert tokenizer("<start_of_turn>user\nhi<end_of_turn>")["input_ids"] == [2, 105, 2364, 107, 2202, 106]
    assert tokenizer("\n\n")["input_ids"] == [2, 108]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<bos>", "<eos>", "<pad>")
    assert tokenizer.chat_template is None
    for text in (*(text for pair in SENTENCES.values() for text in pair), "1,024.50\t naïve 🙂"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_papers_name_the_terms(loaded: tuple[Any, Any, Path]) -> None:
    folder = loaded[2]
    assert "Gemma Terms of Use found at ai.google.dev/gemma/terms" in (folder / "NOTICE").read_text()
    assert "Gemma Terms of Use" in (folder / "TERMS.html").read_text()


@pytest.mark.parametrize("repeats", [1, 33])
def test_steering_does_what_it_says(repeats: int, loaded: tuple[Any, Any, Path]) -> None:
    """Also where the prompt is longer than the sliding window of 512 tokens."""
    model, tokenizer, _ = loaded
    layout = probe_layout(model)
    assert (layout.n_layers, layout.d_model) == (18, 640)
    prompt = SENTENCES["en"][0] * repeats
    assert (len(tokenizer(prompt)["input_ids"]) > model.config.sliding_window) == (repeats > 1)
    point = Hookpoint(Site.BLOCK_OUT, 9)
    wanted = plan(placement(point, direction(1, norm=2000.0, width=640), scope="all", skip_first=True))
    assert verify(model, tokenizer, layout, wanted, prompt, new_tokens=2).wrong == ()
