"""Control files: the nulls that ``extract --controls`` wrote beside a vector."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import torch

from lm_eval_steer.embedded_registry import MODELS
from lm_eval_steer.errors import ConfigError
from lm_eval_steer.extraction.controls import Control, rescaled
from lm_eval_steer.names import printable
from lm_eval_steer.store import StoredVector, find_vector, manifest
from lm_eval_steer.sweep.random_nulls import check_plain
from lm_eval_steer.vector import Provenance, SteeringVector


def control_file(stored: StoredVector, control: Control, controls: str) -> StoredVector:
    """Return the control that ``extract --controls`` wrote beside a vector: ``v.letter.safetensors`` beside ``v``.

    Args:
        stored: the vector with its file.
        control: which.
        controls: all that the sweep wants of such a file, for the command in the message.

    Raises:
        ConfigError: there is none, or it is not of this vector; the message has the command that writes it.
        VectorFileError: it cannot be read.
    """
    shipped = manifest()
    # One draw alone has no number in its file's name; where there are several, it is the first of them.
    for spelling in dict.fromkeys((str(control), f"{control.kind}-{control.number}")):
        path = stored.path.with_name(f"{stored.path.stem}.{spelling}.safetensors")
        name = f"{stored.label}-{spelling}"
        if stored.label in shipped and name in shipped:
            return _checked(find_vector(name), stored, control, controls)
        if path.is_file():
            label = str(Path(stored.label).with_name(path.name))
            return _checked(dataclasses.replace(find_vector(str(path)), label=label), stored, control, controls)
    wanted = stored.path.with_name(f"{stored.path.stem}.{control}.safetensors")
    raise ConfigError(f"--nulls {control.kind}: there is no {wanted}. {_how(stored, controls)}")


def file_null(vector: SteeringVector, found: StoredVector, control: Control) -> SteeringVector:
    """Return the direction of a control file with the norm of ``vector`` at each of its hookpoints.

    Raises:
        ConfigError: the vector has several rows a hookpoint, or the file lacks one of its hookpoints.
        VectorValueError: the control is zero at a hookpoint.
    """
    check_plain(vector)
    points, tensors = tuple(vector.tensors), found.vector.tensors
    missing = [str(point) for point in points if point not in tensors]
    if missing:
        raise ConfigError(f"--nulls {control.kind}: {found.path} has no {', '.join(missing)}, which the vector has.")
    own = torch.stack([vector.tensors[point] for point in points])
    rows = rescaled(torch.stack([tensors[point] for point in points]), own)
    return SteeringVector(f"{vector.name}-{control}", dict(zip(points, rows, strict=True)), found.vector.provenance)


def _checked(found: StoredVector, stored: StoredVector, control: Control, controls: str) -> StoredVector:
    """Return ``found`` if it says that it is this control, of the same pairs and the same model."""
    null, vector = found.vector.provenance, stored.vector.provenance
    wrong = []
    if null.control != control.kind:
        wrong.append(f"it says that it is {null.control or 'no control'}")
    if found.vector.d_model != stored.vector.d_model or found.vector.rows is not None:
        wrong.append(f"its tensors are {found.vector.d_model} wide, the vector's {stored.vector.d_model}")
    if null.data_sha256 != vector.data_sha256 and None not in (null.data_sha256, vector.data_sha256):
        wrong.append("it was extracted from other pairs")
    parts = [] if None in (null.fingerprint, vector.fingerprint) else _differences(null, vector)
    if parts:
        wrong.append(f"it was extracted from another model (differs in: {', '.join(parts)})")
    if wrong:
        what = f"{found.path} is no {control.kind} control of {stored.label!r}: {'; '.join(wrong)}"
        raise ConfigError(f"--nulls {control.kind}: {what}. {_how(stored, controls)}")
    return found


def _differences(one: Provenance, other: Provenance) -> list[str]:
    assert one.fingerprint is not None
    assert other.fingerprint is not None
    return one.fingerprint.differs_from(other.fingerprint)


def _how(stored: StoredVector, controls: str) -> str:
    """Return how to make control files: the command, as far as the vector's file says what made it."""
    made, notes = stored.vector.provenance, stored.vector.provenance.notes
    if made.control is not None or not isinstance(notes.get("data"), str):
        return (
            "The vector's file does not say what it was made from. Extract it again: lm-eval-steer extract --controls "
            f"{controls} with its other options."
        )
    shipped = stored.label in manifest()
    model = "embedded" if made.model_id == MODELS["smollm2"].title else made.model_id or "MODEL"
    command = ["lm-eval-steer", "extract", "--pretrained", model, "--pairs", notes["data"], "--method", made.method]
    command += ["--layers", ",".join(map(str, stored.vector.layers)), "--format", str(notes.get("format", "plain"))]
    command += ["--no-balance"] if notes.get("letters_balanced") is False else []
    command += ["--seed", str(made.seed or 0), "--controls", controls, "--force"]
    command += ["--out", stored.path.name if shipped else str(stored.path)]
    after = f", and name {stored.path.name} with --vector" if shipped else ""
    return f"Make it with: {printable(shlex.join(command))}{after}."
