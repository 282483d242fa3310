"""Vectors by name or path: the shipped ones by their manifest, any other by its file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_steer.errors import InputError, VectorFileError
from lm_eval_steer.files import contained, sha256_file
from lm_eval_steer.formats import load_any
from lm_eval_steer.paths import vectors_dir
from lm_eval_steer.suggest import nearest
from lm_eval_steer.vector import SteeringVector

MANIFEST = "MANIFEST.json"


@dataclass(frozen=True)
class StoredVector:
    """A vector with the file it came from.

    Attributes:
        vector: what the file holds.
        path: the file.
        sha256: of the file's bytes.
        label: the name or path as the user gave it.
    """

    vector: SteeringVector
    path: Path
    sha256: str
    label: str


def find_vector(label: str, base: Path | None = None) -> StoredVector:
    """Return the vector called ``label``: a shipped name, or a path.

    Args:
        label: a name of the manifest, or a path; a relative path is taken from ``base``.
        base: folder of the spec that names it, which a relative path may not leave; None for the working folder.

    Raises:
        VectorFileError: no such name or file, or a shipped file that differs from its manifest.
        InputError: a relative path leaves ``base``.
    """
    shipped = manifest()
    if label in shipped:
        path = vectors_dir() / str(shipped[label]["file"])
        stored = _stored(label, path)
        if stored.sha256 != shipped[label]["sha256"]:
            raise VectorFileError(
                f"shipped vector {label!r} ({path}) has sha256 {stored.sha256}, its manifest says "
                f"{shipped[label]['sha256']}; install lm-eval-steer again."
            )
        return stored
    path = Path(label).expanduser()
    if base is not None and not path.is_absolute():
        path = contained(path, base)
    if not path.exists():
        guess = nearest(label, shipped)
        hint = f" Did you mean {guess!r}?" if guess else ""
        names = ", ".join(sorted(shipped)) or "none"
        raise VectorFileError(
            f"no vector {label!r}: no such file, and no shipped vector of that name.{hint} Shipped: {names}."
        )
    return _stored(label, path)


def manifest() -> dict[str, dict[str, Any]]:
    """Return the shipped vectors: name → {file, sha256, id, model, command, …}; empty where none ship.

    Raises:
        InputError: the manifest is no such object.
    """
    try:
        path = vectors_dir() / MANIFEST
    except InputError:
        return {}
    if not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    vectors = data.get("vectors") if isinstance(data, dict) else None
    if not isinstance(vectors, dict):
        raise InputError(f"{path}: no object 'vectors'; install lm-eval-steer again.")
    return vectors


def _stored(label: str, path: Path) -> StoredVector:
    if path.is_dir():
        raise VectorFileError(
            f"{path} is a folder, not a vector file. A folder of CAA vectors: lm-eval-steer convert {path}"
        )
    return StoredVector(load_any(path), path, sha256_file(path), label)
