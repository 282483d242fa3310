"""``lm-eval-steer cells``: the cells of a ledger with their labels and metrics, chosen and grouped."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.errors import EXIT_INPUT, EXIT_OK

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.sweep.records import CellRecord, Label

_DESCRIPTION = """\
List the cells of a ledger: what was applied, and lm-eval's metrics. Labels that are the same in all of them are left
out. Nothing is changed. Exit code 3 where something is damaged; the rest is listed.
"""
_EXAMPLES = """\
examples:
  lm-eval-steer cells sweep-1
  lm-eval-steer cells sweep-1 --where "layer in 10-14, control=none" --group-by vector
  lm-eval-steer cells sweep-1 --where "multiplier>0" --json | jq '.[].tasks'

comparisons, joined by commas: = != < <= > >= and in (10-14, or a;b;c); none stands for an absent label
"""
# What tells cells apart, as a reader looks for it; those in _ALWAYS are shown even where they are all the same.
_ORDER = ("system_prompt", "vector", "control", "layer", "site", "scope", "operation", "normalize", "multiplier")
_ALWAYS = ("vector", "layer", "multiplier")


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``cells`` to the command line."""
    parser = add_command(subparsers, "cells", "list a ledger's cells with their metrics", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("ledger", metavar="LEDGER", help="the folder of a sweep")
    parser.add_argument("--where", metavar="TEXT", help="which cells, for example 'layer=20, multiplier>0'")
    parser.add_argument("--group-by", metavar="LABELS", help="one table a group: labels joined by commas")
    parser.add_argument("--json", action="store_true", help="print records (groups of them) as JSON, alone on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List the cells.

    Returns:
        0; 3 where a record is damaged.

    Raises:
        ConfigError: ``--where`` or ``--group-by`` cannot be read, or names a label that no record has.
        InputError: the folder is no ledger.
    """
    from lm_eval_steer.sweep.ledger import Ledger

    ledger = Ledger.open(args.ledger, create=False, read_only=True)
    records = ledger.read_cells(args.where)
    groups = grouped(records, args.group_by)
    if args.json:
        rows = [{"group": names, "cells": [r.to_dict() for r in members]} for names, members in groups]
        value = rows if args.group_by else [record.to_dict() for record in records]
        print(json.dumps(value, ensure_ascii=False, allow_nan=False))
    else:
        for names, members in groups:
            print_cells(members, ", ".join(f"{key}={show(value)}" for key, value in names.items()))
    return EXIT_INPUT if ledger.problems else EXIT_OK


def grouped(records: Sequence[CellRecord], keys: str | None) -> list[tuple[dict[str, Label], list[CellRecord]]]:
    """Return records by their values of ``keys``, labels joined by commas; one group of all for None.

    Raises:
        ConfigError: a key that no record has as a label.
    """
    from lm_eval_steer.sweep.where import group

    names = [key.strip() for key in (keys or "").split(",") if key.strip()]
    return [(dict(zip(names, values, strict=True)), members) for values, members in group(records, names).items()] or [
        ({}, [])
    ]


def print_cells(records: Sequence[CellRecord], title: str = "") -> None:
    """Print a table of cells: the labels that tell them apart, and every metric."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lm_eval_steer.names import printable

    labels, metrics = label_columns(records), metric_columns(records)
    table = Table(title=Text(printable(title)) if title else None)
    for name in ("cell", *labels, *(f"{task} {metric}" for task, metric in metrics)):
        table.add_column(Text(printable("λ" if name == "multiplier" else name)), overflow="fold")
    for record in records:
        values = [record.tasks.get(task, {}).get("metrics", {}).get(metric) for task, metric in metrics]
        row = [record.cell_id[:8], *(show(record.labels.get(name), "") for name in labels)]
        row += [record.status if value is None else f"{value:.4f}" for value in values]
        table.add_row(*(Text(printable(text)) for text in row))
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


def label_columns(records: Sequence[CellRecord]) -> list[str]:
    """Return the labels to show: vector, layer and multiplier, and those that are not the same in all steered cells."""
    steered = [record for record in records if record.plan.get("placements")] or records
    names = {name for record in records for name in record.labels}
    shown = {name for name in names if name in _ALWAYS or len({record.labels.get(name) for record in steered}) > 1}
    return [*(name for name in _ORDER if name in shown), *sorted(shown - set(_ORDER))]


def metric_columns(records: Sequence[CellRecord]) -> list[tuple[str, str]]:
    """Return the (task, metric) pairs that any record has, in their order."""
    pairs = [(task, metric) for record in records for task in record.tasks for metric in record.tasks[task]["metrics"]]
    return list(dict.fromkeys(pairs))


def show(value: Any, absent: str = "none") -> str:
    """Return a label as text."""
    if value is None:
        return absent
    return f"{value:g}" if isinstance(value, float) else str(value)
