"""The project's own vector file: safetensors, one tensor a hookpoint, JSON metadata.

Tensor names are ``SITE.LAYER`` (``block_out.12``), origins ``origin:SITE.LAYER``. The header's metadata has one
entry, ``lm_eval_steer``, a JSON object: ``schema``, ``name``, ``rows``, ``norms``, ``id`` and ``provenance``.
No pickle is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lm_eval_steer.errors import InputError, VectorFileError
from lm_eval_steer.files import atomic_write, canonical_json
from lm_eval_steer.hookpoint import Hookpoint, parse_hookpoint
from lm_eval_steer.vector import SCHEMA_VERSION, Provenance, SteeringVector

_KEY = "lm_eval_steer"
_ORIGIN = "origin:"


def save_vector(vector: SteeringVector, path: Path | str) -> None:
    """Write ``vector`` to ``path`` atomically; equal vectors give equal bytes.

    Raises:
        WriteError: the file cannot be written.
    """
    tensors = {str(key): value for key, value in vector.tensors.items()}
    tensors |= {f"{_ORIGIN}{key}": value for key, value in vector.origins.items()}
    head = {
        "schema": SCHEMA_VERSION,
        "name": vector.name,
        "id": vector.id,
        "rows": vector.rows,
        "norms": vector.norms(),
        "provenance": vector.provenance.to_dict(),
    }
    data = save(tensors, metadata={_KEY: canonical_json(head)})
    with atomic_write(path, "wb") as handle:
        handle.write(data)


def load_vector(path: Path | str) -> SteeringVector:
    """Read a vector file.

    Returns:
        The vector; its content id is computed from the tensors and compared with the one written.

    Raises:
        VectorFileError: missing, truncated, empty, junk, of a newer schema, or edited by hand.
        ShapeError, VectorValueError: the tensors are no steering vectors.
    """
    tensors, metadata = _read(Path(path))
    head = _head(Path(path), metadata)
    plain: dict[Hookpoint, Tensor] = {}
    origins: dict[Hookpoint, Tensor] = {}
    try:
        for key, value in tensors.items():
            if not value.is_floating_point() and not value.is_complex():
                raise VectorFileError(f"tensor {key!r} holds {value.dtype}, not floating-point numbers.")
            if key.startswith(_ORIGIN):
                origins[parse_hookpoint(key.removeprefix(_ORIGIN))] = value
            else:
                plain[parse_hookpoint(key)] = value
        provenance = Provenance.from_dict(head["provenance"])
        vector = SteeringVector(str(head["name"]), plain, provenance, head.get("rows"), origins)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise VectorFileError(f"{path}: not a vector file: its metadata lacks or garbles a field ({error}).") from None
    if head.get("id") != vector.id:
        raise VectorFileError(
            f"{path}: its tensors (id {vector.id}) are not those its metadata names (id {head.get('id')}); "
            "the file was edited or damaged. Make it again."
        )
    return vector


def is_native(path: Path | str) -> bool:
    """Say whether ``path`` is a safetensors file that carries this project's metadata."""
    try:
        _head(Path(path), _read(Path(path))[1])
    except VectorFileError:
        return False
    return True


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise VectorFileError(f"{path}: no such file.")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as handle:
            keys = list(handle.keys())
            return {key: handle.get_tensor(key) for key in keys}, dict(handle.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise VectorFileError(f"{path}: not a vector file: {error}.") from None


def _head(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if _KEY not in metadata:
        raise VectorFileError(
            f"{path}: a safetensors file, but not a vector file of this project (no {_KEY!r} metadata). "
            "If it holds vectors of another tool, see: lm-eval-steer convert --help"
        )
    try:
        head = json.loads(metadata[_KEY])
    except json.JSONDecodeError as error:
        raise VectorFileError(f"{path}: not a vector file: its metadata is no JSON ({error}).") from None
    if not isinstance(head, dict) or not isinstance(head.get("schema"), int):
        raise VectorFileError(f"{path}: not a vector file: its metadata has no schema version.")
    if head["schema"] > SCHEMA_VERSION:
        raise VectorFileError(
            f"{path}: schema {head['schema']} is newer than this version of lm-eval-steer reads ({SCHEMA_VERSION}). "
            "Upgrade lm-eval-steer."
        )
    return head
