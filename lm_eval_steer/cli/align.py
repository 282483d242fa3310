"""``lm-eval-steer align``: which languages a model knows, by finding the same item in another one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.cli.extract_files import check_free, extract_progress, say, unpack_embedded
from lm_eval_steer.cli.model_flags import add_model_flags
from lm_eval_steer.errors import EXIT_OK, ConfigError
from lm_eval_steer.files import write_text

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.vector import Fingerprint, SteeringVector

_DESCRIPTION = """\
Measure whether a model knows languages: how often the hidden states of an item are nearest to those of the same item
in the other language (precision at 1), layer by layer. compare and report take the file with --alignment and mark
transfer numbers of languages that the model does not know.
"""
_EPILOG = """\
examples:
  lm-eval-steer align --pretrained embedded --family xl_positivity --languages en,fr --out alignment.json
  lm-eval-steer align --pretrained DIR_OR_HUB --family my_items --layers 10-20 --out alignment.json \\
                      --vectors joy_en.safetensors,joy_fr.safetensors
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``align`` to the command line."""
    parser = add_command(subparsers, "align", "measure which languages a model knows", _DESCRIPTION, _EPILOG)
    add = parser.add_argument
    add_model_flags(parser, required=True)
    add("--family", required=True, help="xl_positivity, or a folder of LANGUAGE.jsonl with the same ids")
    add("--languages", help="en,fr: which (default: all that the family has)")
    add("--layers", default="all", help="all, 12, 10-14 or 10,12 (default: %(default)s)")
    add("--vectors", metavar="V,V", help="shipped names or files: keep their cosines by layer too")
    add("--batch-size", type=int, default=8, help="rows of a forward (default: %(default)s)")
    add("--out", required=True, type=Path, metavar="FILE", help="the JSON file to write")
    add("--force", action="store_true", help="overwrite a file that exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, write the file and print the best layer of every two languages.

    Args:
        args: as :func:`add_parser` defines them.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the items, the model, the vectors and the writing of the file raise it.
    """
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size {args.batch_size} is below 1.")
    check_free([args.out], force=args.force)
    found = _measure(args)
    write_text(args.out, json.dumps(found, indent=1, ensure_ascii=True, allow_nan=False) + "\n")
    _show(found)
    say(f"wrote {args.out}")
    return EXIT_OK


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    from lm_eval_steer.axes import parse_layers
    from lm_eval_steer.crosslingual.alignment import hidden_states, precision, read_parallel, vector_cosines
    from lm_eval_steer.extraction.record import versions
    from lm_eval_steer.fingerprint import fingerprint
    from lm_eval_steer.layout import probe_layout
    from lm_eval_steer.loading import load_causal_lm, model_label
    from lm_eval_steer.stats.crosslingual.alignment import SCHEMA
    from lm_eval_steer.store import find_vector

    wanted = None if args.languages is None else [tag.strip() for tag in args.languages.split(",") if tag.strip()]
    parallel = read_parallel(args.family, wanted)
    vectors = [find_vector(label.strip()).vector for label in (args.vectors or "").split(",") if label.strip()]
    say(f"loading {args.pretrained}")
    unpack_embedded(args.pretrained)
    model, tokenizer = load_causal_lm(args.pretrained, args.dtype, args.device, args.revision)
    layout = probe_layout(model)
    own = fingerprint(model, layout, tokenizer)
    _check_origin(own, vectors)
    layers = parse_layers(args.layers, range(layout.n_layers))
    with extract_progress() as progress:
        states = hidden_states(
            model, tokenizer, layout, parallel.texts, layers, batch_size=args.batch_size, progress=progress
        )
    return {
        "schema": SCHEMA,
        "family": parallel.family,
        "items": len(parallel.ids),
        "left_out": dict(parallel.left_out),
        "languages": list(parallel.texts),
        "model": {
            **{"id": model_label(args.pretrained), "revision": args.revision, "dtype": args.dtype},
            "fingerprint": vars(own),
        },
        "precision": {
            str(layer): precision({tag: rows[:, at] for tag, rows in states.items()}) for at, layer in enumerate(layers)
        },
        "cosines": vector_cosines(vectors),
        "versions": versions(),
    }


def _check_origin(own: Fingerprint, vectors: list[SteeringVector]) -> None:
    from lm_eval_steer.errors import ForeignVectorError

    for vector in vectors:
        made_on = vector.provenance.fingerprint
        if made_on is not None and (parts := made_on.differs_from(own)):
            raise ForeignVectorError(
                f"--vectors: {vector.name!r} was made on {vector.provenance.model_id or 'another model'}; this one "
                f"differs in {' and '.join(parts)}."
            )


def _show(found: dict[str, Any]) -> None:
    print(f"{found['family']}, {found['items']} items: share found in the other language, at the best layer")
    print(f"(chance {1 / found['items']:.2f}; mean of both directions)")
    tags = found["languages"]
    for number, a in enumerate(tags):
        for b in tags[number + 1 :]:
            both = {layer: (rows[a][b] + rows[b][a]) / 2 for layer, rows in found["precision"].items()}
            best = max(both, key=lambda layer: (both[layer], -int(layer)))
            print(f"  {a} {b}: {both[best]:.2f} at layer {best}")
