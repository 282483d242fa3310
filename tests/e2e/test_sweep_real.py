"""The sweep engine on the embedded model: 210 cells against the plain hooked loop, one by one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.loading import load_causal_lm
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.store import find_vector
from lm_eval_steer.sweep.engine import SweepLM
from lm_eval_steer.vector import Provenance, SteeringVector

pytestmark = pytest.mark.slow

MULTIPLIERS = (-3.0, -2.0, -1.0, 0.5, 1.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def loaded(real_model_dir: Any) -> tuple[Any, Any]:
    return load_causal_lm(str(real_model_dir), dtype="float32")


def requests(tokenizer: Any) -> list[Any]:
    """A letter item under the chat template, and one of two full-text answers; short, as 422 forwards read them."""
    chat = [{"role": "system", "content": "Hi"}, {"role": "user", "content": "Full? (A) yes (B) no"}]
    letter = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + "("
    text = "How was the walk?"
    pairs = [(letter, "A"), (text, " A joy from end to end."), (text, " Cold and wet.")]
    return [((c, a), tokenizer.encode(c), tokenizer.encode(c + a)[len(tokenizer.encode(c)) :]) for c, a in pairs]


def plans() -> list[SteeringPlan]:
    """Every layer with seven multipliers, of which one scope has four and another three."""
    generator = torch.Generator().manual_seed(0)
    points = [Hookpoint(Site.BLOCK_OUT, layer) for layer in range(30)]
    tensors = {point: 0.5 * torch.randn(576, generator=generator) for point in points}
    vector = SteeringVector("random", tensors, Provenance("random"))
    return [
        SteeringPlan((Placement(vector, p, p, multiplier=m, scope=TokenScope.parse(scope)),))
        for p in points
        for m, scope in zip(MULTIPLIERS, itertools.cycle(("after_prompt", "all")), strict=False)
    ]


def test_210_cells_equal_the_plain_loop(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    cells = [SteeringPlan(), *plans()]
    asked = requests(tokenizer)
    lm = SweepLM(model, tokenizer=tokenizer, plans=cells, batch_size=4)
    found = []
    for cell in range(len(cells)):
        lm.cell = cell
        found.append(lm._loglikelihood_tokens(asked, disable_tqdm=True))
    assert lm.chosen is not None
    assert lm.chosen.path == "tree"
    for plan, ours in zip(cells, found, strict=True):
        plain = SteeredHF(model, tokenizer=tokenizer, plan=plan, batch_size=4)
        expected = plain._loglikelihood_tokens(asked, disable_tqdm=True)
        plain.steering.remove()
        assert [value for value, _ in ours] == pytest.approx([value for value, _ in expected], abs=1e-4)
        assert [best for _, best in ours] == [best for _, best in expected]
    assert len(cells) == 211


def test_texts_of_many_cells_equal_single_ones(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    vector = find_vector("smollm2-positivity").vector
    point = Hookpoint(Site.BLOCK_OUT, 20)
    cells = [SteeringPlan()] + [
        SteeringPlan((Placement(vector, point, point, multiplier=m / 4),)) for m in range(-6, 7) if m
    ]
    tokenizer.padding_side = "left"
    prompts = tokenizer(["How was the walk?", "The weather today is"], return_tensors="pt", padding=True)
    asked = {"context": prompts.input_ids, "attention_mask": prompts.attention_mask, "stop": [], "do_sample": False}
    asked["max_length"] = prompts.input_ids.shape[1] + 12
    lm = SweepLM(model, tokenizer=tokenizer, plans=cells, batch_size=2)
    for cell, plan in enumerate(cells):
        lm.cell = cell
        ours = lm._model_generate(**asked)
        plain = SteeredHF(model, tokenizer=tokenizer, plan=plan, batch_size=2)
        assert torch.equal(ours, plain._model_generate(**asked)), plan
        plain.steering.remove()
    assert lm.generation.chosen is not None
    assert lm.generation.chosen.path == "tree"
