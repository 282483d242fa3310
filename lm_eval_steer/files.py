"""Files that are either the old one or the new one, never half of either; and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lm_eval_steer.errors import InputError, WriteError

_CHUNK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Return the hexadecimal sha256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the hexadecimal sha256 of a file's bytes, read in pieces of 1 MiB.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while piece := handle.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, so that equal values give equal bytes.

    Raises:
        ValueError: a float is NaN or infinite, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def content_id(value: Any, length: int = 16) -> str:
    """Return the first ``length`` hexadecimal digits of the sha256 of a value's canonical JSON."""
    return sha256_bytes(canonical_json(value).encode("ascii"))[:length]


@contextlib.contextmanager
def atomic_write(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Write a file beside its place and move it there when all of it is on disk.

    A reader sees the old file or the whole new one. On any error the temporary file is removed
    and the old file stays.

    Args:
        path: where the file goes; its folder is made when it is missing.
        mode: ``"w"`` for UTF-8 text or ``"wb"`` for bytes.

    Raises:
        WriteError: the folder cannot be written, or the disk is full.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:60]}.", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(number, mode, encoding=None if "b" in mode else "utf-8") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise WriteError(
            f"cannot write {target}: {error.strerror or error}. What was there before is unchanged; "
            "free some space or choose a folder you may write to."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8, atomically (see :func:`atomic_write`)."""
    with atomic_write(path) as handle:
        handle.write(text)


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys and a final newline, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def check_writable(folder: Path | str) -> None:
    """Make ``folder`` and prove that a file can be written there, before any long work begins.

    Raises:
        WriteError: it cannot.
    """
    probe = Path(folder) / f".lm-eval-steer-probe-{os.getpid()}"
    with atomic_write(probe) as handle:
        handle.write("probe")
    probe.unlink(missing_ok=True)


def contained(path: Path | str, root: Path | str) -> Path:
    """Return ``path`` (relative to ``root``) resolved, symbolic links followed.

    Raises:
        InputError: it leaves ``root``.
    """
    base = Path(root).resolve()
    resolved = (base / path).resolve()
    if not resolved.is_relative_to(base):
        raise InputError(f"{str(path)!r} leaves the folder {base}; use a path inside it.")
    return resolved


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
