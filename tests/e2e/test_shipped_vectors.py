"""The shipped vectors: the manifest tells the truth, and its command makes them again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lm_eval_steer.cli.main import main
from lm_eval_steer.files import sha256_file
from lm_eval_steer.formats.native import load_vector
from lm_eval_steer.paths import vectors_dir
from lm_eval_steer.store import find_vector, manifest


def test_the_manifest_names_every_file_with_its_hash() -> None:
    entries = manifest()
    assert sorted(entry["file"] for entry in entries.values()) == sorted(
        p.name for p in vectors_dir().glob("*.safetensors")
    )
    for name, entry in entries.items():
        assert sha256_file(vectors_dir() / entry["file"]) == entry["sha256"]
        assert find_vector(name).vector.id == entry["id"]


def test_controls_have_the_vectors_norms() -> None:
    norms = find_vector("smollm2-positivity").vector.norms()
    for control in ("random", "letter"):
        vector = find_vector(f"smollm2-positivity-{control}").vector
        assert vector.provenance.control == control
        assert vector.norms() == pytest.approx(norms, rel=1e-5)


@pytest.mark.slow
@pytest.mark.real
def test_the_manifests_command_makes_them_again(
    real_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = manifest()
    (command,) = {entry["command"] for entry in entries.values()}
    assert main(command.split()[1:]) == 0
    for entry in entries.values():
        made, shipped = load_vector(tmp_path / entry["file"]), load_vector(vectors_dir() / entry["file"])
        for point, value in shipped.tensors.items():
            assert torch.allclose(made.tensors[point], value, rtol=0, atol=1e-6 * float(value.norm())), point
