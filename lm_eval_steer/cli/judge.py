"""``lm-eval-steer judge``: generated texts out to a judge as a file, its scores back in as a ledger."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.errors import EXIT_OK, ConfigError, DataError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.sweep.ledger import Ledger

_DESCRIPTION = """\
Have the texts of a sweep judged by somebody else, a person or a large model, by way of two files.

export writes one line a text: id, item, prompt and response, in an order that tells nothing. A text that several cells
wrote is there once. import reads lines of {"id", "score"} and writes a ledger of these scores, which compare, report
and gate read as any other. A score that is no number on the scale is counted as unparseable and never guessed; an item
that lacks a score in any cell is left out of all, because effects are paired by item.
"""

_EPILOG = """\
examples:
  lm-eval-steer judge export sweep-1 --task control_positivity_open --out texts.jsonl
  lm-eval-steer judge import sweep-1 --scores scores.jsonl --task control_positivity_open --judge ana --out judged-1
  lm-eval-steer compare judged-1
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``judge`` to the command line."""
    parser = add_command(
        subparsers,
        "judge",
        "hand generated texts to a judge as a file, and take its scores back",
        _DESCRIPTION,
        _EPILOG,
    )
    add = parser.add_argument
    add("step", choices=["export", "import"], help="write the texts, or read their scores")
    add("ledger", metavar="LEDGER", help="the folder of a sweep with a generation task")
    add("--task", required=True, metavar="NAME", help="whose texts")
    add("--out", required=True, type=Path, metavar="PATH", help="export: the JSONL file; import: the new ledger")
    add("--where", metavar="TEXT", help="export: which cells, for example 'layer=20' (default: all)")
    add("--scores", type=Path, metavar="FILE", help='import: JSONL with {"id": …, "score": …} a line')
    add("--judge", metavar="NAME", help="import: who judged; kept in every record")
    add("--scale", metavar="LOW:HIGH", help="import: what a score may be (default: 0:10)")
    add("--json", action="store_true", help="print a JSON object, alone on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the texts of a ledger for a judge, or a ledger of the judge's scores.

    Args:
        args: as :func:`add_parser` defines them.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the ledgers, the task and the files raise it.
    """
    foreign = ("scores", "judge", "scale") if args.step == "export" else ("where",)
    for name in foreign:
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name} has no place in judge {args.step}.")
    told, text = _export(args) if args.step == "export" else _import(args)
    print(json.dumps(told) if args.json else text)
    return EXIT_OK


def _export(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from lm_eval_steer.files import write_text
    from lm_eval_steer.judging import export_rows
    from lm_eval_steer.sweep.ledger import Ledger

    ledger = Ledger.open(args.ledger, create=False, read_only=True)
    rows = export_rows(ledger, args.task, _prompts(ledger, args.task), args.where)
    write_text(args.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return {"out": str(args.out), "texts": len(rows)}, f"{args.out}: {len(rows)} texts"


def _import(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from lm_eval_steer.judging import import_scores, read_scores
    from lm_eval_steer.sweep.ledger import Ledger

    for name in ("scores", "judge"):
        if getattr(args, name) is None:
            raise ConfigError(f"judge import wants --{name}.")
    if (args.out / "ledger.json").exists():
        raise ConfigError(f"--out {args.out} is a ledger already; choose another folder.")
    scores = read_scores(args.scores, *_scale(args.scale or "0:10"))
    source = Ledger.open(args.ledger, create=False, read_only=True)
    judged = import_scores(source, Ledger(args.out.expanduser()), args.task, scores, args.judge)
    return {"out": str(args.out), **vars(judged)}, (
        f"{args.out}: {judged.cells} cells, {judged.items} items with a score in every cell\n"
        f"texts with an unparseable score: {judged.unparseable}, without a score: {judged.missing}; "
        f"scores of unknown texts: {judged.unknown}; items left out: {len(judged.left_out)}"
    )


def _prompts(ledger: Ledger, task: str) -> dict[int, str]:
    """Return what was asked in each document of a task, after a look that they are still the ledger's."""
    from lm_eval.utils import handle_non_serializable, hash_string

    from lm_eval_steer.evaluation import load_tasks

    loaded: Any = load_tasks([task], None, include_defaults=None)["tasks"][task]
    docs = [dict(doc) for doc in loaded.eval_docs]
    texts = [json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False) for doc in docs]
    hashes = [hash_string(text) for text in texts]
    for record in ledger.read_cells():
        if record.status != "ok":
            continue
        for row in ledger.read_samples(record.cell_id):
            if row["task"] == task and row["doc_hash"] not in hashes[row["doc_id"] : row["doc_id"] + 1]:
                raise DataError(f"document {row['doc_id']} of {task} is not the one that the ledger was made with.")
        break
    return {number: str(loaded.doc_to_text(doc)) for number, doc in enumerate(docs)}


def _scale(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        found = float(low), float(high)
    except ValueError:
        raise ConfigError(f"--scale {text!r}: write LOW:HIGH, two numbers, for example 0:10.") from None
    if not found[0] < found[1]:
        raise ConfigError(f"--scale {text!r}: LOW must be less than HIGH.")
    return found
