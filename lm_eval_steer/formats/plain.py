"""Tensors that say little about themselves: a lone one, or one a layer, in a ``.pt`` or a ``.safetensors``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lm_eval_steer.errors import ConfigError, LayerError, VectorFileError
from lm_eval_steer.formats.base import (
    Converted,
    Format,
    LayerBase,
    Origin,
    Told,
    as_direction,
    canonical_layer,
    need_layer_base,
)
from lm_eval_steer.formats.caa_pt import is_caa_name
from lm_eval_steer.formats.native import is_native
from lm_eval_steer.formats.pickle_guard import SUFFIXES, load_pt
from lm_eval_steer.formats.steered_pt import is_steered
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.suggest import choice_message

_WHOLE = re.compile(r"0|[1-9]\d*")
_NEEDS = "--layer-base block_out|hidden_states"
_BASES: dict[LayerBase, str] = {
    "block_out": "layer N is the output of block N (as told)",
    "hidden_states": "layer N is hidden_states[N], the output of block N-1 (as told)",
}
# The steering-vectors library hooks the output of the N-th module of its layer type.
_LIBRARY_SITES = {"decoder_block": Site.BLOCK_OUT, "self_attn": Site.ATTN_OUT, "mlp": Site.MLP_OUT}


class PlainPt(Format):
    """A tensor, a dictionary layer → tensor, or the fields of a steering-vectors ``SteeringVector`` in a ``.pt``.

    Source (for the last): steering-vectors ``steering_vector.py`` and ``record_activations.py``: layer N is the output
    of the N-th decoder block (or of its ``self_attn`` or ``mlp``).
    """

    name: ClassVar[str] = "plain_pt"
    title: ClassVar[str] = "a .pt of plain tensors"
    takes: ClassVar[frozenset[str]] = frozenset({"layer_base", "layer"})
    needs: ClassVar[str] = _NEEDS

    def recognises(self, path: Path) -> bool:
        """Say whether it is a ``torch.save`` file that no other format claims."""
        if path.suffix.lower() not in SUFFIXES or not path.is_file() or is_caa_name(path):
            return False
        return not is_steered(load_pt(path))

    def read(self, path: Path, told: Told) -> Converted:
        """Return one vector (see :meth:`Format.read`)."""
        content = load_pt(path)
        if isinstance(content, Tensor):
            return _lone(self.name, path, content, told)
        if not isinstance(content, Mapping) or not content:
            raise VectorFileError(
                f"{path}: it holds {_describe(content)}, not a tensor or a dictionary layer -> tensor."
            )
        if "layer_activations" in content:
            return _library(self.name, path, content, told)
        if any(isinstance(key, str) for key in content):
            raise VectorFileError(f"{path}: {_named_tensors([str(key) for key in content])}")
        return _by_layer(self.name, path, content, told)


class PlainSafetensors(Format):
    """A ``.safetensors`` of another tool: one tensor, or tensors named by their layer number (``"12"``)."""

    name: ClassVar[str] = "plain_safetensors"
    title: ClassVar[str] = "a .safetensors of another tool"
    takes: ClassVar[frozenset[str]] = frozenset({"layer_base", "layer"})
    needs: ClassVar[str] = _NEEDS

    def recognises(self, path: Path) -> bool:
        """Say whether it is a readable safetensors file without this project's metadata."""
        if path.suffix.lower() != ".safetensors" or not path.is_file() or is_native(path):
            return False
        try:
            with safe_open(str(path), framework="pt") as handle:
                return "lm_eval_steer" not in (handle.metadata() or {})
        except (SafetensorError, OSError):
            return False

    def read(self, path: Path, told: Told) -> Converted:
        """Return one vector (see :meth:`Format.read`)."""
        try:
            with safe_open(str(path), framework="pt", device="cpu") as handle:
                names = list(handle.keys())
                numbered = all(_WHOLE.fullmatch(name) for name in names)
                if not names or (len(names) > 1 and not numbered):
                    raise VectorFileError(f"{path}: {_named_tensors(names)}")
                tensors = {name: handle.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise VectorFileError(f"{path}: not a vector file: {error}.") from None
        if numbered:
            return _by_layer(self.name, path, {int(name): value for name, value in tensors.items()}, told)
        return _lone(self.name, path, next(iter(tensors.values())), told)


def _lone(name: str, path: Path, value: Tensor, told: Told) -> Converted:
    if told.layer is None:
        raise ConfigError(f"{path} holds one tensor and no layer; pass --layer N and how N counts, {_NEEDS}.")
    return _by_layer(name, path, {told.layer: value}, Told(**{**vars(told), "layer": None}))


def _by_layer(name: str, path: Path, content: Mapping[object, object], told: Told) -> Converted:
    if told.layer is not None:
        raise LayerError(f"{path} numbers its layers itself; leave --layer out.")
    base = need_layer_base(path, told)
    tensors = {
        Hookpoint(Site.BLOCK_OUT, canonical_layer(key, base, str(path))): as_direction(value, f"{path}, layer {key}")
        for key, value in content.items()
    }
    return Converted((Origin(name, path, _BASES[base], (path,)).vector(told, tensors),))


def _library(name: str, path: Path, content: Mapping[object, object], told: Told) -> Converted:
    if told.layer_base is not None or told.layer is not None:
        raise ConfigError(
            f"{path}: a steering-vectors dictionary states its layers itself; leave --layer-base and --layer out."
        )
    kind, layers = content.get("layer_type", "decoder_block"), content["layer_activations"]
    if kind not in _LIBRARY_SITES:
        raise VectorFileError(f"{path}: {choice_message('layer_type', str(kind)[:60], _LIBRARY_SITES)}")
    if not isinstance(layers, Mapping) or not layers:
        raise VectorFileError(f"{path}: layer_activations is {_describe(layers)}, not a dictionary layer -> tensor.")
    tensors = {
        Hookpoint(_LIBRARY_SITES[str(kind)], canonical_layer(key, "block_out", str(path))): as_direction(
            value, f"{path}, layer {key}"
        )
        for key, value in layers.items()
    }
    base = f"steering-vectors: layer N is the output of the N-th {kind}"
    return Converted((Origin(name, path, base, (path,), {"layer_type": kind}).vector(told, tensors),))


def _named_tensors(names: list[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:3]) + (" …" if len(names) > 3 else "")
    return (
        f"its tensors are called {shown}, which says nothing about layers. Save one tensor, or tensors whose only name "
        f"is their layer number, and pass {_NEEDS}."
    )


def _describe(value: object) -> str:
    return f"an empty {type(value).__name__}" if isinstance(value, Mapping) else f"a {type(value).__name__}"
