"""``lm-eval-steer extract --method sae``: rows that add up, where they belong, and what is refused."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lm_eval_steer.attachment import attach
from lm_eval_steer.cli import extract as command
from lm_eval_steer.errors import ConfigError, LayerError, ShapeError, SteerError, VectorFileError
from lm_eval_steer.formats.native import load_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.scope import TokenScope
from tests.steer_tools import run
from tests.tiny_models import LAYERS, WIDTH, shared, shared_layout, tiny_tokenizer

ROWS = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
BIAS = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    shared("llama").save_pretrained(path)
    tiny_tokenizer(chat=True).save_pretrained(path)
    return path


def sparsify(folder: Path, rows: torch.Tensor = ROWS) -> Path:
    folder.mkdir(parents=True)
    save_file({"W_dec": rows, "b_dec": BIAS[: rows.shape[1]].clone()}, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": rows.shape[1], "k": 2}))
    return folder


def sae_lens(folder: Path, hook: str | None, normalize: str = "none") -> Path:
    folder.mkdir(parents=True)
    save_file({"W_dec": ROWS, "b_dec": BIAS}, folder / "sae_weights.safetensors")
    facts = {"hook_name": hook, "model_name": "tiny"}
    config = {"d_in": WIDTH, "normalize_activations": normalize, "metadata": facts}
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def extract(model: Path, sae: Path, out: Path, *words: str) -> None:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    given = ["extract", "--pretrained", str(model), "--method", "sae", "--sae", str(sae), "--out", str(out)]
    args = parser.parse_args([*given, *(words or ("--features", "1,3"))])
    assert args.run(args) == 0


def test_rows_add_up_and_the_folder_says_where(model: Path, tmp_path: Path) -> None:
    extract(model, sparsify(tmp_path / "layers.1"), tmp_path / "v.safetensors")
    vector, point = load_vector(tmp_path / "v.safetensors"), Hookpoint(Site.BLOCK_OUT, 1)
    assert list(vector.tensors) == [point]
    torch.testing.assert_close(vector.at(1), ROWS[1] + ROWS[3])
    torch.testing.assert_close(vector.origins[point], BIAS)
    assert vector.provenance.fingerprint is not None
    assert (vector.provenance.method, vector.provenance.notes["features"]) == ("sae", [1, 3])


def test_two_features_steer_as_each_of_them_in_one_plan(model: Path, tmp_path: Path) -> None:
    sae, point = sparsify(tmp_path / "layers.1"), Hookpoint(Site.BLOCK_OUT, 1)
    names = {"1,3": "both", "1": "one", "3": "three"}
    for features, name in names.items():
        extract(model, sae, tmp_path / f"{name}.safetensors", "--features", features)
    both, one, three = (
        Placement(load_vector(tmp_path / f"{name}.safetensors"), point, point, scope=TokenScope("all"))
        for name in names.values()
    )
    logits = []
    for placements in ((both,), (one, three)):
        with attach(shared("llama"), SteeringPlan(placements), layout=shared_layout("llama")) as handle:
            logits.append(run(handle, shared("llama"), [tiny_tokenizer().encode("the quick fox")])[0])
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)


def test_the_configuration_goes_before_the_folder_and_rescaled_inputs_have_no_origin(
    model: Path, tmp_path: Path
) -> None:
    sae = sae_lens(tmp_path / "layers.3", "blocks.2.hook_resid_pre", normalize="layer_norm")
    extract(model, sae, tmp_path / "v.safetensors", "--features", "0", "--controls", "random:2")
    vector = load_vector(tmp_path / "v.safetensors")
    assert list(vector.tensors) == [Hookpoint(Site.BLOCK_IN, 2)]
    assert not vector.origins
    for number in range(2):
        null = load_vector(tmp_path / f"v.random-{number}.safetensors")
        assert null.provenance.control == "random"
        assert null.norms() == pytest.approx(vector.norms(), rel=1e-5)


def test_the_user_says_where_an_sae_that_does_not_was_trained(model: Path, tmp_path: Path) -> None:
    sae = sae_lens(tmp_path / "mine", None)
    extract(model, sae, tmp_path / "v.safetensors", "--features", "0", "--layers", "2", "--site", "mlp_out")
    assert list(load_vector(tmp_path / "v.safetensors").tensors) == [Hookpoint(Site.MLP_OUT, 2)]


@pytest.mark.parametrize(
    ("folder", "words", "error", "said"),
    [
        ("layers.1", ["--features", "1,1"], ConfigError, "each once"),
        ("layers.1", ["--features", "-1"], SteerError, "whole numbers"),
        ("layers.1", ["--features", "1,x"], ConfigError, "whole numbers"),
        ("layers.1", ["--features", "7"], VectorFileError, "no feature 7"),
        ("layers.1", ["--features", "1", "--layers", "2"], ConfigError, "was trained at block_out.1, not at"),
        ("layers.1", ["--features", "1", "--layers", "1-2"], LayerError, "trained at one layer"),
        ("layers.1", ["--features", "1", "--site", "mlp_out"], ConfigError, "pass --layers N too"),
        ("layers.1", ["--features", "1", "--heads", "2"], ConfigError, "--heads has no place"),
        ("layers.1", ["--features", "1", "--format", "chat"], ConfigError, "--format has no place"),
        ("layers.1", ["--features", "1", "--controls", "letter"], ConfigError, "random:K only"),
        ("layers.1", ["--layers", "1"], ConfigError, "wants --sae DIR and --features"),
        ("somewhere", ["--features", "1"], ConfigError, "pass --layers N"),
        (f"layers.{LAYERS}", ["--features", "1"], LayerError, "out of range"),
    ],
)
def test_refused(
    folder: str, words: list[str], error: type[SteerError], said: str, model: Path, tmp_path: Path
) -> None:
    words = [f"--features={words[1]}", *words[2:]] if words[0] == "--features" else words
    with pytest.raises(error, match=said):
        extract(model, sparsify(tmp_path / folder), tmp_path / "v.safetensors", *words)
    assert not (tmp_path / "v.safetensors").exists()


def test_another_width_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=f"{WIDTH - 1} wide, the model {WIDTH}"):
        extract(model, sparsify(tmp_path / "layers.1", ROWS[:, 1:].contiguous()), tmp_path / "v.safetensors")


def test_its_options_belong_to_it(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    given = ["extract", "--pretrained", "x", "--pairs", "positivity", "--features", "1", "--out", "v.safetensors"]
    args = parser.parse_args(given)
    with pytest.raises(ConfigError, match="--features belongs to --method sae"):
        args.run(args)
