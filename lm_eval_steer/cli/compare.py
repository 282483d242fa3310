"""``lm-eval-steer compare``: the vectors of one or many ledgers in one table, with nulls beside them."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.cli.language_flags import add_language_flags
from lm_eval_steer.errors import EXIT_OK, InputError
from lm_eval_steer.table.columns import COLUMNS
from lm_eval_steer.table.fields import SORT_KEYS, check_sort_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.stats.curve import Curve
    from lm_eval_steer.sweep.ledger import Ledger
    from lm_eval_steer.table.make import Table

FORMATS = ("table", "md", "csv", "json", "tex")

_DESCRIPTION = """\
Compare vectors: a leaderboard from one or many sweeps, with the nulls beside it. No model is loaded.

One row a vector, task, scope and operation. Its layer and multiplier are chosen on one half of the items, and E is
measured on the other half. Vectors that cannot be told apart share a rank. What differs in task version, data, prompts
or model stands apart and is not ranked together. The first run on a ledger computes its statistics and keeps them
there; the next one takes under a second.

Where tasks of one family were run in two languages or more, tables of transfer between languages follow.
"""

_EXAMPLES = """
examples:
  lm-eval-steer compare my_sweep
  lm-eval-steer compare sweep-1 sweep-2 --format md --out leaderboard.md
  lm-eval-steer compare my_sweep --where "scope=all, layer in 10-20" --sort p_null
  lm-eval-steer compare my_sweep --all --group-by layer --format csv > rows.csv
  lm-eval-steer compare multilingual_sweep --alignment alignment.json
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand to the command line."""
    width = max(len(column.title) for column in COLUMNS.values())
    legend = "".join(f"  {column.title:<{width}}  {column.about}\n" for column in COLUMNS.values())
    parser = add_command(
        subparsers,
        "compare",
        "compare the vectors of sweeps in one table",
        _DESCRIPTION,
        f"columns:\n{legend}{_EXAMPLES}",
    )
    parser.add_argument("ledgers", metavar="LEDGER", nargs="+", help="the folder of a sweep")
    parser.add_argument("--format", choices=FORMATS, default="table", help="how it is written (default: table)")
    parser.add_argument("--sort", metavar="KEY", default="E", help=f"order of the rows: {', '.join(SORT_KEYS)}")
    parser.add_argument("--where", metavar="EXPR", help="which cells, for example 'layer in 10-20, multiplier>0'")
    parser.add_argument("--group-by", metavar="LABEL", help="rank each value of a label apart; several with commas")
    parser.add_argument("--all", action="store_true", help="a row for every layer, not only the best one")
    add_language_flags(parser)
    parser.add_argument("--out", metavar="FILE", help="write it there instead of to stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the table and print or write it; damaged cells are named on stderr.

    Returns:
        The exit code 0.

    Raises:
        ConfigError: ``--sort``, ``--where`` or ``--group-by`` names what there is not.
        InputError: a folder is no ledger, or there is nothing to compare.
        WriteError: ``--out`` cannot be written.
    """
    check_sort_key(args.sort)
    from lm_eval_steer.sweep.ledger import Ledger
    from lm_eval_steer.table.cross_lingual import with_cross_lingual
    from lm_eval_steer.table.make import make_table
    from lm_eval_steer.table.read import read_cross_lingual, read_curves

    ledgers = [Ledger.open(path, create=False, read_only=True) for path in args.ledgers]
    curves = read_curves(ledgers, args.where)
    _report_problems(ledgers)
    labels = [label.strip() for label in (args.group_by or "").split(",") if label.strip()]
    table = make_table(curves, sort=args.sort, per="curve" if args.all else "vector", group_by=labels)
    _check_rows(table, curves, args)
    found = read_cross_lingual(ledgers, curves, args.family, args.alignment)
    _write(table, lambda text: with_cross_lingual(text, found, args.format), args)
    return EXIT_OK


def _check_rows(table: Table, curves: Sequence[Curve], args: argparse.Namespace) -> None:
    if not table.rankings:
        chosen = f" that --where {args.where!r} chooses" if args.where else ""
        raise InputError(
            f"nothing to compare: no vector among the {len(curves)} curves{chosen} in {', '.join(args.ledgers)}. "
            "lm-eval-steer status LEDGER says what is there."
        )


def _report_problems(ledgers: Sequence[Ledger]) -> None:
    from lm_eval_steer.names import printable

    for problem in dict.fromkeys(problem for ledger in ledgers for problem in ledger.problems):
        print(f"damaged and left out: {printable(str(problem))}", file=sys.stderr)


def _write(table: Table, more: Callable[[str], str], args: argparse.Namespace) -> None:
    import shutil

    from lm_eval_steer.files import write_text
    from lm_eval_steer.table.render import render

    if args.out is not None:
        write_text(args.out, more(render(table, args.format)))
        print(f"wrote {args.out}", file=sys.stderr)
        return
    if args.format == "table" and sys.stdout.isatty():
        from lm_eval_steer.table.terminal import to_terminal

        print(more(to_terminal(table, shutil.get_terminal_size().columns)), end="")
        return
    print(more(render(table, args.format)), end="")
