"""One pass for many estimators: counted forwards, capture files, and vectors that batches and padding do not change."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lm_eval_steer.errors import ConfigError, DataError, ForeignCacheError, VectorFileError
from lm_eval_steer.extraction import ESTIMATORS
from lm_eval_steer.extraction.base import PairActivations, item_numbers
from lm_eval_steer.extraction.extract import Options, extract, extract_each
from lm_eval_steer.extraction.pair_source import PairSource
from lm_eval_steer.extraction.pairs import text_pairs
from lm_eval_steer.extraction.prompts import sequences
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.vector import SteeringVector
from tests.tiny_models import LAYERS, shared, shared_layout, tiny_tokenizer
from tests.unit.test_docs import table
from tests.unit.test_extraction import toy_source

METHODS = ["mean_text", *ESTIMATORS]
ONE_LAYER = Options(layers=[2])


def extractions(
    methods: list[str], options: Options | None = None, *, name: str = "llama", **rest: Any
) -> dict[str, SteeringVector]:
    source = rest.pop("source", toy_source())
    tokenizer = rest.pop("tokenizer", tiny_tokenizer(chat=True))
    layout = shared_layout(name)  # probed once, which is no pass over the pairs
    found = extract_each(shared(name), tokenizer, source, methods, options, layout=layout, **rest)
    return {method: each.vector for method, each in zip(methods, found, strict=True)}


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """Count the sequences that the model is run on."""
    rows: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _m, _a, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        yield rows
    finally:
        hook.remove()


def test_all_estimators_share_one_pass() -> None:
    shared_layout("llama")
    with counted(shared("llama")) as alone:
        extractions(["mean_text"])
    with counted(shared("llama")) as together:
        every = extractions(METHODS, ONE_LAYER)
    assert sum(together) == sum(alone) > 0
    for method in ("mean_text", "logistic", "ccs"):
        (found,) = extractions([method], ONE_LAYER).values()
        assert found.id == every[method].id


def test_a_second_estimator_from_a_capture_file_runs_no_forward(tmp_path: Path) -> None:
    file = tmp_path / "toy.capture"
    with counted(shared("llama")) as rows:
        first = extractions(["mean_text"], capture=file)
    assert sum(rows) > 0
    with counted(shared("llama")) as rows:
        again = extractions(METHODS, Options(layers=[2], controls="random,shuffled,letter"), capture=file)
    assert rows == []
    assert torch.equal(again["mean_text"].at(2), first["mean_text"].at(2))
    plain = extractions(METHODS, ONE_LAYER)
    assert {name: vector.id for name, vector in again.items()} == {name: vector.id for name, vector in plain.items()}


def test_files_from_a_capture_are_those_of_a_run(tmp_path: Path) -> None:
    for method, options in (("pca", Options(method="pca")), ("caa", Options(method="caa", layers=[1, 2]))):
        for number in range(2):  # the first writes the capture, the second reads it
            found = extract(
                shared("llama"), tiny_tokenizer(chat=True), toy_source(), options, layout=shared_layout("llama"),
                capture=tmp_path / method,
            )  # fmt: skip
            save_vector(found.vector, tmp_path / f"{method}{number}.safetensors")
        one, two = (tmp_path / f"{method}{number}.safetensors" for number in range(2))
        assert one.read_bytes() == two.read_bytes()


def test_a_capture_of_all_layers_serves_some(tmp_path: Path) -> None:
    every = extractions(["pca"], capture=tmp_path / "c")["pca"]
    some = extractions(["pca"], Options(layers=[1, 3]), capture=tmp_path / "c")["pca"]
    assert some.layers == (1, 3)
    assert torch.equal(some.at(3), every.at(3))
    extractions(["pca"], Options(layers=[0]), capture=tmp_path / "one")
    with pytest.raises(ForeignCacheError, match=r"lacks block_out\.1"):
        extractions(["pca"], capture=tmp_path / "one")


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({"name": "gpt2"}, "model"),
        ({"options": Options(site=Site.BLOCK_IN)}, "site"),
        ({"options": Options(read="last")}, "position, pairs"),
        ({"options": Options(form="chat")}, "format, pairs, letters"),
        ({"source": toy_source().limited(4)}, "pairs, letters"),
    ],
)
def test_a_capture_of_something_else_is_refused(tmp_path: Path, changed: dict[str, Any], differs: str) -> None:
    extractions(["pca"], capture=tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(ForeignCacheError, match=f"{differs} differ"):
        extractions(["pca"], **changed, capture=tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == before


def test_a_damaged_capture_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c"
    extractions(["pca"], capture=file)
    data = file.read_bytes()
    flipped = bytearray(data)
    flipped[-100] ^= 1
    for bad in (b"", b"junk", data[: len(data) // 2], bytes(flipped)):
        file.write_bytes(bad)
        with pytest.raises(VectorFileError, match="Remove it"):
            extractions(["pca"], capture=file)
    save_vector(extractions(["pca"])["pca"], file)
    with pytest.raises(VectorFileError, match="no capture file"):
        extractions(["pca"], capture=file)


def test_one_capture_file_holds_one_reading(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="caa reads letter at letter"):
        extractions(["caa", "pca"], capture=tmp_path / "c")
    both = extractions(["caa", "pca", "mean_difference"], Options(read="letter"), capture=tmp_path / "c")
    assert both["caa"].id == both["mean_difference"].id


def test_what_is_read_can_be_chosen_for_estimators_not_for_presets() -> None:
    last = extractions(["mean_difference"], Options(read="last"))["mean_difference"]
    assert last.provenance.notes["position"] == "last"
    assert last.id != extractions(["mean_difference"])["mean_difference"].id
    for method, options, message in (
        ("mean_text", Options(read="last"), "reads answer, not last"),
        ("pca", Options(read="first"), "unknown position"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match=message):
            extractions([method], options)
    for methods in ([], ["pca", "pca"]):
        with pytest.raises(ConfigError, match="name at least one, and each once"):
            extractions(methods)


def test_the_record_says_what_norm_and_sign_mean() -> None:
    for name, vector in extractions(list(ESTIMATORS), ONE_LAYER).items():
        notes = vector.provenance.notes
        assert (vector.provenance.method, vector.name) == (name, f"toy-{name}")
        assert (notes["norm"], notes["sign"]) == (ESTIMATORS[name].norm, ESTIMATORS[name].sign)
    five, six = (extractions(["lat"], Options(layers=[2], seed=seed))["lat"] for seed in (5, 6))
    assert five.id != six.id


def test_too_few_items_are_an_error_that_says_so() -> None:
    one = toy_source().limited(1)
    assert extractions(["pca"], source=one)["pca"].layers == tuple(range(LAYERS))
    for name in ("lat", "ccs", "linear_discriminant"):
        with pytest.raises(DataError, match="at least 2 items and got 1"):
            extractions([name], source=one)


# Batches and padding


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_batch_size_and_padding_side_do_not_change_a_vector(name: str) -> None:
    single = extractions(METHODS, Options(layers=[2], batch_size=1), name=name)
    left = tiny_tokenizer(chat=True)
    side, left.padding_side = left.padding_side, "left"
    try:
        others = [
            extractions(METHODS, Options(layers=[2], batch_size=8), name=name),
            extractions(METHODS, Options(layers=[2], batch_size=3), name=name, tokenizer=left),
        ]
    finally:
        left.padding_side = side
    for method in METHODS:
        for point, v in single[method].tensors.items():
            for other in others:
                assert float((other[method].tensors[point] - v).norm() / v.norm()) < 1e-6, (method, point)


def left_padded_activations(source: PairSource) -> PairActivations:
    """The activations of a left-padded batch with mask and position ids, read from hidden_states: another way there."""
    pairs = text_pairs(source).pairs
    rows = [each for pair in pairs for each in sequences(pair, "plain", tiny_tokenizer(chat=True), "answer")]
    width = max(len(row.ids) for row in rows)
    pad = [width - len(row.ids) for row in rows]
    ids = torch.tensor([[0] * n + list(row.ids) for n, row in zip(pad, rows, strict=True)])
    mask = torch.arange(width)[None] >= torch.tensor(pad)[:, None]
    positions = (mask.long().cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad():
        states = shared("llama")(
            ids, attention_mask=mask.long(), position_ids=positions, output_hidden_states=True
        ).hidden_states
    points = tuple(Hookpoint(Site.BLOCK_OUT, layer) for layer in range(LAYERS - 1))  # the last is behind the norm
    means: list[Tensor] = []
    for number, (n, row) in enumerate(zip(pad, rows, strict=True)):
        read = torch.stack([states[point.layer + 1][number, n + row.start : n + row.stop] for point in points])
        means.append(read.double().mean(dim=1).float())
    every = torch.stack(means)
    return PairActivations(points, every[0::2], every[1::2], item_numbers([pair.item for pair in pairs]))


@pytest.mark.parametrize("method", list(ESTIMATORS))
def test_vectors_are_those_of_a_left_padded_forward(method: str) -> None:
    activations = left_padded_activations(toy_source())
    wanted = ESTIMATORS[method].estimate(activations)
    found = extractions([method], Options(layers=[0, 2]))[method]
    for point, v in found.tensors.items():
        number = activations.points.index(point)
        assert float((wanted[number] - v).norm() / v.norm()) < 1e-6


def test_the_page_lists_every_estimator_with_its_norm_and_sign() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "extraction.md"
    rows = {row[0].strip("`"): row for row in table(page, "## Estimators")}
    assert set(rows) == set(ESTIMATORS)
    signs = {"own": "–", "labels": "labels", "mean_difference": "of d̄"}
    for name, row in rows.items():
        assert row[2] == signs[ESTIMATORS[name].sign], name
        assert row[3] == "‖d̄‖"


def test_an_estimators_own_defaults_are_those_of_mean_text() -> None:
    assert {(each.kind, each.position) for each in ESTIMATORS.values()} == {("text", "answer")}
    assert dataclasses.replace(Options(), method="pca").read is None
