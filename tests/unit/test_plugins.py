"""Plugins of every family, from a package that is really installed: found, used, and refused where they are broken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lm_eval_steer.attachment import attach
from lm_eval_steer.errors import ConfigError, VectorFileError
from lm_eval_steer.extraction import get_estimator, get_method
from lm_eval_steer.extraction.extract import Options, extract
from lm_eval_steer.extraction.pair_source import PairItem, PairSource
from lm_eval_steer.formats import Told, all_formats, get_format, load_any, load_vector, recognise
from lm_eval_steer.formats.convert import convert_file
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.operations import OPERATIONS, get_operation
from lm_eval_steer.plugins import find_plugin
from tests.steer_tools import placement, plan, run
from tests.tiny_models import shared, shared_layout, tiny_tokenizer, token_rows

MODULE = "somebodys_plugins"
SOURCE = """
import torch
from lm_eval_steer.extraction import Estimator
from lm_eval_steer.formats import Converted, Format
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.operations import Operation
from lm_eval_steer.vector import Provenance, SteeringVector

class Subtract(Operation):
    name = "subtract"
    neutral_at_zero = True
    def edit(self, h, vector, multiplier, origin):
        return h - multiplier * vector

class FirstPair(Estimator):
    name = "first_pair"
    def estimate(self, activations):
        return activations.differences[0]

class Words(Format):
    name, title = "words", "numbers in a text file"
    def recognises(self, path):
        return path.suffix == ".words"
    def read(self, path, told):
        values = torch.tensor([float(word) for word in path.read_text().split()])
        return Converted((SteeringVector(told.name, {Hookpoint(Site.BLOCK_OUT, 2): values}, Provenance("words")),))

class Half(Operation, Estimator, Format):
    name = "half"
"""

GET: dict[str, Callable[[str], object]] = {
    "operations": get_operation,
    "estimators": get_estimator,
    "formats": get_format,
}
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give a function that installs a package with one entry point."""

    def install(family: str, name: str, target: str, package: str = "somebodys") -> None:
        (tmp_path / f"{MODULE}.py").write_text(SOURCE)
        record = tmp_path / f"{package}-1.0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (record / "entry_points.txt").write_text(f"[lm_eval_steer.{family}]\n{name} = {target}\n")
        monkeypatch.syspath_prepend(tmp_path)
        find_plugin.cache_clear()

    yield install
    sys.modules.pop(MODULE, None)
    find_plugin.cache_clear()


def test_an_operation_steers(install: Install) -> None:
    install("operations", "subtract", f"{MODULE}:Subtract")
    point, rows = Hookpoint(Site.BLOCK_OUT, 1), token_rows(2, 8, seed=4).tolist()
    logits = []
    for operation, multiplier in (("subtract", -1.5), ("add", 1.5), ("add", -1.5)):
        steering = plan(placement(point, operation=operation, multiplier=multiplier))
        with attach(shared("llama"), steering, layout=shared_layout("llama")) as handle:
            logits.append(torch.stack(run(handle, shared("llama"), rows)))
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-5)
    assert not torch.allclose(logits[0], logits[2], atol=1e-3)
    assert get_operation("subtract") is get_operation("subtract")


def test_an_estimator_is_a_method(install: Install) -> None:
    install("estimators", "first_pair", f"{MODULE}:FirstPair")
    items = [PairItem(w, w, f"{w}\nAnswer:", f"yes the {w}", f"no {w}") for w in ("fox", "dog")]
    made = [
        extract(
            shared("llama"),
            tiny_tokenizer(),
            PairSource("s", tuple(some)),
            Options(method),
            layout=shared_layout("llama"),
        )
        for method, some in (("first_pair", items), ("mean_text", items[:1]))
    ]
    torch.testing.assert_close(made[0].vector.at(2), made[1].vector.at(2), rtol=0, atol=1e-5)
    assert made[0].vector.provenance.method == "first_pair"
    assert get_method("first_pair").position == "answer"


def test_a_format_is_recognised_and_converted(install: Install, tmp_path: Path) -> None:
    install("formats", "words", f"{MODULE}:Words")
    (tmp_path / "a.words").write_text("1 2.5 -3")
    assert recognise(tmp_path / "a.words").name == "words"
    with pytest.raises(VectorFileError, match="looks like numbers in a text file"):
        load_any(tmp_path / "a.words")
    convert_file(tmp_path / "a.words", tmp_path / "a.safetensors", Told("a"))
    assert load_vector(tmp_path / "a.safetensors").at(2).tolist() == [1, 2.5, -3]
    (tmp_path / "a.unknown").write_text("1")
    with pytest.raises(VectorFileError, match=r"Known: .*numbers in a text file"):
        recognise(tmp_path / "a.unknown")


@pytest.mark.parametrize("family", GET)
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (f"{MODULE}:torch", "does not implement"),
        ("pathlib:Path", "does not implement"),
        (f"{MODULE}:Half", "does not implement"),
        (f"{MODULE}:Nothing", "cannot be loaded"),
        ("no_such_module:Thing", "cannot be loaded"),
    ],
)
def test_a_broken_plugin_is_named(install: Install, family: str, target: str, message: str) -> None:
    install(family, "half", target)
    with pytest.raises(ConfigError, match=f"plugin 'half'.*{family} {message}"):
        GET[family]("half")


@pytest.mark.parametrize(
    ("family", "target"), [("operations", "Subtract"), ("estimators", "FirstPair"), ("formats", "Words")]
)
def test_a_plugin_of_another_name_than_its_entry_point_is_refused(install: Install, family: str, target: str) -> None:
    install(family, "mine", f"{MODULE}:{target}")
    with pytest.raises(ConfigError, match="must agree"):
        GET[family]("mine")


def test_two_packages_with_one_name_are_refused(install: Install) -> None:
    install("operations", "subtract", f"{MODULE}:Subtract")
    install("operations", "subtract", "other:Subtract", package="others")
    with pytest.raises(ConfigError, match=f"other:Subtract and {MODULE}:Subtract are both called 'subtract'"):
        get_operation("subtract")


def test_names_of_ours_stay_ours(install: Install) -> None:
    install("operations", "add", f"{MODULE}:Subtract")
    assert get_operation("add") is OPERATIONS["add"]
    install("formats", "gguf", "lm_eval_steer.formats.gguf:GgufControlVector", package="others")
    with pytest.raises(ConfigError, match="'gguf', and that name is taken"):
        all_formats()
