"""FAULTS row 2: truncated, empty, junk, trailing bytes, giant header: an error with the path and the reason."""

from __future__ import annotations

import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lm_eval_steer.errors import EXIT_INPUT, ConfigError, InputError, VectorFileError
from lm_eval_steer.formats import Told, get_format, load_any, load_vector, recognise, save_vector
from lm_eval_steer.formats.gguf import write_control_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.vector import Provenance, SteeringVector


def vector() -> SteeringVector:
    tensors = {Hookpoint(Site.BLOCK_OUT, i): torch.arange(1.0, 9.0) * i for i in (1, 2)}
    return SteeringVector("v", tensors, Provenance("caa"))


def native(path: Path) -> None:
    save_vector(vector(), path)


def gguf(path: Path) -> None:
    write_control_vector(vector(), path)


def torch_zip(path: Path) -> None:
    torch.save({1: torch.ones(8), 2: torch.ones(8)}, path)


def torch_legacy(path: Path) -> None:
    torch.save({1: torch.ones(8), 2: torch.ones(8)}, path, _use_new_zipfile_serialization=False)


def read(path: Path) -> None:
    if path.suffix == ".safetensors":
        load_vector(path)
    else:
        get_format("gguf" if path.suffix == ".gguf" else "plain_pt").read(path, Told("v", "block_out"))


WRITERS: dict[str, Callable[[Path], None]] = {
    "v.safetensors": native,
    "v.gguf": gguf,
    "v.pt": torch_zip,
    "w.pt": torch_legacy,
}
ALL = pytest.mark.parametrize("name", WRITERS)


def refused(path: Path) -> str:
    with pytest.raises(VectorFileError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == EXIT_INPUT
    with pytest.raises(InputError):
        load_any(path)
    return str(caught.value)


@ALL
def test_the_whole_file_is_good(tmp_path, name):
    WRITERS[name](tmp_path / name)
    read(tmp_path / name)


@ALL
def test_empty(tmp_path, name):
    (tmp_path / name).touch()
    refused(tmp_path / name)


@ALL
def test_missing(tmp_path, name):
    assert "no such file" in refused(tmp_path / name)


@ALL
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.8, 0.99])
def test_truncated(tmp_path, name, share):
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(path.read_bytes()[: max(1, int(share * path.stat().st_size))])
    refused(path)


# One byte more in GGUF is inside its own padding to 32.
@pytest.mark.parametrize(
    ("name", "count"), [(name, n) for name in WRITERS for n in (1, 64, 5000) if (name, n) != ("v.gguf", 1)]
)
def test_trailing_bytes(tmp_path, name, count):
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(path.read_bytes() + b"\x07" * count)
    refused(path)


@ALL
@pytest.mark.parametrize("data", [b"hello", b"\0" * 100, b"\xff" * 100, b"<html>", bytes(range(256)) * 8])
def test_junk(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    refused(tmp_path / name)


@ALL
def test_flipped_bytes_never_escape(tmp_path, name):
    """Whatever one changed byte does, it is read, or refused by an error of ours."""
    path = tmp_path / name
    WRITERS[name](path)
    good = path.read_bytes()
    chance = random.Random(0)
    for _ in range(150):
        place = chance.randrange(len(good))
        path.write_bytes(good[:place] + bytes([chance.randrange(256)]) + good[place + 1 :])
        refused_by = None
        try:
            read(path)
        except ValueError as error:
            refused_by = error
        if isinstance(refused_by, InputError):
            assert str(path) in str(refused_by)
        elif refused_by is not None:  # a layer number that is none
            assert isinstance(refused_by, ConfigError)


def test_a_bad_tensor_name_names_the_file(tmp_path):
    path = tmp_path / "v.safetensors"
    native(path)
    path.write_bytes(path.read_bytes().replace(b'"block_out.1"', b'"blocG_out.1"', 1))
    refused(path)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


ARCHITECTURE = text(b"general.architecture") + struct.pack("<I", 8) + text(b"controlvector")
DIRECTION = text(b"direction.1")


def test_giant_safetensors_header(tmp_path):
    path = tmp_path / "v.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    assert "not a vector file" in refused(path)


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<IQQ", 3, 1 << 60, 0),
        struct.pack("<IQQ", 3, 0, 1 << 60),
        struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62),
        # one key whose value is an array of 2^60 bytes, strings, and arrays
        *(struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, kind, 1 << 60) for kind in (0, 8, 9, 12)),
        # tensors without end; one of 2^60 numbers; of 2^32 dimensions; at an offset beyond the end
        struct.pack("<IQQ", 3, 1 << 60, 1) + ARCHITECTURE,
        struct.pack("<IQQ", 3, 1, 1) + ARCHITECTURE + DIRECTION + struct.pack("<IQIQ", 1, 1 << 60, 0, 0),
        struct.pack("<IQQ", 3, 1, 1) + ARCHITECTURE + DIRECTION + struct.pack("<I", 0xFFFFFFFF),
        struct.pack("<IQQ", 3, 1, 1) + ARCHITECTURE + DIRECTION + struct.pack("<IQIQ", 1, 8, 0, 1 << 62),
        struct.pack(">IQQ", 3, 0, 0),
        struct.pack("<IQQ", 1, 0, 0),
    ],
)
def test_giant_gguf_counts_end_at_once(tmp_path, body):
    path = tmp_path / "v.gguf"
    path.write_bytes(b"GGUF" + body)
    assert "not a vector file" in refused(path)


def test_compressed_archive(tmp_path):
    torch_zip(tmp_path / "good.pt")
    path = tmp_path / "v.pt"
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bad:
        for member in good.infolist():
            bad.writestr(member.filename, good.read(member))
    assert "compressed" in refused(path)


def test_quantised_gguf_is_named(tmp_path):
    path = tmp_path / "v.gguf"
    gguf(path)
    data = path.read_bytes().replace(
        b"direction.1" + struct.pack("<IQI", 1, 8, 0), b"direction.1" + struct.pack("<IQI", 1, 8, 12)
    )
    path.write_bytes(data)
    assert "ggml type 12" in refused(path)


def test_a_folder_of_nothing(tmp_path):
    with pytest.raises(VectorFileError, match="Known"):
        recognise(tmp_path)


def test_metadata_edited_by_hand(tmp_path):
    path = tmp_path / "v.safetensors"
    native(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "edited or damaged" in refused(path)
