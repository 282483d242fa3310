"""Control vectors of llama.cpp and repeng: GGUF with tensors ``direction.<N>``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from lm_eval_steer.errors import ConfigError, VectorFileError
from lm_eval_steer.formats.base import Converted, Format, Origin, Told, as_direction, canonical_layer
from lm_eval_steer.formats.gguf_file import read_gguf, write_gguf
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.vector import SteeringVector

_ARCHITECTURE = "controlvector"
_DIRECTION = re.compile(r"direction\.(0|[1-9]\d*)")


class GgufControlVector(Format):
    """A GGUF control vector; ``direction.N`` is applied to the output of block N, counted from 0.

    llama.cpp stores ``direction.N`` at offset (N − 1)·d and block ``il`` reads offset (il − 1)·d, after its residual
    add, so N is the block; block 0 cannot be steered there. repeng wraps ``model.layers[N]`` and adds to its output.
    llama.cpp's *generator* measures at the output of block N − 1 what is then applied after block N; whoever wants
    it where it was measured says ``--layer-base hidden_states``.

    Source: llama.cpp ``common/common.cpp`` (``common_control_vector_load_one``), ``src/llama-adapter.cpp``
    (``llama_adapter_cvec``), ``tools/cvector-generator``; repeng ``extract.py`` (``export_gguf``), ``control.py``.
    """

    name: ClassVar[str] = "gguf"
    title: ClassVar[str] = "a GGUF control vector (llama.cpp, repeng)"
    takes: ClassVar[frozenset[str]] = frozenset({"layer_base"})

    def recognises(self, path: Path) -> bool:
        """Say whether the file is called ``.gguf`` or begins with GGUF."""
        if not path.is_file():
            return False
        with open(path, "rb") as handle:
            return path.suffix.lower() == ".gguf" or handle.read(4) == b"GGUF"

    def read(self, path: Path, told: Told) -> Converted:
        """Return one vector with a tensor for each ``direction.N`` (see :meth:`Format.read`)."""
        content = read_gguf(path, _ARCHITECTURE)
        base = told.layer_base or "block_out"
        tensors = {}
        for name, tensor in content.tensors.items():
            match = _DIRECTION.fullmatch(name)
            if match is None:
                raise VectorFileError(f"{path}: tensor {name[:60]!r} is no direction.<N>.")
            layer = canonical_layer(int(match[1]), base, f"{path}, {name}")
            # ggml drops trailing dimensions of length 1, which torch's order has in front
            row = tensor.reshape(-1) if tensor.ndim and tensor.numel() == tensor.shape[-1] else tensor
            tensors[Hookpoint(Site.BLOCK_OUT, layer)] = as_direction(row, f"{path}, {name}")
        hint = content.metadata.get("controlvector.model_hint")
        meaning = "the output of block N" if base == "block_out" else "hidden_states[N], the output of block N-1"
        notes = {"model_hint": hint, "layer_count": content.metadata.get("controlvector.layer_count")}
        origin = Origin(self.name, path, f"direction.N is {meaning}", (path,), notes)
        return Converted((origin.vector(told, tensors),))


def write_control_vector(vector: SteeringVector, path: Path, model_hint: str | None = None) -> None:
    """Write a vector as llama.cpp's ``--control-vector`` reads it: float32 ``direction.N`` for the output of block N.

    Args:
        vector: at site ``block_out``, one row a layer.
        path: where it goes.
        model_hint: the model's architecture (``llama``); a hint, which no reader compares.

    Raises:
        ConfigError: another site, several rows, or layer 0, which llama.cpp cannot steer.
        WriteError: the file cannot be written.
    """
    other = sorted({str(key.site) for key in vector.tensors} - {str(Site.BLOCK_OUT)})
    if other or vector.rows is not None or vector.origins:
        what = f"site {other[0]}" if other else "rows: " + vector.rows if vector.rows else "an origin (for clamp)"
        raise ConfigError(f"a GGUF control vector holds one row at the output of each block; this vector has {what}.")
    if 0 in vector.layers:
        raise ConfigError(
            "llama.cpp cannot steer the output of block 0 (it refuses direction.0). Write the other layers: "
            f"--layer 1-{vector.layers[-1]}"
            if vector.layers[-1]
            else "llama.cpp cannot steer the output of block 0."
        )
    metadata: dict[str, str | int] = {
        "general.architecture": _ARCHITECTURE,
        f"{_ARCHITECTURE}.model_hint": model_hint or "unknown",
        f"{_ARCHITECTURE}.layer_count": len(vector.tensors),
    }
    write_gguf(path, metadata, {f"direction.{key.layer}": value for key, value in vector.tensors.items()})
