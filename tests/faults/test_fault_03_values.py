"""FAULTS row 3: NaN, infinity, all zeros: an error naming layer and count, whatever file they come in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lm_eval_steer.errors import EXIT_INPUT, VectorValueError
from lm_eval_steer.formats import Told, get_format, load_vector, save_vector
from lm_eval_steer.formats.gguf_file import write_gguf
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.vector import Provenance, SteeringVector

GOOD = torch.arange(1.0, 7.0)
POINT = Hookpoint(Site.BLOCK_OUT, 3)


def spoiled(value: float, count: int = 2) -> Tensor:
    tensor = GOOD.clone()
    tensor[:count] = value
    return tensor


BAD = {
    "nan": (spoiled(float("nan")), "2 of 6 entries are NaN or infinite"),
    "inf": (spoiled(float("inf"), 1), "1 of 6 entries are NaN or infinite"),
    "-inf": (spoiled(-float("inf"), 3), "3 of 6 entries are NaN or infinite"),
    "zeros": (torch.zeros(6), "all zeros"),
    "too large for float32": (GOOD.double() * 1e300, "6 of 6 entries are NaN or infinite"),
}


def write(kind: str, tensor: Tensor, folder: Path) -> tuple[str, Path, Told]:
    told = Told("v", "block_out")
    if kind == "caa_pt":
        path = folder / "vec_layer_3.pt"
        torch.save(tensor, path)
        return kind, path, Told("v")
    if kind == "steered_pt":
        path = folder / "s.pt"
        torch.save({"layers.3": {"steering_vector": tensor, "action": "add"}}, path)
        return kind, path, Told("v")
    if kind == "gguf":
        path = folder / "v.gguf"
        write_gguf(path, {"general.architecture": "controlvector"}, {"direction.3": tensor})
        return kind, path, Told("v")
    if kind == "plain_safetensors":
        path = folder / "o.safetensors"
        save_file({"3": tensor}, path)
        return kind, path, told
    path = folder / "p.pt"
    torch.save({3: tensor}, path)
    return "plain_pt", path, told


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", ["caa_pt", "steered_pt", "gguf", "plain_pt", "plain_safetensors"])
def test_foreign_files(tmp_path, kind, bad):
    tensor, message = BAD[bad]
    name, path, told = write(kind, tensor, tmp_path)
    with pytest.raises(VectorValueError, match=message) as caught:
        get_format(name).read(path, told)
    assert str(path) in str(caught.value)
    assert "block_out.3" in str(caught.value)
    assert caught.value.exit_code == EXIT_INPUT


@pytest.mark.parametrize("bad", BAD)
def test_in_memory(bad):
    tensor, message = BAD[bad]
    with pytest.raises(VectorValueError, match=message):
        SteeringVector("v", {POINT: tensor}, Provenance("x"))


@pytest.mark.parametrize("bad", ["nan", "inf", "zeros"])
def test_our_own_file(tmp_path, bad):
    """A native file whose numbers were changed on disk."""
    path = tmp_path / "v.safetensors"
    save_vector(SteeringVector("v", {POINT: GOOD}, Provenance("x")), path)
    data = path.read_bytes()
    path.write_bytes(data[: -GOOD.nbytes] + BAD[bad][0].numpy().tobytes())
    with pytest.raises(VectorValueError, match=BAD[bad][1]) as caught:
        load_vector(path)
    assert str(path) in str(caught.value)


def test_zero_is_allowed_where_it_is_declared(tmp_path):
    vector = SteeringVector("v", {POINT: torch.zeros(6)}, Provenance("zero", control="zero"))
    save_vector(vector, tmp_path / "z.safetensors")
    assert load_vector(tmp_path / "z.safetensors").id == vector.id
