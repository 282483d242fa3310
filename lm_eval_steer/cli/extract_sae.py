"""``lm-eval-steer extract --method sae``: decoder rows of a local sparse autoencoder in, a vector out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.extract_files import planned_files, say, unpack_embedded, write_files
from lm_eval_steer.errors import EXIT_OK, ConfigError, LayerError
from lm_eval_steer.files import sha256_file

if TYPE_CHECKING:
    from lm_eval_steer.hookpoint import Hookpoint
    from lm_eval_steer.vector import SteeringVector

METHOD = "sae"
_STRANGERS = ("pairs", "read", "prompts", "prompt_sets", "select", "position", "heads", "limit", "capture")


def run_sae(args: argparse.Namespace) -> int:
    """Read the rows, write the file and print what it holds.

    Args:
        args: of ``lm-eval-steer extract``.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the reading of the SAE and the loading of the model raise it.
    """
    from lm_eval_steer.axes import parse_features
    from lm_eval_steer.extraction.sae import sae_vector, trained_at
    from lm_eval_steer.inspection.sae_decoder import feature_rows
    from lm_eval_steer.layout import probe_layout
    from lm_eval_steer.loading import load_causal_lm, model_label

    asked, features = _check(args), parse_features(args.features)
    files = planned_files(args.out, [""], args.controls, force=args.force)[0]
    rows = feature_rows(args.sae, features)
    point = trained_at(args.sae, rows[features[0]], asked)
    say(f"loading {args.pretrained}")
    unpack_embedded(args.pretrained)
    model, tokenizer = load_causal_lm(args.pretrained, args.dtype, args.device, args.revision)
    vector = sae_vector(
        rows,
        point,
        model,
        probe_layout(model),
        tokenizer,
        name=args.out.stem,
        model_id=model_label(args.pretrained),
        revision=args.revision,
    )
    write_files(vector, _controls(args, vector), files)
    _show(vector, files, as_json=args.json)
    return EXIT_OK


def _controls(args: argparse.Namespace, vector: SteeringVector) -> dict[str, SteeringVector]:
    from lm_eval_steer.extraction.controls import parse_controls
    from lm_eval_steer.sweep.random_nulls import random_null

    return {str(each): random_null(vector, each, args.seed) for each in parse_controls(args.controls)}


def _show(vector: SteeringVector, files: dict[str, Path], *, as_json: bool) -> None:
    notes, norms = vector.provenance.notes, vector.norms()
    if as_json:
        record: dict[str, Any] = {
            "file": str(files[""]),
            "sha256": sha256_file(files[""]),
            "id": vector.id,
            "layers": list(vector.layers),
            "norms": norms,
            "controls": {name: str(path) for name, path in files.items() if name},
            "provenance": vector.provenance.to_dict(),
        }
        print(json.dumps(record, indent=2, allow_nan=False))
        return
    features = " + ".join(str(feature) for feature in notes["features"])
    print(f"{vector.name}: features {features} of {notes['sae_model'] or 'an SAE that names no model'}")
    print("\n".join(f"  {point}: norm {norm:.3f}" for point, norm in norms.items()))
    if vector.origins:
        print("  with b_dec as the origin of clamp")
    print("\n".join(f"wrote {path}" for path in files.values()))


def _check(args: argparse.Namespace) -> Hookpoint | None:
    """Return the place that was asked for, None for none, and refuse options that the method does not know.

    Raises:
        ConfigError: one of them, or ``--sae`` or ``--features`` is missing.
    """
    from lm_eval_steer.axes import parse_layers
    from lm_eval_steer.extraction.controls import parse_controls
    from lm_eval_steer.hookpoint import Hookpoint, parse_site

    if args.sae is None or args.features is None:
        raise ConfigError("--method sae wants --sae DIR and --features 12,77.")
    given = [name for name in _STRANGERS if getattr(args, name) is not None]
    given += ["no_balance"] if args.no_balance else []
    given += ["format"] if args.format != "plain" else []
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} has no place with --method sae; leave it out.")
    if any(each.kind != "random" for each in parse_controls(args.controls)):
        raise ConfigError(f"--controls {args.controls}: features have random:K only.")
    if args.layers == "all":
        if args.site is not None:
            raise ConfigError("--site says where in a block; pass --layers N too.")
        return None
    layers = parse_layers(args.layers)
    if len(layers) != 1:
        raise LayerError(f"--layers {args.layers!r}: an SAE was trained at one layer.")
    return Hookpoint(parse_site(args.site or "block_out"), layers[0])
