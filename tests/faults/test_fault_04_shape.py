"""FAULTS row 4: wrong width, width 1, undeclared 2-D, complex: named, and nothing ever broadcasts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from lm_eval_steer.attachment import attach
from lm_eval_steer.errors import EXIT_INPUT, ShapeError, VectorFileError
from lm_eval_steer.formats import Told, get_format, load_vector, save_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.vector import Provenance, SteeringVector

WIDTH = 24
BAD: dict[str, tuple[Tensor, str]] = {
    "width 1": (torch.ones(1), "width 1"),
    "scalar": (torch.tensor(1.0), r"shape \(\)"),
    "two rows": (torch.ones(2, 6), r"shape \(2, 6\)"),
    "one row": (torch.ones(1, 6), r"shape \(1, 6\)"),
    "column": (torch.ones(6, 1), r"shape \(6, 1\)"),
    "three axes": (torch.ones(1, 1, 6), r"shape \(1, 1, 6\)"),
    "complex": (torch.ones(6, dtype=torch.complex64), "complex"),
    "expanded": (torch.ones(1).expand(6), "claims more numbers"),
    "nothing": (torch.ones(0), "width 0"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", ["caa_pt", "plain_pt", "steered_pt"])
def test_foreign_files(tmp_path, kind, bad):
    tensor, message = BAD[bad]
    path = tmp_path / ("vec_layer_3.pt" if kind == "caa_pt" else "v.pt")
    entry = {"steering_vector": tensor, "action": "add"}
    torch.save({"caa_pt": tensor, "plain_pt": {3: tensor}, "steered_pt": {"layers.3": entry}}[kind], path)
    told = Told("v", "block_out" if kind == "plain_pt" else None)
    if kind == "steered_pt" and bad == "one row":  # its importer squeezes [1, d], because upstream's example has it
        assert get_format(kind).read(path, told).vectors[0].d_model == 6
        return
    with pytest.raises(ShapeError, match=message) as caught:
        get_format(kind).read(path, told)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == EXIT_INPUT


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_whole_numbers_are_no_direction(tmp_path, dtype):
    torch.save({3: torch.ones(6, dtype=dtype)}, tmp_path / "v.pt")
    with pytest.raises(VectorFileError, match="not floating-point"):
        get_format("plain_pt").read(tmp_path / "v.pt", Told("v", "block_out"))


@pytest.mark.parametrize("bad", [name for name in BAD if name != "expanded"])
def test_in_memory(bad):
    tensor, message = BAD[bad]
    with pytest.raises(ShapeError, match=message):
        SteeringVector("v", {Hookpoint(Site.BLOCK_OUT, 3): tensor}, Provenance("x"))


def test_undeclared_rows_in_our_own_file(tmp_path):
    path = tmp_path / "v.safetensors"
    rows = SteeringVector("v", {Hookpoint(Site.BLOCK_OUT, 3): torch.ones(2, 6)}, Provenance("x"), rows="positions")
    save_vector(rows, path)
    assert load_vector(path).rows == "positions"
    declared = b'\\"rows\\":\\"positions\\"'
    undeclared = b'\\"rows\\":null'.ljust(len(declared))
    assert declared in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(declared, undeclared))
    with pytest.raises(ShapeError, match=r"shape \(2, 6\)") as caught:
        load_vector(path)
    assert str(path) in str(caught.value)


def tiny_llama() -> LlamaForCausalLM:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 14, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(vocab_size=40, num_key_value_heads=2, **sizes)).eval()


@pytest.mark.parametrize("width", [768, 2, WIDTH - 1, WIDTH + 1, 2 * WIDTH])
@pytest.mark.parametrize("site", list(Site))
def test_wrong_width_at_attach(tmp_path: Path, width: int, site: Site):
    point = Hookpoint(site, 12)
    vector = SteeringVector("v", {point: torch.ones(width)}, Provenance("x"))
    save_vector(vector, tmp_path / "v.safetensors")
    model = tiny_llama()
    ids = torch.arange(6)[None]
    before = model(ids).logits
    plan = SteeringPlan((Placement(load_vector(tmp_path / "v.safetensors"), point, point, scope=TokenScope("all")),))
    with pytest.raises(ShapeError) as caught:
        attach(model, plan)
    message = str(caught.value)
    assert f"({WIDTH},)" in message
    assert f"({width},)" in message
    assert f"{site}.12" in message
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(ids).logits, before)
