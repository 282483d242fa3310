"""Reading ``torch.save`` files and pickles without ever running what is in them.

``torch.load(weights_only=True)`` builds tensors and plain containers only (safe since torch 2.6, which this package
requires). When it refuses, the pickle is listed opcode by opcode, not run, to say which code it asked for.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from pathlib import Path

import torch

from lm_eval_steer.errors import InputError, UnsafeFileError, VectorFileError

SUFFIXES = frozenset({".pt", ".pth", ".bin", ".pkl", ".pickle"})

# What torch's own tensors name; anything else in a refused file is somebody's code.
_TENSOR_NAMES = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\.(\w*Storage|device|Size|storage\.\w+)"
    r"|torch\.(b?float\d*|half|double|u?int\d+|bool)|torch\._tensor\._rebuild_\w+|torch\.serialization\._get_layout"
)
_LOAD_ERRORS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
_SCAN_LIMIT = 1 << 26
_ZIP_END = 22


def load_pt(path: Path) -> object:
    """Return the tensors and containers in a ``torch.save`` file; nothing in it is executed.

    Raises:
        UnsafeFileError: it asks for code; the message names it and says how to convert the file.
        VectorFileError: missing, empty, truncated, junk, or with bytes after its end.
    """
    if not path.is_file():
        raise VectorFileError(f"{path}: no such file.")
    if path.stat().st_size == 0:
        raise VectorFileError(f"{path}: not a vector file: it is empty.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch asks to report odd pickle protocols; what is refused is said below
            return _load_zip(path) if zipfile.is_zipfile(path) else _load_legacy(path)
    except InputError:
        raise
    except _LOAD_ERRORS as error:
        asked = [name for name in _names(path) if not _TENSOR_NAMES.fullmatch(name)]
        if asked:
            raise UnsafeFileError(_unsafe(path, asked)) from None
        raise VectorFileError(f"{path}: not a vector file: {_first_line(error)}") from None


def _load_zip(path: Path) -> object:
    with open(path, "rb") as handle:
        handle.seek(-_ZIP_END, io.SEEK_END)
        end = handle.read(_ZIP_END)
    if not end.startswith(b"PK\x05\x06"):
        raise VectorFileError(f"{path}: not a vector file: it has bytes after the end of its archive.")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    # torch stores without compression; a compressed member could unpack to any size
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise VectorFileError(f"{path}: not a vector file: its archive is compressed, which torch.save never does.")
    if any(member.filename.rpartition("/")[2] == "constants.pkl" for member in members):
        raise UnsafeFileError(_unsafe(path, ["TorchScript code"]))
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_legacy(path: Path) -> object:
    stream = io.BytesIO(path.read_bytes())
    value: object = torch.load(stream, map_location="cpu", weights_only=True)
    if stream.read(1):
        raise VectorFileError(f"{path}: not a vector file: it has bytes after its end.")
    return value


def _names(path: Path) -> list[str]:
    """Return the ``module.name`` of everything that the pickles in ``path`` would import."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                stream = b"".join(
                    archive.open(member).read(_SCAN_LIMIT)
                    for member in archive.infolist()
                    if member.filename.endswith(".pkl") and member.compress_type == zipfile.ZIP_STORED
                )
        else:
            with open(path, "rb") as handle:
                stream = handle.read(_SCAN_LIMIT)
    except _LOAD_ERRORS:
        return []
    return _imports(io.BytesIO(stream))


def _imports(stream: io.BytesIO) -> list[str]:
    names: list[str] = []
    strings = ["?", "?"]
    try:
        while stream.tell() < len(stream.getbuffer()):  # a legacy file is several pickles in a row
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    names.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.append(".".join(strings[-2:]))
                elif opcode.name.startswith("EXT"):
                    names.append(f"extension code {argument}")
                elif isinstance(argument, str):
                    strings.append(argument)
    except (ValueError, LookupError, struct.error, OverflowError, MemoryError):
        pass  # junk from here on; what was named before it counts
    return list(dict.fromkeys(names))


def _unsafe(path: Path, asked: list[str]) -> str:
    shown = ", ".join(repr(name[:80]) for name in asked[:3]) + (" …" if len(asked) > 3 else "")
    return (
        f"{path}: unsafe file: it asks to import {shown}, and loading it would run that code. It was not executed. "
        "If you trust where it comes from, load it yourself in its own environment and save plain tensors: "
        'torch.save({layer: tensor}, "plain.pt"), or safetensors.torch.save_file({"12": tensor}, "plain.safetensors"); '
        "then convert that file."
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else 'unreadable'}"
