"""``lm-eval-steer combine``: add, subtract, average and project steering vectors, with their parents on record."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.cli.extract_files import check_free
from lm_eval_steer.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.vector import SteeringVector

WAYS = ("add", "subtract", "average", "project-out", "compose", "drop-features")
_SUFFIX = ".safetensors"
_DESCRIPTION = """\
Make one vector file of several, at the layers and site that all of them have. The file names its parents by content id.
"""
_EPILOG = """\
ways:
  add A B ...          A + B + ...
  subtract A B         A - B
  average A B ...      their mean
  project-out A B ...  A minus its projection on the span of B, ...: orthogonal to each of them
  compose AD BC AC     AD + BC - AC, the algebra of function vectors
  drop-features A      A minus its projection on rows of an SAE's decoder: --sae DIR --features 12,40 [--layer N]

examples:
  lm-eval-steer combine project-out V.safetensors V.letter.safetensors --out no-letter.safetensors
  lm-eval-steer combine compose ad.safetensors bc.safetensors ac.safetensors --out bd.safetensors
  lm-eval-steer combine drop-features V.safetensors --sae layers.12 --features 17,301 --out clean.safetensors --layer 12

Multipliers belong to the run, not to a file; to weigh the parts of a sum, use a spec file with several placements.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``combine`` to the command line."""
    parser = add_command(
        subparsers, "combine", "add, subtract, average, project out and compose vectors", _DESCRIPTION, _EPILOG
    )
    add = parser.add_argument
    add("way", metavar="WAY", choices=WAYS, help=", ".join(WAYS))
    add("vectors", metavar="VECTOR", nargs="+", help="shipped names or files, in the order of the formula")
    add("--out", required=True, type=Path, help="the vector file to write (.safetensors)")
    add("--layers", help="12, 10-14 or 10,12: keep only these (default: all that the vectors share)")
    add("--sae", type=Path, metavar="DIR", help="drop-features: a local SAE folder (SAELens, sparsify)")
    add("--features", metavar="N,N", help="drop-features: rows of its decoder")
    add("--layer", type=int, metavar="N", help="drop-features: the layer the SAE belongs to (default: what it says)")
    add("--force", action="store_true", help="overwrite a file that exists")
    add("--json", action="store_true", help="print what was written as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Combine, write the file and say what it holds.

    Args:
        args: as :func:`add_parser` defines them.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as :mod:`lm_eval_steer.inspection.combine` and the reading and writing of files raise it.
    """
    from lm_eval_steer.formats.native import save_vector
    from lm_eval_steer.store import find_vector

    if args.out.suffix != _SUFFIX:
        raise ConfigError(f"--out {str(args.out)!r}: a vector file ends in {_SUFFIX}.")
    check_free([args.out], force=args.force)
    parents = [find_vector(label).vector for label in args.vectors]
    made = _drop(args, parents) if args.way == "drop-features" else _sum(args, parents)
    save_vector(made, args.out)
    _tell(args, made, parents)
    return EXIT_OK


def _sum(args: argparse.Namespace, parents: Sequence[SteeringVector]) -> SteeringVector:
    from lm_eval_steer.axes import parse_layers
    from lm_eval_steer.inspection.combine import combine

    for name in ("sae", "features", "layer"):
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name} belongs to drop-features.")
    layers = None if args.layers is None else parse_layers(args.layers, parents[0].layers)
    return combine(args.way, parents, args.out.stem, layers)


def _drop(args: argparse.Namespace, parents: Sequence[SteeringVector]) -> SteeringVector:
    from lm_eval_steer.axes import parse_features
    from lm_eval_steer.hookpoint import Hookpoint
    from lm_eval_steer.inspection.combine import drop_features
    from lm_eval_steer.inspection.sae_decoder import feature_rows, named_point

    if args.sae is None or args.features is None or len(parents) != 1 or args.layers is not None:
        raise ConfigError("drop-features takes one vector, --sae DIR and --features N,N, and --layer N for its place.")
    features = parse_features(args.features)
    rows = feature_rows(args.sae, features)
    first = rows[features[0]]
    told = named_point(first)
    if args.layer is None and told is None:
        raise ConfigError(f"{args.sae} does not say which layer it belongs to; pass --layer.")
    point = told if args.layer is None else Hookpoint(parents[0].site, args.layer)
    assert point is not None
    source = {"folder": args.sae.resolve().name, "hook_name": first.hook_name, "model": first.model_id}
    directions = {feature: row.direction for feature, row in rows.items()}
    return drop_features(parents[0], point, directions, source, args.out.stem)


def _tell(args: argparse.Namespace, made: SteeringVector, parents: Sequence[SteeringVector]) -> None:
    import torch

    rows: list[dict[str, Any]] = []
    for point, tensor in made.tensors.items():
        flat = tensor.reshape(-1).double()
        same = [p.tensors[point].reshape(-1).double() for p in parents]
        cosines = [
            float(torch.nn.functional.cosine_similarity(flat, each, dim=0)) if each.shape == flat.shape else None
            for each in same
        ]
        rows.append({"point": str(point), "norm": float(flat.norm()), "cosines": cosines})
    notes = made.provenance.notes
    if args.json:
        facts = {"out": str(args.out), "id": made.id, "name": made.name, "formula": notes["formula"]}
        print(json.dumps({**facts, "parents": notes["parents"], "hookpoints": rows}, ensure_ascii=False))
        return
    print(f"{args.out}: {made.name}, id {made.id}: {notes['formula']}")
    for number, parent in enumerate(notes["parents"], start=1):
        print(f"  v{number} = {parent['name']} (id {parent['id']}, {parent['method']})")
    for row in rows:
        likeness = ", ".join(
            f"v{number} {cosine:+.3f}" for number, cosine in enumerate(row["cosines"], start=1) if cosine is not None
        )
        print(f"  {row['point']}: norm {row['norm']:.3f}; cosine with {likeness}")
