"""Row 16: a spec file runs nothing, reads no other file, and names nothing outside its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lm_eval_steer.errors import ConfigError, InputError
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.sweep.spec import SweepSpec
from tests.conftest import random_vector

TAIL = "\ntasks: [t]\n"


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "sweep.yaml"
    file.write_text(text + TAIL)
    return file


@pytest.mark.parametrize(
    "text",
    [
        "vectors: [!!python/object/apply:os.system ['touch pwned']]",
        "vectors: !!python/name:os.system ''",
        "vectors: [v]\nlimit: !!python/object/new:int [3]",
        "vectors: [!include other.yaml]",
    ],
)
def test_tags_are_refused_and_not_run(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        SweepSpec.from_file(write(tmp_path, text))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("text", ["include: other.yaml\nvectors: [v]", "vectors: [v]\nbase: /etc"])
def test_there_is_no_include_and_no_other_folder(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        SweepSpec.from_file(write(tmp_path, text))


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'limit' is given twice"):
        SweepSpec.from_file(write(tmp_path, "vectors: [v]\nlimit: 1\nlimit: 2"))


def test_a_relative_path_or_a_link_does_not_leave_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    save_vector(random_vector(8, 2), outside)
    folder = tmp_path / "specs"
    for name in ("../outside.safetensors", "link.safetensors"):
        file = write(folder, f"vectors: [{name}]")
        if not (folder / "link.safetensors").is_symlink():
            (folder / "link.safetensors").symlink_to(outside)
        with pytest.raises(InputError, match="leaves the folder"):
            SweepSpec.from_file(file).requests()
        with pytest.raises(InputError, match="leaves the folder"):
            SweepSpec.from_file(write(folder, f"placements: [{{vector: {name}, layer: 1}}]")).requests()


def test_a_path_inside_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "specs", "vectors: [sub/v.safetensors]")
    (tmp_path / "specs" / "sub").mkdir()
    save_vector(random_vector(8, 2), tmp_path / "specs" / "sub" / "v.safetensors")
    monkeypatch.chdir("/")
    assert len(SweepSpec.from_file(file).cells(2)) == 3
