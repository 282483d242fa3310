"""Hooks equal an nnsight trace: one layer, all layers, generation."""

from __future__ import annotations

import pytest
import torch

from lm_eval_steer.attachment import attach
from lm_eval_steer.hookpoint import Hookpoint, Site
from tests.steer_tools import direction, everywhere, generate, placement, plan, steered
from tests.tiny_models import shared, shared_layout, tiny_tokenizer, token_rows

nnsight = pytest.importorskip("nnsight", reason="the oracle needs the nnsight extra")

FAMILIES = ["llama", "gpt2", "qwen3", "gpt_neox"]
BLOCKS = {"llama": "model.layers", "gpt2": "transformer.h", "qwen3": "model.layers", "gpt_neox": "gpt_neox.layers"}


def wrapped(model):
    """Return the model inside nnsight, under the name its installed version prefers."""
    if hasattr(nnsight, "TransformersModel"):
        return nnsight.TransformersModel(model, tokenizer=tiny_tokenizer(), task="text-generation")
    return nnsight.LanguageModel(model, tokenizer=tiny_tokenizer())


def envoys(language_model, family):
    envoy = language_model
    for part in BLOCKS[family].split("."):
        envoy = getattr(envoy, part)
    return envoy


def traced(family, ids, values):
    """Return the logits of a trace that adds ``values[layer]`` to the output of each layer in it."""
    language_model = wrapped(shared(family))
    blocks = envoys(language_model, family)
    with torch.no_grad(), language_model.trace({"input_ids": ids, "attention_mask": torch.ones_like(ids)}):
        for layer, value in values.items():
            blocks[layer].output = blocks[layer].output + value
        logits = language_model.lm_head.output.save()
    return logits  # noqa: RET504 (nnsight fills a saved name only once the block has ended)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_layer_equals_a_trace(family):
    model, layout, ids = shared(family), shared_layout(family), token_rows(2, 9)
    got = steered(model, plan(placement(Hookpoint(Site.BLOCK_OUT, 2), direction(6))), ids, layout)
    torch.testing.assert_close(got, traced(family, ids, {2: direction(6)}), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_layers_equal_a_trace(family):
    model, layout, ids = shared(family), shared_layout(family), token_rows(2, 9)
    got = steered(model, everywhere(layout), ids, layout)
    values = {layer: direction(layer) for layer in range(layout.n_layers)}
    torch.testing.assert_close(got, traced(family, ids, values), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_generation_equals_a_trace(family):
    model, layout, ids, steps = shared(family), shared_layout(family), token_rows(1, 7), 4
    value = direction(6, 12.0)
    language_model = wrapped(model)
    blocks = envoys(language_model, family)
    prompt = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad(), language_model.generate(prompt, max_new_tokens=steps, do_sample=False) as tracer:
        for _step in tracer.iter[0:steps]:
            blocks[1].output = blocks[1].output + value
        wanted = tracer.result.save()
    with attach(model, plan(placement(Hookpoint(Site.BLOCK_OUT, 1), value)), layout=layout) as handle:
        got, _ = generate(model, handle, ids, steps=steps)
    assert torch.equal(got, wanted[:, 7:])
    assert not torch.equal(got, generate(model, None, ids, steps=steps)[0])
