"""The GGUF container, as much of it as control vectors need: read with every count checked, and written.

The ``gguf`` package is not used to read: it loops as often as a header says, so a file of 60 bytes can keep it busy
for hours. Layout (little-endian): magic, version, number of tensors, number of keys; the keys; the tensors' names,
shapes, types and offsets; padding; the data.

Source: ggml's docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lm_eval_steer.errors import VectorFileError
from lm_eval_steer.files import atomic_write

_MAGIC = b"GGUF"
_VERSION = 3
_ALIGNMENT = 32
_U32, _STRING, _ARRAY = 4, 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", _U32: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_DTYPES = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}

Value = str | int | float | bool | None


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file holds.

    Attributes:
        metadata: its keys; arrays are None.
        tensors: name → tensor, dimensions in torch's order.
    """

    metadata: Mapping[str, Value]
    tensors: Mapping[str, Tensor]


class _Cursor:
    """Reads forward and never past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise _BadGgufError(f"truncated: {size} bytes wanted at byte {self.at} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> int:
        return int(struct.unpack(code, self.take(struct.calcsize(code)))[0])

    def text(self) -> str:
        return self.take(self.number("<Q")).decode("utf-8")

    def value(self, kind: int) -> Value:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            self._skip_array()
            return None
        if kind not in _SCALARS:
            raise _BadGgufError(f"unknown value type {kind}")
        value: Value = struct.unpack(_SCALARS[kind], self.take(struct.calcsize(_SCALARS[kind])))[0]
        return value

    def _skip_array(self) -> None:
        kind, count = self.number("<I"), self.number("<Q")
        if kind in _SCALARS:
            self.take(count * struct.calcsize(_SCALARS[kind]))
        elif kind == _STRING:
            for _ in range(count):  # ends at the end of the file at the latest: each takes 8 bytes or more
                self.text()
        else:
            raise _BadGgufError(f"array of unknown type {kind}")


class _BadGgufError(Exception):
    """Why a file is no GGUF file."""


def read_gguf(path: Path, architecture: str) -> GgufFile:
    """Read a GGUF file of plain tensors.

    Args:
        path: the file.
        architecture: what its ``general.architecture`` must be; checked before any tensor is read.

    Raises:
        VectorFileError: missing, empty, truncated, junk, with bytes after its end, of another version or
            architecture, or with tensors of another type than F32, F16 and BF16.
    """
    if not path.is_file():
        raise VectorFileError(f"{path}: no such file.")
    if path.stat().st_size == 0:
        raise VectorFileError(f"{path}: not a vector file: it is empty.")
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _parse(_Cursor(data), architecture)
        except (_BadGgufError, UnicodeDecodeError) as error:
            raise VectorFileError(f"{path}: not a vector file: {error}.") from None


def write_gguf(path: Path, metadata: Mapping[str, str | int], tensors: Mapping[str, Tensor]) -> None:
    """Write one-dimensional float32 tensors as a GGUF file, atomically.

    Args:
        path: where it goes.
        metadata: keys; numbers are written as 32-bit unsigned.
        tensors: name → ``[d_model]``.

    Raises:
        WriteError: the file cannot be written.
    """
    head = [_MAGIC, struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        number = isinstance(value, int)
        head += [_text(key), struct.pack("<I", _U32 if number else _STRING)]
        head.append(struct.pack("<I", value) if isinstance(value, int) else _text(value))
    blocks: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        block = _padded(tensor.to(torch.float32).contiguous().numpy().astype("<f4").tobytes())
        head += [_text(name), struct.pack("<IQIQ", 1, tensor.shape[0], 0, offset)]
        blocks.append(block)
        offset += len(block)
    with atomic_write(path, "wb") as handle:
        handle.write(_padded(b"".join(head)))
        for block in blocks:
            handle.write(block)


def _parse(cursor: _Cursor, architecture: str) -> GgufFile:
    if cursor.take(4) != _MAGIC:
        raise _BadGgufError("it does not begin with GGUF")
    version = cursor.number("<I")
    if version not in (2, 3):
        raise _BadGgufError(f"GGUF version {version}; versions 2 and 3 in little-endian order are read")
    n_tensors, n_keys = cursor.number("<Q"), cursor.number("<Q")
    metadata: dict[str, Value] = {}
    for _ in range(n_keys):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("<I"))
    found = metadata.get("general.architecture")
    if found != architecture:
        raise _BadGgufError(f"its architecture is {str(found)[:60]!r}, not {architecture!r} (a model, no vector?)")
    infos: dict[str, tuple[list[int], int, int]] = {}
    for _ in range(n_tensors):
        name, rank = cursor.text(), cursor.number("<I")
        if rank > 4 or name in infos:
            raise _BadGgufError(f"tensor {name[:60]!r} has {rank} dimensions or is there twice")
        infos[name] = ([cursor.number("<Q") for _ in range(rank)], cursor.number("<I"), cursor.number("<Q"))
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if isinstance(alignment, bool) or not isinstance(alignment, int) or not 0 < alignment <= 1 << 16:
        raise _BadGgufError(f"alignment {alignment!r}")
    return GgufFile(metadata, _tensors(cursor, infos, alignment))


def _tensors(cursor: _Cursor, infos: Mapping[str, tuple[list[int], int, int]], alignment: int) -> dict[str, Tensor]:
    start = cursor.at + -cursor.at % alignment
    end = start
    tensors: dict[str, Tensor] = {}
    for name, (shape, kind, offset) in infos.items():
        if kind not in _DTYPES:
            raise _BadGgufError(
                f"tensor {name[:60]!r} has ggml type {kind}; F32, F16 and BF16 are read, quantised ones are not"
            )
        size = _DTYPES[kind].itemsize
        for length in shape:
            size *= length
        cursor.at = start + offset
        data = cursor.take(size)
        if not data:
            raise _BadGgufError(f"tensor {name[:60]!r} is empty")
        tensors[name] = torch.frombuffer(bytearray(data), dtype=_DTYPES[kind]).reshape(shape[::-1])
        end = max(end, cursor.at)
    if len(cursor.data) - end >= alignment:
        raise _BadGgufError(f"{len(cursor.data) - end} bytes after the end of its tensors")
    return tensors


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
