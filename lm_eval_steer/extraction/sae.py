"""SAE: decoder rows of a sparse autoencoder as a steering vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_steer.errors import ConfigError, ShapeError, VectorFileError
from lm_eval_steer.extraction.record import versions
from lm_eval_steer.files import sha256_file
from lm_eval_steer.fingerprint import fingerprint
from lm_eval_steer.formats.hook_names import LAYER_BASE, parse_hook_name
from lm_eval_steer.formats.sae import SaeRow
from lm_eval_steer.hookpoint import Hookpoint, check_layer
from lm_eval_steer.layout import ModelLayout
from lm_eval_steer.vector import Provenance, SteeringVector

METHOD = "sae"


def trained_at(folder: Path, row: SaeRow, asked: Hookpoint | None) -> Hookpoint:
    """Return where an SAE was trained: as its configuration says, else as its folder is called, else ``asked``.

    Args:
        folder: of the SAE; sparsify names it by the hookpoint (``layers.12``) and says so nowhere else.
        row: any of its rows.
        asked: the layer and site that the user named; None for none.

    Raises:
        ConfigError: nothing says where, or ``asked`` is another place.
        VectorFileError: the configuration names a place that is not known here.
    """
    if row.hook_name is not None:
        told: Hookpoint | None = parse_hook_name(row.hook_name, str(row.weights))
    else:
        try:
            told = parse_hook_name(folder.resolve().name, str(folder))
        except VectorFileError:
            told = None
    if told is None and asked is None:
        raise ConfigError(f"{folder} does not say which layer it was trained at; pass --layers N.")
    if told is not None and asked is not None and told != asked:
        raise ConfigError(f"{folder} was trained at {told}, not at {asked}; to steer elsewhere, say so in the run.")
    point = told if asked is None else asked
    assert point is not None
    return point


def sae_vector(
    rows: Mapping[int, SaeRow],
    point: Hookpoint,
    model: Any,
    layout: ModelLayout,
    tokenizer: Any,
    *,
    name: str,
    model_id: str | None = None,
    revision: str | None = None,
) -> SteeringVector:
    """Return the sum of decoder rows, ``v = Σ_f W_dec[f]``, ``[d_model]``, not rescaled.

    ``b_dec`` is the vector's origin, from which ``clamp`` takes projections; there is none where the SAE has none or
    rescales its inputs, because projections are in other units then.

    Args:
        rows: feature → its row; all of one SAE.
        point: where the SAE was trained.
        model: the model that is to be steered, for its fingerprint.
        layout: of the model.
        tokenizer: of the model.
        name: of the vector.
        model_id: the model's name for the record.
        revision: the model's revision for the record.

    Raises:
        ConfigError: no rows.
        SiteError, LayerError: the model lacks the hookpoint.
        ShapeError: the rows are not as wide as the model there.
    """
    if not rows:
        raise ConfigError("name at least one feature of the SAE.")
    check_layer(point.layer, layout.n_layers)
    layout.target(point)
    first = next(iter(rows.values()))
    total = sum((row.direction.double() for row in rows.values()), start=first.direction.double() * 0)
    if total.shape != (layout.d_model,):
        raise ShapeError(f"the SAE's rows are {total.shape[0]} wide, the model {layout.d_model}.")
    plain = first.bias is not None and first.normalize_activations == "none"
    origins = {point: first.bias.float()} if plain and first.bias is not None else {}
    record = Provenance(
        method=METHOD,
        model_id=model_id,
        model_revision=revision,
        fingerprint=fingerprint(model, layout, tokenizer),
        layer_base=LAYER_BASE,
        versions=versions(),
        notes={
            "features": sorted(rows),
            "norm": "own",
            "sae_hook_name": first.hook_name,
            "sae_model": first.model_id,
            "sae_sha256": sha256_file(first.weights),
            "normalize_activations": first.normalize_activations,
        },
    )
    return SteeringVector(name, {point: total.float()}, record, origins=origins)
