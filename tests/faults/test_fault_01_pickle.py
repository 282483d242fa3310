"""FAULTS row 1: a ``.pt``, ``.bin`` or ``.pkl`` with code in it is never executed."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_steer.cli import convert
from lm_eval_steer.errors import EXIT_INPUT, UnsafeFileError, VectorFileError
from lm_eval_steer.formats import load_any
from lm_eval_steer.formats.pickle_guard import load_pt


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


class Plain:
    """An object of somebody's class, as ``torch.save(steering_vector)`` leaves it."""


def hostile(kind: str, mark: Path, path: Path) -> Path:
    tensor = torch.ones(4)
    if kind == "zip":
        torch.save({3: tensor, "x": Bomb(mark)}, path)
    elif kind == "legacy":
        torch.save({3: tensor, "x": Bomb(mark)}, path, _use_new_zipfile_serialization=False)
    elif kind == "bare":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    elif kind == "old protocol":
        path.write_bytes(pickle.dumps({"layers.3": Bomb(mark)}, protocol=0))
    elif kind == "second pickle":
        path.write_bytes(pickle.dumps({"a": 1}) + pickle.dumps(Bomb(mark)))
    else:
        torch.save(Plain(), path)
    return path


KINDS = ["zip", "legacy", "bare", "old protocol", "object"]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl"])
@pytest.mark.parametrize("kind", KINDS)
def test_never_executed(tmp_path, kind, suffix):
    mark = tmp_path / "executed"
    path = hostile(kind, mark, tmp_path / f"v{suffix}")
    with pytest.raises(UnsafeFileError, match="unsafe file") as caught:
        load_pt(path)
    assert not mark.exists()
    assert "It was not executed" in str(caught.value)
    assert "safetensors.torch.save_file" in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == EXIT_INPUT


@pytest.mark.parametrize("kind", KINDS)
def test_by_every_way_in(tmp_path, kind):
    mark = tmp_path / "executed"
    path = hostile(kind, mark, tmp_path / "vec_layer_3.pt")
    out = tmp_path / "out.safetensors"
    parser = argparse.ArgumentParser()
    convert.add_parser(parser.add_subparsers())
    for extra in (
        [],
        ["--from", "steered_pt"],
        ["--from", "caa_pt"],
        ["--from", "plain_pt", "--layer-base", "block_out"],
    ):
        args = parser.parse_args(["convert", str(path), "--out", str(out), *extra])
        with pytest.raises(UnsafeFileError):
            args.run(args)
    other = path.rename(tmp_path / "other.pt")
    with pytest.raises(UnsafeFileError):
        load_any(other)
    assert not mark.exists()
    assert not out.exists()


def test_the_code_is_named(tmp_path):
    with pytest.raises(UnsafeFileError, match="mkdir"):
        load_pt(hostile("zip", tmp_path / "x", tmp_path / "v.pt"))
    with pytest.raises(UnsafeFileError, match="Plain"):
        load_pt(hostile("object", tmp_path / "x", tmp_path / "w.pt"))


def test_code_after_a_harmless_pickle(tmp_path):
    mark = tmp_path / "executed"
    with pytest.raises((UnsafeFileError, VectorFileError)):
        load_pt(hostile("second pickle", mark, tmp_path / "v.pkl"))
    assert not mark.exists()


def test_numpy_wants_code_too(tmp_path):
    import numpy as np

    path = tmp_path / "v.pkl"
    path.write_bytes(pickle.dumps(np.ones(4)))
    with pytest.raises(UnsafeFileError, match="numpy"):
        load_pt(path)


def test_torchscript_is_code(tmp_path):
    path = tmp_path / "v.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("v/data.pkl", pickle.dumps({}))
        archive.writestr("v/constants.pkl", pickle.dumps(()))
        archive.writestr("v/code/__torch__.py", "import os")
    with pytest.raises(UnsafeFileError, match="TorchScript"):
        load_pt(path)


@pytest.mark.parametrize("new", [True, False])
def test_harmless_files_are_read(tmp_path, new):
    value = {3: torch.arange(4.0), "x": [1, "a", None, torch.nn.Parameter(torch.ones(2))]}
    torch.save(value, tmp_path / "v.pt", _use_new_zipfile_serialization=new)
    back = load_pt(tmp_path / "v.pt")
    assert isinstance(back, dict)
    assert torch.equal(back[3], value[3])  # type: ignore[arg-type]
