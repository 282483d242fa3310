"""``lm-eval-steer status``, ``cells``, ``prune`` and ``note``: looking after the folder that a sweep leaves."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli import cells
from lm_eval_steer.cli.command import add_command
from lm_eval_steer.errors import EXIT_INCOMPLETE, EXIT_INPUT, EXIT_OK

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.sweep.ledger import Ledger
    from lm_eval_steer.sweep.status import LedgerStatus

_STATUS = """\
Show how far a ledger is: cells done of those expected, blocks, who works on it, and what in it is damaged. Nothing is
changed. Exit code 4 where cells are missing, 3 where something is damaged. --where and --group-by count cells that are
there; what is missing has no labels yet.
"""
_PRUNE = """\
Remove cells that --where chooses, or all blocks (which a finished sweep needs no more). Without --yes it says what
would go and removes nothing.
"""
_NOTE = """\
Write a note into a cell's record; tables can show it. An empty text takes it off.
"""
_EXAMPLES = {
    "status": """\
examples:
  lm-eval-steer status sweep-1
  lm-eval-steer status sweep-1 --json | jq .missing
  lm-eval-steer status sweep-1 --where "multiplier>0" --group-by vector,layer
""",
    "prune": """\
examples:
  lm-eval-steer prune sweep-1 --blocks --yes
  lm-eval-steer prune sweep-1 --where "layer in 0-4, control!=random"
""",
    "note": """\
examples:
  lm-eval-steer note sweep-1 3f2a "the one in the figure"
""",
}


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommands ``status``, ``cells``, ``prune`` and ``note`` to the command line."""
    status = _add(subparsers, "status", "show how far a sweep's ledger is", _STATUS)
    status.add_argument("--where", metavar="TEXT", help="count the cells of which this holds, 'layer=20, multiplier>0'")
    status.add_argument("--group-by", metavar="LABELS", help="count cells by these labels, joined by commas")
    status.add_argument("--json", action="store_true", help="print a JSON object, alone on stdout")
    status.set_defaults(run=run_status)

    cells.add_parser(subparsers)

    prune = _add(subparsers, "prune", "remove cells or blocks from a ledger", _PRUNE)
    prune.add_argument("--where", metavar="TEXT", help="which cells, for example 'layer=20, multiplier>0'")
    prune.add_argument("--blocks", action="store_true", help="remove all blocks")
    prune.add_argument("--yes", action="store_true", help="remove; without it, only say what would go")
    prune.add_argument("--json", action="store_true", help="print a JSON object, alone on stdout")
    prune.set_defaults(run=run_prune)

    note = _add(subparsers, "note", "write a note into a cell's record", _NOTE)
    note.add_argument("cell", metavar="CELL", help="the cell's id, or the beginning of it")
    note.add_argument("text", metavar="TEXT", help="the note")
    note.set_defaults(run=run_note)


def run_status(args: argparse.Namespace) -> int:
    """Show a ledger's status.

    Returns:
        0; 3 where something is damaged, 4 where cells are missing.

    Raises:
        ConfigError: ``--where`` or ``--group-by`` cannot be read, or names a label that no record has.
        InputError: the folder is no ledger.
    """
    from lm_eval_steer.names import printable
    from lm_eval_steer.sweep.ledger import Ledger

    ledger = Ledger.open(args.ledger, create=False, read_only=True)
    status = ledger.status()
    counts = _counts(ledger, args) if args.where or args.group_by else None
    if args.json:
        value = {**vars(status), "problems": [vars(problem) for problem in status.problems]}
        print(json.dumps(value if counts is None else {**value, "counts": counts}))
    else:
        _show(status)
        for row in counts or ():
            names = ", ".join(f"{key}={printable(cells.show(label))}" for key, label in row["group"].items())
            print(
                f"chosen   {row['cells']} cells, {row['non_finite']} without numbers" + (f": {names}" if names else "")
            )
    if status.problems:
        return EXIT_INPUT
    return EXIT_INCOMPLETE if status.missing else EXIT_OK


def _counts(ledger: Ledger, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return how many cells ``--where`` chooses, by ``--group-by``."""
    return [
        {"group": names, "cells": len(found), "non_finite": sum(record.status == "non_finite" for record in found)}
        for names, found in cells.grouped(ledger.read_cells(args.where), args.group_by)
    ]


def run_prune(args: argparse.Namespace) -> int:
    """Remove cells or blocks, or say which would be removed.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the ledger and ``--where`` raise it.
    """
    from lm_eval_steer.sweep.ledger import Ledger

    ledger = Ledger.open(args.ledger, create=False, read_only=not args.yes)
    pruned = ledger.prune(args.where, blocks=args.blocks, dry_run=not args.yes)
    if args.json:
        print(json.dumps({**vars(pruned), "removed": args.yes}))
    else:
        for cell in pruned.cells:
            print(f"cell {cell}")
        done = "removed" if args.yes else "would remove"
        print(f"{done} {len(pruned.cells)} cells and {len(pruned.blocks)} blocks, {_size(pruned.bytes)}")
    if not args.yes:
        print("nothing was removed; say --yes to do it", file=sys.stderr)
    return EXIT_OK


def run_note(args: argparse.Namespace) -> int:
    """Write a note and print the cell's whole id.

    Returns:
        The exit code 0.

    Raises:
        InputError: no cell, or several, begin so.
        WriteError: the record cannot be written.
    """
    from lm_eval_steer.sweep.ledger import Ledger

    print(Ledger.open(args.ledger, create=False).note(args.cell, args.text).cell_id)
    return EXIT_OK


def _add(subparsers: Subparsers, name: str, brief: str, description: str) -> argparse.ArgumentParser:
    parser = add_command(subparsers, name, brief, description, _EXAMPLES[name])
    parser.add_argument("ledger", metavar="LEDGER", help="the folder of a sweep")
    return parser


def _show(status: LedgerStatus) -> None:
    from lm_eval_steer.names import printable

    known = status.expected is not None
    print(f"cells    {status.cells}" + (f", {status.missing} of {status.expected} expected missing" if known else ""))
    if status.non_finite:
        print(f"         {status.non_finite} without numbers (non-finite logits)")
    print(f"blocks   {status.blocks}")
    print(f"claims   {status.claims_alive} alive, {status.claims_dead} dead (taken over by the next sweep)")
    print(f"size     {_size(status.bytes)}")
    for problem in status.problems:
        print(f"damaged  {printable(str(problem))}")


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
