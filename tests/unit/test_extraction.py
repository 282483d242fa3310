"""Extraction on tiny random models: exact against hidden_states, independent of batches, balanced, reproducible."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lm_eval_steer.errors import ConfigError, DataError, LayerError, NonFiniteError, SiteError, VectorValueError
from lm_eval_steer.extraction import PRESETS, get_estimator, get_method
from lm_eval_steer.extraction.base import PairActivations, item_numbers
from lm_eval_steer.extraction.capture import _norm_sum, capture
from lm_eval_steer.extraction.controls import letter_direction, parse_controls, random_direction, shuffled_direction
from lm_eval_steer.extraction.extract import Extraction, Options, extract
from lm_eval_steer.extraction.mean_difference import MeanDifference
from lm_eval_steer.extraction.pair_source import PairItem, PairSource
from lm_eval_steer.extraction.prompts import Sequenced
from lm_eval_steer.extraction.statistics import cosines, split_half
from lm_eval_steer.formats.native import load_vector, save_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layout import probe_layout
from tests.tiny_models import LAYERS, WIDTH, build, shared, shared_layout, tiny_tokenizer, token_rows

POINTS = tuple(Hookpoint(Site.BLOCK_OUT, layer) for layer in range(LAYERS))
WORDS = ("fox", "dog", "lazy", "brown", "quick", "over")


def toy_source() -> PairSource:
    items = []
    for number, word in enumerate(WORDS):
        question = f"How is the {word} {'and the dog ' * (number % 3)}?"
        items.append(PairItem(str(number), question, f"{question}\nAnswer:", f"yes, the {word} is", f"no {word}"))
    return PairSource("toy", tuple(items))


def toy_sequences(count: int = 7) -> list[Sequenced]:
    rows = token_rows(count, 24, seed=3).tolist()
    lengths = [5, 24, 9, 17, 6, 12, 20][:count]
    return [
        Sequenced(tuple(row[:n]), n // 2, n if k % 2 else n // 2 + 1)
        for k, (row, n) in enumerate(zip(rows, lengths, strict=True))
    ]


def run(name: str = "llama", **options: Any) -> Extraction:
    return extract(
        shared(name), tiny_tokenizer(chat=True), toy_source(), Options(**options), layout=shared_layout(name)
    )


# Capture


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "opt"])
def test_one_by_one_it_is_hidden_states_exactly(name: str) -> None:
    model, layout, rows = build(name), shared_layout(name), toy_sequences()
    layout = probe_layout(model)
    found = capture(model, layout, rows, POINTS, batch_size=1)
    for number, sequence in enumerate(rows):
        with torch.no_grad():
            states = model(torch.tensor([sequence.ids]), output_hidden_states=True).hidden_states
        for layer in range(LAYERS - 1):  # hidden_states[-1] is behind the final norm
            wanted = states[layer + 1][0, sequence.start : sequence.stop].double().mean(0).float()
            assert torch.equal(found.means[number, layer], wanted), (number, layer)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "gemma2", "opt"])
def test_batches_padding_and_order_do_not_matter(name: str) -> None:
    model, layout, rows = shared(name), shared_layout(name), toy_sequences()
    single = capture(model, layout, rows, POINTS, batch_size=1)
    for size in (2, 3, 8):
        together = capture(model, layout, rows, POINTS, batch_size=size)
        torch.testing.assert_close(together.means, single.means, rtol=0, atol=1e-5)
        for point in POINTS:
            assert together.norms[point] == pytest.approx(single.norms[point], rel=1e-6)
    backwards = capture(model, layout, rows[::-1], POINTS, batch_size=3)
    torch.testing.assert_close(backwards.means.flip(0), single.means, rtol=0, atol=1e-5)


def test_every_site_is_what_its_module_carries() -> None:
    model, layout, sequence = shared("llama"), shared_layout("llama"), toy_sequences()[1]
    block: Any = layout.blocks[2]
    seen: dict[Site, Tensor] = {}
    handles = [
        block.register_forward_pre_hook(lambda _m, args: seen.__setitem__(Site.BLOCK_IN, args[0])),
        block.self_attn.o_proj.register_forward_hook(lambda _m, _a, out: seen.__setitem__(Site.ATTN_OUT, out)),
        block.mlp.down_proj.register_forward_hook(lambda _m, _a, out: seen.__setitem__(Site.MLP_OUT, out)),
    ]
    with torch.no_grad():
        model(torch.tensor([sequence.ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    for site, value in seen.items():
        found = capture(model, layout, [sequence], [Hookpoint(site, 2)], batch_size=1).means[0, 0]
        assert torch.equal(found, value[0, sequence.start : sequence.stop].double().mean(0).float()), site


def test_no_activation_outlives_its_forward() -> None:
    model = build("llama")
    layout = probe_layout(model)
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def watch(_module: Any, _args: Any, output: Tensor) -> None:
        nonlocal most
        alive.append(weakref.ref(output))
        most = max(most, sum(ref() is not None for ref in alive))

    for block in layout.blocks:
        block.register_forward_hook(watch)
    capture(model, layout, toy_sequences(), POINTS, batch_size=2)
    gc.collect()
    assert len(alive) == 4 * LAYERS
    assert not any(ref() is not None for ref in alive)
    assert most <= 3  # this block's, its input, and one that python has not let go of yet


def test_norms_leave_sinks_out() -> None:
    rows = torch.ones(8, 4)
    rows[0] *= 1e4
    rows[5] *= 30
    total, count = _norm_sum(rows, skip=1)
    assert (count, total) == (6, pytest.approx(12.0))
    assert _norm_sum(rows[:1], skip=1) == (0.0, 0)


def test_skip_first_leaves_the_first_token_out_of_a_mean() -> None:
    model, layout = shared("llama"), shared_layout("llama")
    ids = toy_sequences()[1].ids
    skipped = capture(model, layout, [Sequenced(ids, 0, 6)], POINTS)
    given = capture(model, layout, [Sequenced(ids, 1, 6)], POINTS, skip_first=False)
    assert torch.equal(skipped.means, given.means)
    with pytest.raises(DataError, match="attention sink"):
        capture(model, layout, [Sequenced(ids, 0, 1)], POINTS)


def test_hooks_are_gone_after_success_and_after_failure() -> None:
    model = build("llama")
    layout = probe_layout(model)
    hooks = lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    before = hooks()
    capture(model, layout, toy_sequences(), POINTS)
    with pytest.raises(SiteError):
        capture(model, layout, toy_sequences(), [*POINTS, Hookpoint(Site.BLOCK_OUT, 99)])
    with torch.no_grad():
        model.get_input_embeddings().weight[:] = float("nan")
    with pytest.raises(NonFiniteError, match="float32"):
        capture(model, layout, toy_sequences(), POINTS)
    assert hooks() == before


def test_capture_refuses_what_cannot_be_read() -> None:
    model, layout = shared("llama"), shared_layout("llama")
    with pytest.raises(ConfigError, match="batch size 0"):
        capture(model, layout, toy_sequences(), POINTS, batch_size=0)
    with pytest.raises(DataError, match="129 tokens and the model allows 128"):
        capture(model, layout, [Sequenced((9,) * 129, 3, 4)], POINTS)


# Directions


def synthetic(n_items: int = 40, letter: float = 20.0, noise: float = 1.0) -> tuple[PairActivations, Tensor, Tensor]:
    """Balanced letter pairs: behaviour ``b`` plus ``±letter·a``, by order; returns b and a too."""
    generator = torch.Generator().manual_seed(5)
    b, a = torch.linalg.qr(torch.randn(WIDTH, 2, generator=generator)).Q.T
    y = torch.tensor([1.0, -1.0]).repeat(n_items)
    drift = noise * torch.randn(2 * n_items, 1, WIDTH, generator=generator)
    negative = torch.randn(2 * n_items, 1, WIDTH, generator=generator)
    difference = 2 * b + letter * y[:, None, None] * a + drift
    items = torch.arange(n_items).repeat_interleave(2)
    return PairActivations(POINTS[:1], negative + difference, negative, items, y), b, a


def test_balance_cancels_the_letter_and_an_unbalanced_set_does_not() -> None:
    activations, b, a = synthetic()
    v = MeanDifference().estimate(activations)
    assert float(v[0] @ a) == pytest.approx(0.0, abs=0.5)
    assert float(cosines(v, b[None])) > 0.9
    unbalanced = activations.subset(torch.arange(80) % 8 != 1)
    assert float(MeanDifference().estimate(unbalanced)[0] @ a) > 2.0
    letter = letter_direction(activations)
    assert float(cosines(letter, a[None])) > 0.98


def test_split_halves_are_drawn_by_item() -> None:
    activations, _, _ = synthetic(noise=0.0)
    halves = split_half(MeanDifference(), activations, seed=0)
    assert halves is not None
    assert float(halves) == pytest.approx(1.0, abs=1e-4)  # drawn by pair, the letters would differ between the halves


def test_shuffled_signs_are_drawn_by_item() -> None:
    activations, _, a = synthetic()
    v = MeanDifference().estimate(activations)
    null = shuffled_direction(activations, v, seed=0)
    assert abs(float(null[0] @ a)) < 0.5 * float(v.norm())
    assert abs(float(cosines(null, v))) < 0.5
    assert float(null.norm()) == pytest.approx(float(v.norm()), rel=1e-5)
    assert not torch.equal(null, shuffled_direction(activations, v, seed=1))
    assert torch.equal(null, shuffled_direction(activations, v, seed=0))


def test_random_directions_do_not_depend_on_the_other_layers() -> None:
    v = torch.randn(LAYERS, WIDTH, generator=torch.Generator().manual_seed(1))
    every = random_direction(v, POINTS, seed=3)
    torch.testing.assert_close(every.norm(dim=-1), v.norm(dim=-1))
    assert torch.equal(random_direction(v[2:3], POINTS[2:3], seed=3), every[2:3])
    assert not torch.equal(random_direction(v, POINTS, seed=3, number=1), every)
    assert not torch.equal(random_direction(v, POINTS, seed=4), every)


def test_controls_are_parsed_strictly() -> None:
    assert [str(c) for c in parse_controls("random:2, shuffled,letter,zero")] == [
        "random-0",
        "random-1",
        "shuffled",
        "letter",
        "zero",
    ]
    assert [str(c) for c in parse_controls("random:1")] == ["random"]
    assert parse_controls("") == ()
    for text, reason in (("rand", "Did you mean"), ("letter:2", "take no number"), ("random:0", "1 to 9999")):
        with pytest.raises(ConfigError, match=reason):
            parse_controls(text)
    with pytest.raises(ConfigError, match="given twice"):
        parse_controls("random,random:3")


def test_item_numbers() -> None:
    assert item_numbers(["b", "b", "a", "b"]).tolist() == [0, 0, 1, 0]


# The whole way


def test_a_planted_direction_is_recovered() -> None:
    model, tokenizer = build("llama"), tiny_tokenizer(chat=True)
    planted = torch.randn(WIDTH, generator=torch.Generator().manual_seed(2))
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        for one, two in zip(tokenizer.encode("(A"), tokenizer.encode("(B"), strict=True):
            if one != two:
                table[one] = table[two] + planted
    items = tuple(PairItem(str(k), w, f"{w}\nAnswer:", f"the {w} (A", f"the {w} (B") for k, w in enumerate(WORDS))
    found = extract(model, tokenizer, PairSource("planted", items), Options(site=Site.BLOCK_IN, layers=[0]))
    direction = found.vector.at(0)
    assert float(cosines(direction[None], planted[None])) > 0.9999
    assert found.statistics[0].split_half == pytest.approx(1.0, abs=1e-3)


def test_vector_controls_and_provenance() -> None:
    found = run(controls="random:2,shuffled,letter,zero")
    assert found.vector.layers == tuple(range(LAYERS))
    assert set(found.controls) == {"random-0", "random-1", "shuffled", "letter", "zero"}
    norms = found.vector.norms()
    for name, control in found.controls.items():
        assert control.provenance.control == name.partition("-")[0]
        assert control.name == f"toy-{name}"
        wanted = dict.fromkeys(norms, 0.0) if name == "zero" else norms
        assert control.norms() == pytest.approx(wanted, rel=1e-5)
    record = found.vector.provenance
    assert (record.method, record.n_pairs, record.letter_balance, record.control) == ("mean_text", 6, None, None)
    assert set(record.activation_norms) == {str(point) for point in POINTS}
    assert record.data_sha256 == found.pairs.sha256
    assert record.fingerprint is not None
    assert record.notes["position"] == "answer"
    for each in found.statistics:
        assert each.activation_norm is not None
        assert each.relative_dose == pytest.approx(each.norm / each.activation_norm)
        assert -1 <= (each.split_half or 0) <= 1
        assert each.cos_letter is not None
        assert each.cos_yes == pytest.approx(1)  # every answer that matches is a yes
    for control in found.controls.values():
        assert not {"split_half", "cos_letter", "cos_yes"} & set(control.provenance.notes)


def test_caa_reads_letters_in_both_orders_and_cancels_them() -> None:
    found = run(method="caa", controls="letter")
    assert (found.vector.provenance.letter_balance, found.vector.provenance.n_pairs) == (0.5, 12)
    letter = found.controls["letter"]
    assert letter.norms() == pytest.approx(found.vector.norms(), rel=1e-5)
    for each in found.statistics:
        assert each.cos_letter is not None
        assert abs(each.cos_letter) < 0.9


@pytest.mark.parametrize("method", ["mean_text", "caa"])
def test_a_second_run_writes_the_same_bytes(tmp_path: Path, method: str) -> None:
    for number in range(2):
        found = run(method=method, controls="random,shuffled,letter")
        save_vector(found.vector, tmp_path / f"{number}.safetensors")
        for name, control in found.controls.items():
            save_vector(control, tmp_path / f"{number}.{name}.safetensors")
    for path in sorted(tmp_path.glob("0.*")):
        assert path.read_bytes() == (tmp_path / path.name.replace("0", "1", 1)).read_bytes(), path.name
    assert load_vector(tmp_path / "0.safetensors").id == found.vector.id


def test_chosen_layers_are_those_of_all_layers() -> None:
    every, some = run(controls="random,shuffled"), run(layers=[2, -4], controls="random,shuffled")
    assert some.vector.layers == (0, 2)
    for layer in (0, 2):
        assert torch.equal(some.vector.at(layer), every.vector.at(layer))
        for name, control in some.controls.items():
            assert torch.equal(control.at(layer), every.controls[name].at(layer))


def test_what_cannot_be_extracted_is_refused() -> None:
    for layers in ([9], [1, 1], [1, -3], [], "most"):
        with pytest.raises(LayerError):
            run(layers=layers)
    with pytest.raises(SiteError):
        run("mamba", site=Site.MLP_OUT)
    with pytest.raises(ConfigError, match="unknown method"):
        run(method="cca")
    with pytest.raises(ConfigError, match="unknown format"):
        run(form="chatml")
    same = PairSource("same", (PairItem("0", "q", "q\nAnswer:", "yes", "no"),) * 1)
    alone = extract(shared("llama"), tiny_tokenizer(), same, Options(), layout=shared_layout("llama"))
    assert alone.statistics[0].split_half is None
    with pytest.raises(VectorValueError):
        extract(
            shared("llama"),
            tiny_tokenizer(),
            PairSource("same", (PairItem("0", "q", "q", "a", "a"),)),
            Options(),
            layout=shared_layout("llama"),
        )


def test_methods_and_estimators() -> None:
    assert (PRESETS["caa"].position, PRESETS["mean_text"].position) == ("letter", "answer")
    assert get_method("mean_difference").estimator == "mean_difference"
    assert get_estimator("mean_difference").name == "mean_difference"
    with pytest.raises(ConfigError, match="Did you mean 'caa'"):
        get_method("caaa")
    with pytest.raises(KeyError):
        get_estimator("nothing")


def test_progress_counts_answers() -> None:
    seen: list[tuple[int, int]] = []
    extract(
        shared("llama"),
        tiny_tokenizer(chat=True),
        toy_source(),
        Options(method="caa"),
        layout=shared_layout("llama"),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(8, 24), (16, 24), (24, 24)]
