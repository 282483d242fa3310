"""Generation: with a cache as without, each_last as an explicit loop, left padding as none, beams as rows."""

from __future__ import annotations

import pytest
import torch

from lm_eval_steer.attachment import attach
from lm_eval_steer.errors import ScopeError
from lm_eval_steer.hookpoint import Hookpoint, Site
from tests.steer_tools import direction, everywhere, generate, left_padded, placement, plan
from tests.tiny_models import DEFAULT_FAMILIES, shared, shared_layout, tiny_tokenizer, token_rows

CACHED_SCOPES = ["all", "prompt", "after_prompt", "last_prompt", "front:3", "window:1:4", "from_marker:the"]
POINT = Hookpoint(Site.BLOCK_OUT, 1)


@pytest.mark.parametrize("family", DEFAULT_FAMILIES)
def test_cache_on_equals_cache_off(family):
    model, layout, ids = shared(family), shared_layout(family), token_rows(2, 7)
    with attach(model, everywhere(layout, scope="after_prompt"), layout=layout) as handle:
        on, off = generate(model, handle, ids, use_cache=True), generate(model, handle, ids, use_cache=False)
    assert torch.equal(on[0], off[0])
    torch.testing.assert_close(on[1], off[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "gemma2"])
@pytest.mark.parametrize("scope", CACHED_SCOPES)
def test_cache_on_equals_cache_off_in_every_scope(family, scope):
    model, layout, tokenizer = shared(family), shared_layout(family), tiny_tokenizer()
    ids = torch.tensor([tokenizer.encode("is it the one that")])
    with attach(model, everywhere(layout, scope=scope), layout=layout, tokenizer=tokenizer) as handle:
        on, off = generate(model, handle, ids, use_cache=True), generate(model, handle, ids, use_cache=False)
        tokens = [done["steered_tokens"] for done in handle.report()]
    plain = generate(model, None, ids)
    assert torch.equal(on[0], off[0])
    torch.testing.assert_close(on[1], off[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(on[1], plain[1], atol=1e-3)
    assert len(set(tokens)) == 1
    assert tokens[0] > 0


@pytest.mark.parametrize("family", DEFAULT_FAMILIES)
def test_each_last_equals_a_loop_that_recomputes_every_step(family):
    model, layout, ids, value = shared(family), shared_layout(family), token_rows(2, 6), direction(9)

    def last_only(_module, _args, output):
        hidden = (output if isinstance(output, torch.Tensor) else output[0]).clone()
        hidden[:, -1] += value
        return hidden if isinstance(output, torch.Tensor) else type(output)([hidden, *output[1:]])

    hook, rows, wanted = layout.blocks[1].register_forward_hook(last_only), ids, []
    try:
        with torch.no_grad():
            for _ in range(4):
                wanted.append(model(input_ids=rows, use_cache=False).logits[:, -1])
                rows = torch.cat([rows, wanted[-1].argmax(-1, keepdim=True)], dim=1)
    finally:
        hook.remove()
    with attach(model, plan(placement(POINT, value, scope="each_last")), layout=layout) as handle:
        tokens, logits = generate(model, handle, ids, steps=4, use_cache=False)
    assert torch.equal(tokens, rows[:, 6:])
    torch.testing.assert_close(logits, torch.stack(wanted), atol=1e-5, rtol=1e-5)


def test_each_last_refuses_a_cache():
    model, layout, ids = shared("llama"), shared_layout("llama"), token_rows(1, 6)
    with (
        attach(model, plan(placement(POINT, scope="each_last")), layout=layout) as handle,
        pytest.raises(ScopeError, match="generate with use_cache=False"),
    ):
        generate(model, handle, ids, use_cache=True)


@pytest.mark.parametrize("family", DEFAULT_FAMILIES)
@pytest.mark.parametrize("scope", ["after_prompt", "front:2"])
def test_left_padding_equals_no_padding(family, scope):
    model, layout = shared(family), shared_layout(family)
    rows = [row[:n] for row, n in zip(token_rows(3, 9).tolist(), (9, 4, 6), strict=True)]
    with attach(model, plan(placement(POINT, scope=scope)), layout=layout) as handle:
        tokens, logits = generate(model, handle, *left_padded(rows), steps=4)
        for number, row in enumerate(rows):
            alone = generate(model, handle, torch.tensor([row]), steps=4)
            assert torch.equal(tokens[number], alone[0][0])
            torch.testing.assert_close(logits[:, number], alone[1][:, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "qwen3"])
@pytest.mark.parametrize("scope", ["all", "after_prompt", "last_prompt", "front:2"])
def test_beams_of_a_batch_equal_each_prompt_alone(family, scope):
    model, layout = shared(family), shared_layout(family)
    rows = [row[:n] for row, n in zip(token_rows(3, 8).tolist(), (8, 3, 5), strict=True)]
    options = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False}
    with attach(model, plan(placement(POINT, direction(1, 9.0), scope=scope)), layout=layout) as handle:

        def beams(ids, mask):
            with handle.generation(ids, mask), torch.no_grad():
                return model.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]

        together = beams(*left_padded(rows))
        for number, row in enumerate(rows):
            assert torch.equal(together[number], beams(*left_padded([row]))[0])


def test_sampling_under_a_seed_repeats_and_is_steered():
    model, layout, ids = shared("llama"), shared_layout("llama"), token_rows(2, 6)

    def sample(handle):
        torch.manual_seed(5)
        with handle.generation(ids), torch.no_grad():
            return model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=True, temperature=0.7
            )

    with attach(model, plan(placement(POINT, direction(1, 20.0))), layout=layout) as handle:
        one, two = sample(handle), sample(handle)
    with attach(model, plan(), layout=layout) as handle:
        plain = sample(handle)
    assert torch.equal(one, two)
    assert not torch.equal(one, plain)
