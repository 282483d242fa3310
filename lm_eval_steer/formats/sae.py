"""Rows of sparse autoencoders in local folders: SAELens and sparsify layouts. Nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lm_eval_steer.errors import ShapeError, VectorFileError

Loader = Literal["sparsify", "sae_lens"]
WEIGHTS: dict[Loader, str] = {"sparsify": "sae.safetensors", "sae_lens": "sae_weights.safetensors"}


@dataclass(frozen=True)
class SaeRow:
    """One feature of a sparse autoencoder.

    Attributes:
        direction: its decoder row, ``[d_model]``.
        bias: the decoder's bias ``b_dec``, ``[d_model]``; None where the file has none.
        hook_name: where the SAE was trained, as its configuration spells it; None where it does not say.
        normalize_activations: SAELens' rescaling of inputs; ``none`` where there is none.
        model_id: of the model it was trained on, where the configuration says so.
        weights: the file the row was read from.
    """

    direction: Tensor
    bias: Tensor | None
    hook_name: str | None
    normalize_activations: str
    model_id: str | None
    weights: Path


def decoder_row(folder: Path, loader: Loader, feature: int) -> SaeRow:
    """Return one decoder row of the SAE in ``folder``; the rest of the matrix is not read.

    Args:
        folder: holds ``cfg.json`` and ``sae_weights.safetensors`` (SAELens) or ``sae.safetensors`` (sparsify), with
            ``W_dec`` ``[d_sae, d_model]`` and ``b_dec`` ``[d_model]``.
        loader: which layout.
        feature: row of ``W_dec``.

    Raises:
        VectorFileError: a file is missing or bad, or there is no such feature.
        ShapeError: the tensors do not fit each other.

    Source: SAELens ``sae_lens/saes/sae.py`` (``save_model``) and ``constants.py``; sparsify
    ``sparsify/sparse_coder.py`` (``save_to_disk``).
    """
    config = _config(folder)
    weights = folder / WEIGHTS[loader]
    if not weights.is_file():
        raise VectorFileError(f"{folder}: not a folder of {loader}: it has no {WEIGHTS[loader]}.")
    direction, bias = _read_row(weights, feature)
    if isinstance(config.get("d_in"), int) and config["d_in"] != direction.shape[0]:
        raise ShapeError(f"{weights}: W_dec is {direction.shape[0]} wide, cfg.json says d_in {config['d_in']}.")
    metadata = config.get("metadata") if isinstance(config.get("metadata"), Mapping) else config.get("meta")
    facts: Mapping[str, Any] = {**config, **metadata} if isinstance(metadata, Mapping) else config
    hook, model = facts.get("hook_name", facts.get("hook_point")), facts.get("model_name")
    return SaeRow(
        direction,
        bias,
        hook if isinstance(hook, str) and hook else None,
        _normalization(facts.get("normalize_activations")),
        model if isinstance(model, str) and model else None,
        weights,
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "cfg.json"
    if not path.is_file():
        raise VectorFileError(f"{folder}: not the folder of a sparse autoencoder: it has no cfg.json.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise VectorFileError(f"{path}: no JSON: {error}.") from None
    if not isinstance(value, dict):
        raise VectorFileError(f"{path}: a JSON object is wanted, not {type(value).__name__}.")
    return value


def _read_row(weights: Path, feature: int) -> tuple[Tensor, Tensor | None]:
    try:
        with safe_open(str(weights), framework="pt", device="cpu") as handle:
            keys = set(handle.keys())
            if "W_dec" not in keys:
                raise VectorFileError(f"{weights}: it has no decoder W_dec.")
            decoder = handle.get_slice("W_dec")
            shape = tuple(decoder.get_shape())
            if len(shape) != 2:
                raise ShapeError(f"{weights}: W_dec has shape {shape}, not [features, d_model].")
            if not 0 <= feature < shape[0]:
                raise VectorFileError(f"{weights}: no feature {feature}; it has 0 to {shape[0] - 1}.")
            row: Tensor = decoder[feature : feature + 1][0]
            bias: Tensor | None = handle.get_tensor("b_dec") if "b_dec" in keys else None
    except (SafetensorError, OSError) as error:
        raise VectorFileError(f"{weights}: not a safetensors file: {error}.") from None
    if bias is not None and tuple(bias.shape) != (shape[1],):
        raise ShapeError(f"{weights}: b_dec has shape {tuple(bias.shape)}, W_dec rows have ({shape[1]},).")
    return row, bias


def _normalization(value: object) -> str:
    if isinstance(value, bool):  # SAELens before version 4 wrote true or false
        return "expected_average_only_in" if value else "none"
    return value if isinstance(value, str) else "none"
