"""Language flags: what compare and report are told about tasks in several languages, in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_language_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--family`` and ``--alignment``, each of which can be given several times."""
    add = parser.add_argument
    add(
        "--family",
        metavar="NAME:LANG=TASK,...",
        action="append",
        default=[],
        help="tasks that are one task in several languages, such as xnli:en=xnli_en,fr=xnli_fr; "
        "those of the xl_ families say so themselves",
    )
    add(
        "--alignment",
        metavar="FILE",
        action="append",
        default=[],
        help="what lm-eval-steer align wrote: shown beside transfer between languages",
    )
