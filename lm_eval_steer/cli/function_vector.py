"""``lm-eval-steer function-vector``: word pairs in, a function vector or an h-vector out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.cli.extract_files import check_free, control_path
from lm_eval_steer.cli.model_flags import add_model_flags
from lm_eval_steer.errors import EXIT_OK, ConfigError
from lm_eval_steer.files import sha256_file

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.extraction.controls import Control
    from lm_eval_steer.extraction.function_vector import FunctionVector
    from lm_eval_steer.extraction.icl_reading import ICLReading
    from lm_eval_steer.vector import SteeringVector

METHODS = ("function_vector", "h_vector")
_EVERY = 5

_DESCRIPTION = """\
Make a function vector from word pairs: what the attention heads that carry an in-context task write on average.

Every pair is asked once in a prompt that shows others of them. The heads are ranked by how much their mean output, put
into a prompt with shuffled labels, raises the probability of the right answer's first token; the strongest are summed.
The vector is the same for every layer; a sweep finds where to add it. The whole ranking is kept in the file.
"""

_EPILOG = """\
examples:
  lm-eval-steer function-vector --pretrained embedded --task country_capital --out capital.safetensors
  lm-eval-steer sweep --pretrained embedded --vector capital.safetensors --tasks icl_country_capital --layers 4-20 \\
                      --multipliers 1:3:1 --scope last_prompt --nulls random:3 --ledger capital_sweep
  lm-eval-steer function-vector --pretrained DIR --task PAIRS.jsonl --method h_vector --out h.safetensors

word pairs, --task:
  antonym, capital_country, country_capital, present_past, singular_plural   packaged: the train pairs of icl_*
  FILE.jsonl                                                                 {"input": ..., "output": ...} a line
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``function-vector`` to the command line."""
    parser = add_command(
        subparsers, "function-vector", "make a function vector or an h-vector from word pairs", _DESCRIPTION, _EPILOG
    )
    add = parser.add_argument
    add_model_flags(parser, required=True)
    add("--task", required=True, help="a packaged list of word pairs, or a file")
    add("--out", required=True, type=Path, help="the vector file to write (.safetensors)")
    add("--method", default=METHODS[0], help="function_vector or h_vector (default: %(default)s)")
    add("--shots", type=int, default=10, help="pairs that a prompt shows (default: %(default)s)")
    add("--heads", type=int, default=10, help="heads that are summed (default: %(default)s)")
    add("--trials", type=int, default=25, help="prompts with shuffled labels (default: %(default)s)")
    add("--controls", default="", help="null directions of equal norm: random:K (default: none)")
    add("--batch-size", type=int, default=8, help="prompts of a forward (default: %(default)s)")
    add("--seed", type=int, default=0, help="of prompts, shuffled labels and controls (default: %(default)s)")
    add("--force", action="store_true", help="overwrite files that exist")
    add("--json", action="store_true", help="print files and effects as JSON, alone on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the vector, write the files and print what was found.

    Args:
        args: as :func:`add_parser` defines them.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as :func:`~lm_eval_steer.extraction.icl_reading.read_icl`,
            :func:`~lm_eval_steer.extraction.function_vector.function_vector` and the loading of the model raise it.
    """
    from lm_eval_steer.extraction.function_vector import function_vector
    from lm_eval_steer.extraction.h_vector import h_vector
    from lm_eval_steer.extraction.icl import read_word_pairs
    from lm_eval_steer.formats.native import save_vector
    from lm_eval_steer.loading import model_label

    paths = _paths(args)
    reading = _read(args, read_word_pairs(args.task))
    label = model_label(args.pretrained)
    found = None
    if args.method == "h_vector":
        vector = h_vector(reading, model_id=label)
    else:
        found = function_vector(
            reading,
            top_heads=args.heads,
            trials=args.trials,
            model_id=label,
            progress=lambda done, total: _progress("shuffled prompts", done, total),
        )
        vector = found.vector
    for control, path in paths.items():
        save_vector(vector if control is None else _control(reading, vector, control), path)
    if args.json:
        print(json.dumps(_summary(vector, found, paths), indent=2, allow_nan=False))
    else:
        _show(vector, found, list(paths.values()))
    return EXIT_OK


def _paths(args: argparse.Namespace) -> dict[Control | None, Path]:
    """Return the files to write, the vector's under None, once everything that needs no model is known to be right."""
    from lm_eval_steer.extraction.controls import parse_controls
    from lm_eval_steer.suggest import choice_message

    if args.method not in METHODS:
        raise ConfigError(choice_message("method", args.method, METHODS))
    for name in ("heads", "trials", "batch_size"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(args, name)} is below 1.")
    controls = parse_controls(args.controls)
    if any(control.kind != "random" for control in controls):
        raise ConfigError(f"--controls {args.controls}: only random:K; the shuffled labels choose the heads already.")
    paths: dict[Control | None, Path] = {None: control_path(args.out, "")}
    paths |= {control: control_path(args.out, str(control)) for control in controls}
    check_free(list(paths.values()), force=args.force)
    return paths


def _read(args: argparse.Namespace, words: Any) -> ICLReading:
    from lm_eval_steer.extraction.heads import find_heads
    from lm_eval_steer.extraction.icl_reading import NO_HEADS, ICLOptions, read_icl
    from lm_eval_steer.layout import probe_layout
    from lm_eval_steer.loading import load_causal_lm

    _say(f"loading {args.pretrained}")
    model, tokenizer = load_causal_lm(args.pretrained, args.dtype, args.device, args.revision)
    layout = probe_layout(model)
    heads = NO_HEADS if args.method == "h_vector" else find_heads(model, layout)
    options = ICLOptions(args.shots, args.batch_size, args.seed)
    return read_icl(
        model,
        tokenizer,
        words,
        options,
        heads=heads,
        layout=layout,
        progress=lambda done, total: _progress("clean prompts", done, total),
    )


def _control(reading: ICLReading, vector: SteeringVector, control: Control) -> SteeringVector:
    """Return a random direction of the vector's norm at every layer."""
    import dataclasses

    import torch

    from lm_eval_steer.extraction.controls import random_direction

    rows = torch.stack([vector.tensors[point] for point in reading.points])
    rows = random_direction(rows, reading.points, reading.options.seed, control.number)
    notes = {key: value for key, value in vector.provenance.notes.items() if key not in ("aie", "heads")}
    notes |= {"control_of": vector.provenance.method, "draw": control.number}
    provenance = dataclasses.replace(vector.provenance, method="random", control="random", notes=notes)
    tensors = dict(zip(reading.points, rows, strict=True))
    return dataclasses.replace(vector, name=f"{vector.name}-{control}", tensors=tensors, provenance=provenance)


def _summary(vector: SteeringVector, found: FunctionVector | None, paths: dict[Control | None, Path]) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    effects = None
    if found is not None:
        effects = {
            "resumed": found.resumed,
            "top": [{"layer": head[0], "head": head[1], "aie": found.effects[head]} for head in found.top],
        }
    return {
        "file": str(paths[None]),
        "sha256": sha256_file(paths[None]),
        "id": vector.id,
        "controls": {str(control): str(path) for control, path in paths.items() if control is not None},
        "layers": list(vector.layers),
        "d_model": vector.d_model,
        "effects": effects,
        "provenance": vector.provenance.to_dict(),
    }


def _progress(what: str, done: int, total: int) -> None:
    if done == total or done * _EVERY // total != (done - 1) * _EVERY // total:
        _say(f"{what}: {done} of {total}")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _show(vector: SteeringVector, found: FunctionVector | None, paths: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    notes, norms = vector.provenance.notes, list(vector.norms().values())
    console.print(
        f"{vector.name}: {vector.provenance.method}, {len(vector.layers)} layers × {vector.d_model}, "
        f"{vector.provenance.n_pairs} pairs, {notes['shots']} shots, norm {min(norms):.2f} to {max(norms):.2f}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if found is not None:
        table = Table(title="heads that were summed")
        for heading in ("layer", "head", "average indirect effect"):
            table.add_column(heading, justify="right")
        for head in found.top:
            table.add_row(str(head[0]), str(head[1]), f"{found.effects[head]:+.4f}")
        console.print(table)
    for path in paths:
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
