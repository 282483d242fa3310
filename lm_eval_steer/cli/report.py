"""``lm-eval-steer report``: everything that a sweep says, as one HTML page and as pictures."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.cli.language_flags import add_language_flags
from lm_eval_steer.errors import EXIT_OK

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.report.page import Report

_DESCRIPTION = """\
Write a report of one or many sweeps: one HTML file that needs nothing else. It opens in any browser, by mail or from a
disk, in light and dark, and prints. No model is loaded and no script is in it.

What it holds: a verdict on every vector (it beats random directions, it does not, or nobody knows), the comparison
table, effect against multiplier with intervals and the band of random directions, layer × multiplier, selectivity and
transfer, benefit against damage, every single item, where each vector and number comes from, and what each number
means. What a ledger cannot say (no random directions, no capability task) the report says it cannot.

The same ledger gives the same bytes: a report can be committed and compared.
"""
_EPILOG = """\
examples:
  lm-eval-steer report my_sweep --out report.html
  lm-eval-steer report sweep-1 sweep-2 --out report.html --figures figures
  lm-eval-steer report my_sweep --out late.html --where "layer in 15-25, scope=all"
  lm-eval-steer report my_sweep --out report.html --group-by scope
  lm-eval-steer inspect V --pretrained DIR --json > inside.json
  lm-eval-steer report my_sweep --out report.html --inspect inside.json

Pictures as PNG need matplotlib: pip install "lm-eval-steer[plots]". The page itself does not.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``report`` to the command line."""
    parser = add_command(subparsers, "report", "write what sweeps found as one HTML page", _DESCRIPTION, _EPILOG)
    parser.add_argument("ledgers", metavar="LEDGER", nargs="+", help="the folder of a sweep")
    parser.add_argument("--out", metavar="FILE", required=True, help="the HTML file")
    parser.add_argument("--figures", metavar="DIR", help="write every picture there too, as SVG and PNG")
    parser.add_argument("--where", metavar="EXPR", help="which cells, for example 'layer in 10-20, multiplier>0'")
    parser.add_argument("--group-by", metavar="LABEL", help="a part for each value of a label; several with commas")
    parser.add_argument(
        "--inspect", metavar="FILE", nargs="+", default=[], help="show what inspect --json wrote about vectors, too"
    )
    add_language_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report, and the pictures where they are asked for.

    Returns:
        The exit code 0.

    Raises:
        ConfigError: ``--where``, ``--group-by`` or ``--family`` names what there is not.
        InputError: a folder is no ledger, or is damaged; a file is no alignment or no inspection.
        MissingExtraError: ``--figures`` without matplotlib; nothing is written.
        WriteError: a file cannot be written.
    """
    from lm_eval_steer.files import write_text
    from lm_eval_steer.report.page import to_html
    from lm_eval_steer.report.read import read_report

    labels = [label.strip() for label in (args.group_by or "").split(",") if label.strip()]
    report = read_report(args.ledgers, args.where, labels, args.family, args.alignment, args.inspect)
    if args.figures is not None:
        _write_figures(report, args.figures)
    write_text(args.out, to_html(report))
    print(f"wrote {args.out}", file=sys.stderr)
    return EXIT_OK


def _write_figures(report: Report, folder: str) -> None:
    from pathlib import Path

    from lm_eval_steer.files import atomic_write

    count = 0
    for picture in report.pictures:
        for name, data in picture.files().items():
            with atomic_write(Path(folder) / name, "wb") as handle:
                handle.write(data)
            count += 1
    print(f"wrote {count} files to {folder}", file=sys.stderr)
