"""ITI: the planted head is found, slices are σ·θ, the file acts as a bias on the output projection, the command."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lm_eval_steer.cli import extract as command
from lm_eval_steer.errors import ConfigError, DataError, SiteError, UnsupportedModelError, VectorValueError
from lm_eval_steer.extraction.base import PairActivations
from lm_eval_steer.extraction.extract import Options, extract
from lm_eval_steer.extraction.iti import HeadProbe, head_shifts, iti, probe_heads, validation_items
from lm_eval_steer.extraction.pair_source import PairItem, PairSource
from lm_eval_steer.extraction.pairs import text_pairs
from lm_eval_steer.extraction.prompts import sequences
from lm_eval_steer.formats.native import load_vector, save_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layout import ModelLayout, probe_layout
from lm_eval_steer.model_args import parse_arguments
from tests.steer_tools import direction, plain_logits, steered
from tests.tiny_models import build, shared, shared_layout, tiny_tokenizer, token_rows

LAYER, HEAD, SIZE = 2, 1, 6.0
WORDS = ["fox", "dog", "lazy", "brown", "quick", "over", "them", "there", "this", "that", "you", "yes", "no"]
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"num_key_value_heads": 2, "head_dim": 24}),  # grouped queries, wider than the stream
    ("gpt2", {"n_embd": 60}),  # heads 15 wide, Conv1D
]


def source(items: int = 24) -> PairSource:
    """Items whose answers are random words and end alike, so that nothing but what is planted tells the sets apart."""
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=4)) + " the fox"

    return PairSource("toy", tuple(PairItem(str(i), "", f"Is it {text()}?", text(), text()) for i in range(items)))


@contextlib.contextmanager
def planted(model: Any, layout: ModelLayout, data: PairSource, value: Tensor) -> Iterator[None]:
    """Add ``value`` to one head in the rows that hold a matching answer, and take it away in the others."""
    marks = {}
    for pair in text_pairs(data).pairs:
        for sequence, sign in zip(sequences(pair, "plain", tiny_tokenizer(), "last"), (1.0, -1.0), strict=True):
            marks[sequence.ids] = sign
    seen: dict[str, Tensor] = {}

    def remember(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        rows = kwargs["input_ids"].tolist()
        signs = [next((sign for ids, sign in marks.items() if tuple(row[: len(ids)]) == ids), 0.0) for row in rows]
        seen["signs"] = torch.tensor(signs)

    def add(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = args[0].clone()
        z[..., HEAD * len(value) : (HEAD + 1) * len(value)] += seen["signs"][:, None, None] * value
        return (z, *args[1:])

    projection = layout.target(Hookpoint(Site.HEAD_Z, LAYER)).module
    handles = [
        model.register_forward_pre_hook(remember, with_kwargs=True),
        projection.register_forward_pre_hook(add),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(("family", "sizes"), MODELS)
def test_a_planted_head_is_found_with_its_direction(family: str, sizes: dict[str, Any]) -> None:
    model = build(family, **sizes)
    layout, data = probe_layout(model), source()
    target = layout.target(Hookpoint(Site.HEAD_Z, LAYER))
    width = target.width // target.heads
    value = direction(7, SIZE, width)
    plain = iti(model, tiny_tokenizer(), data, heads=3, layout=layout)
    with planted(model, layout, data, value):
        found = iti(model, tiny_tokenizer(), data, heads=3, layout=layout)
    best, notes = found.chosen[0], found.vector.provenance.notes
    assert (best.layer, best.head, best.accuracy) == (LAYER, HEAD, 1.0)
    (without,) = (each for each in plain.probes if (each.layer, each.head) == (LAYER, HEAD))
    assert without.accuracy < 0.9
    assert (notes["head_dim"], len(found.probes)) == (width, 4 * target.heads)
    rows = found.vector.tensors[Hookpoint(Site.HEAD_Z, LAYER)].reshape(target.heads, width)
    assert float(torch.cosine_similarity(rows[HEAD], value, dim=0)) >= 0.99
    assert float(rows[HEAD].norm()) == pytest.approx(SIZE, rel=0.1)  # σ of two clouds at ±SIZE
    moved = {
        (point.layer, head)
        for point, row in found.vector.tensors.items()
        for head in row.reshape(-1, width).any(dim=1).nonzero().flatten().tolist()
    }
    assert moved == {(each.layer, each.head) for each in found.chosen}
    assert notes["heads"] == [vars(each) for each in found.chosen]


def activations(items: int = 20, heads: int = 3, width: int = 5, twice: bool = False) -> PairActivations:
    """Random activations of two layers; every item twice if asked."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.arange(items).repeat_interleave(2 if twice else 1)
    sides = [torch.randn(len(numbers), 2, heads * width, generator=generator) for _ in range(2)]
    points = tuple(Hookpoint(Site.HEAD_Z, layer) for layer in (1, 3))
    return PairActivations(points, *sides, numbers)


def test_a_slice_is_the_unit_shift_of_means_times_the_spread_along_it() -> None:
    given = activations()
    found = head_shifts(given, [HeadProbe(3, 2, 0.9, 0.1), HeadProbe(3, 0, 0.8, 0.2)], 5)
    assert list(found) == [Hookpoint(Site.HEAD_Z, 3)]
    for head in (0, 2):
        yes, no = (side[:, 1, 5 * head : 5 * head + 5].double().numpy() for side in (given.positive, given.negative))
        theta = yes.mean(0) - no.mean(0)
        theta /= np.linalg.norm(theta)
        wanted = np.concatenate([yes @ theta, no @ theta]).std() * theta
        np.testing.assert_allclose(found[Hookpoint(Site.HEAD_Z, 3)][5 * head : 5 * head + 5], wanted, atol=1e-6)
    assert not found[Hookpoint(Site.HEAD_Z, 3)][5:10].any()


def test_heads_are_ranked_by_what_probes_say_of_items_that_they_have_not_seen() -> None:
    given = activations(twice=True)
    held = validation_items(20, seed=0)
    assert int(held.sum()) == 4
    mark = held[given.items]
    # head 1 of layer 1 tells the answers apart in the fitted items only, head 2 of layer 3 in all of them
    given.positive[~mark, 0, 5] += 50.0
    given.positive[:, 1, 10] += 50.0
    probes = probe_heads(given, 5, held)
    assert (probes[0].layer, probes[0].head, probes[0].accuracy) == (3, 2, 1.0)
    (fitted_only,) = (each for each in probes if (each.layer, each.head) == (1, 1))
    assert fitted_only.accuracy == 0.5
    assert len(probes) == 6
    order = [(-each.accuracy, each.loss) for each in probes]
    assert order == sorted(order)


def test_a_tie_goes_to_the_surer_probe_not_to_the_earlier_layer() -> None:
    given = activations()
    given.positive[:, 0, 0] += 20.0
    given.positive[:, 1, 10] += 60.0
    first, second = probe_heads(given, 5, validation_items(20, seed=0))[:2]
    assert first.accuracy == second.accuracy == 1.0
    assert ((first.layer, first.head), (second.layer, second.head)) == ((3, 2), (1, 0))


def test_another_seed_holds_other_items_out() -> None:
    assert not torch.equal(validation_items(40, 0), validation_items(40, 1))
    assert torch.equal(validation_items(40, 0), validation_items(40, 0))


@pytest.mark.parametrize(("family", "sizes"), MODELS)
def test_the_file_equals_a_bias_on_the_output_projection(family: str, sizes: dict[str, Any], tmp_path: Path) -> None:
    model, ids = build(family, **sizes), token_rows(2, 9)
    layout = probe_layout(model)
    save_vector(iti(model, tiny_tokenizer(), source(12), heads=5, layout=layout).vector, tmp_path / "v.safetensors")
    words = {"vector": str(tmp_path / "v.safetensors"), "operation": "head_shift", "multiplier": 3, "scope": "all"}
    got = steered(model, parse_arguments(words).resolve(layout.n_layers), ids, layout)
    before = plain_logits(model, ids)
    for point, value in load_vector(tmp_path / "v.safetensors").tensors.items():
        module = layout.target(point).module
        matrix = module.weight.T if isinstance(module, Conv1D) else module.weight
        bias = 3 * matrix @ value
        module.bias = nn.Parameter((bias if module.bias is None else module.bias + bias).detach())
    torch.testing.assert_close(got, plain_logits(model, ids), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got, before, atol=1e-3)


def test_batch_size_and_a_capture_change_nothing(tmp_path: Path) -> None:
    model, layout, tokenizer, data = shared("llama"), shared_layout("llama"), tiny_tokenizer(), source(12)
    file = tmp_path / "c.capture"
    one = iti(model, tokenizer, data, heads=4, layout=layout, batch_size=1, capture=file)
    many = iti(model, tokenizer, data, heads=4, layout=layout, batch_size=24)
    ran: list[int] = []
    read = iti(model, tokenizer, data, heads=4, layout=layout, capture=file, progress=lambda *_: ran.append(1))
    assert list(one.vector.tensors) == list(many.vector.tensors)
    for point, row in one.vector.tensors.items():
        torch.testing.assert_close(row, many.vector.tensors[point], atol=1e-6, rtol=1e-5)
    mean = Options("mean_difference", read="last", site=Site.HEAD_Z)
    extract(model, tokenizer, data, mean, layout=layout, capture=file, progress=lambda *_: ran.append(1))
    assert (read.vector.id, ran) == (one.vector.id, [])


def test_what_cannot_be_done_is_said() -> None:
    model, layout, tokenizer = shared("llama"), shared_layout("llama"), tiny_tokenizer()
    with pytest.raises(DataError, match="at least 10 items and got 9"):
        iti(model, tokenizer, source(9), layout=layout)
    for heads in (0, 17):
        with pytest.raises(ConfigError, match=f"heads {heads}: the layers to choose from have 16"):
            iti(model, tokenizer, source(12), heads=heads, layout=layout)
    with pytest.raises(SiteError, match="head_z"):
        iti(shared("mamba"), tokenizer, source(12), layout=shared_layout("mamba"))
    given = activations()
    given.negative[:, 0, :5] = given.positive[:, 0, :5]
    with pytest.raises(VectorValueError, match="head 0 of layer 1 has the same mean"):
        head_shifts(given, [HeadProbe(1, 0, 0.5, 0.7)], 5)


def test_layers_narrow_the_choice_and_layers_without_heads_are_passed_over() -> None:
    found = iti(shared("llama"), tiny_tokenizer(), source(12), layers=[1, 3], layout=shared_layout("llama"))
    assert (found.vector.layers, len(found.chosen)) == ((1, 3), 8)
    mixed = iti(shared("jamba"), tiny_tokenizer(), source(12), layout=shared_layout("jamba"))
    assert {each.layer for each in mixed.probes} == {1, 3}


def call(folder: Path, out: Path, *words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    given = ["extract", "--pretrained", folder, "--method", "iti", "--out", out, *words]
    args = parser.parse_args(list(map(str, given)))
    code: int = args.run(args)
    return code


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data, out = tmp_path / "tiny-llama", tmp_path / "toy.jsonl", tmp_path / "v.safetensors"
    build("llama", head_dim=24).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    rows = [{"prompt": i.prompt, "positive": i.positive, "negative": i.negative} for i in source(12).items]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert call(folder, out, "--pairs", data, "--heads", 5, "--device", "cpu") == 0
    assert "toy-iti: 5 of 16 heads" in capsys.readouterr().out
    vector = load_vector(out)
    notes = vector.provenance.notes
    assert (vector.provenance.method, notes["head_dim"], len(notes["heads"])) == ("iti", 24, 5)
    assert call(folder, out, "--pairs", data, "--force", "--json", "--device", "cpu") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["id"], len(told["heads"]), told["head_dim"]) == (load_vector(out).id, 16, 24)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--method iti wants --pairs"),
        (["--pairs", "positivity", "--read", "answer"], "--read has no place with --method iti"),
        (["--pairs", "positivity", "--site", "attn_out"], "--site has no place with --method iti"),
        (["--pairs", "positivity", "--controls", "random:3"], "--controls has no place with --method iti.*nulls"),
        (["--pairs", "positivity", "--heads", "0"], "--heads 0 is below 1"),
        (["--pairs", "positivity", "--method", "pca", "--heads", "3"], "--heads belongs to --method iti"),
        (["--pairs", "positivity", "--method", "pca,iti"], "extract it alone"),
        (["--prompts", "a", "b", "--method", "actadd", "--heads", "3"], "--heads has no place with --method actadd"),
    ],
)
def test_a_wrong_option_is_refused_before_the_model_is_loaded(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        call(tmp_path / "no-such-model", tmp_path / "v.safetensors", *words)


def test_layers_of_unlike_heads_are_refused_together() -> None:
    layout = shared_layout("llama")
    odd = dataclasses.replace(layout.target(Hookpoint(Site.HEAD_Z, 3)), heads=8)
    unlike = dataclasses.replace(layout, targets={**layout.targets, Hookpoint(Site.HEAD_Z, 3): odd})
    with pytest.raises(UnsupportedModelError, match="4 heads 16 wide and 8 heads 8 wide; name layers that are alike"):
        iti(shared("llama"), tiny_tokenizer(), source(12), layout=unlike)
