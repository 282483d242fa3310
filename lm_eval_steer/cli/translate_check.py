"""``lm-eval-steer translate check``: the flags of the command, what it does, and the table it shows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.errors import EXIT_INPUT, EXIT_OK, ConfigError, MissingExtraError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.crosslingual.review import Review, Tools

_DESCRIPTION = """\
Check translations against their source. Ids, their order, labels, letters and the number of choices must be the
source's; a file where they are not is refused. Each row is then looked at for its language, script, length, numbers,
placeholders, lost endings, choices that have become alike, and by its back-translation where it has one. A row fails,
is flagged, or passes; a check that has nothing to go by is counted as not run, never as passed.

The source of DIR/fr.jsonl is DIR/en.jsonl, unless --items names another. The source itself can be checked too.
"""
_EPILOG = """\
examples:
  lm-eval-steer translate check items/*.jsonl --strict
  lm-eval-steer translate check items/fr.jsonl --thresholds mine.yaml --report report.md
  lm-eval-steer translate check items/fr.jsonl --write        stamps qc, qc_status and provenance into the rows
"""


def add_parser(actions: Subparsers) -> None:
    """Add the action ``check`` to the command line."""
    parser = add_command(actions, "check", "check translations against their source", _DESCRIPTION, _EPILOG)
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="translations, named after their language")
    add("--items", type=Path, metavar="FILE", help="the source of all of them")
    add("--source", default="en", metavar="LANG", help="language of the source; default: en")
    add("--thresholds", type=Path, metavar="FILE", help="YAML with numbers other than the packaged ones")
    add("--identifier", metavar="NAME", help="py3langid or lingua; default: py3langid where it is installed")
    add("--quality", type=Path, metavar="DIR", help="a local quality estimation model; no check without one")
    add("--strict", action="store_true", help="exit code 3 where a row fails")
    add("--write", action="store_true", help="stamp verdict and provenance into the rows")
    add("--report", type=Path, metavar="FILE", help="write a Markdown report")
    add("--json", action="store_true", help="print a JSON list, alone on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check every file, then write what is to be written.

    Returns:
        0; 3 under ``--strict`` where a row fails.

    Raises:
        SteerError: as the files and the thresholds raise it.
    """
    from lm_eval_steer.crosslingual.items import language_of, read_items
    from lm_eval_steer.crosslingual.review import markdown, review, write_review
    from lm_eval_steer.files import write_text

    targets = [read_items(path) for path in args.files]
    languages = [language_of(target.path, target.rows) for target in targets]
    tools = open_tools([*languages, args.source], args.thresholds, args.identifier, args.quality)
    reviews = []
    for target, lang in zip(targets, languages, strict=True):
        source = target if lang == args.source else read_items(_source(target.path, lang, args))
        reviews.append(review(source, target, lang, tools, is_source=source is target))
    if args.write:
        for target, found in zip(targets, reviews, strict=True):
            write_review(target, found)
    if args.report is not None:
        write_text(args.report, markdown(reviews))
    if args.json:
        print(json.dumps([found.to_dict() for found in reviews], ensure_ascii=False))
    else:
        show(reviews)
    return EXIT_INPUT if args.strict and any(found.count("fail") for found in reviews) else EXIT_OK


def open_tools(
    languages: Sequence[str], thresholds: Path | None, identifier: str | None, quality: Path | None
) -> Tools:
    """Return what checks go by, with a language identifier for these languages and the usual candidates.

    Raises:
        ConfigError: the thresholds, the identifier's name or the quality model are wrong.
        MissingExtraError: the identifier that was asked for is not installed; the default one may be missing.
    """
    from lm_eval_steer.crosslingual.identifier import open_identifier
    from lm_eval_steer.crosslingual.items import base
    from lm_eval_steer.crosslingual.quality_model import load_quality
    from lm_eval_steer.crosslingual.review import Tools
    from lm_eval_steer.crosslingual.thresholds import read_thresholds

    limits = read_thresholds(thresholds)
    score = None if quality is None else load_quality(quality)
    candidates = {*map(base, languages), *limits.defaults.candidates}
    try:
        known, probabilities = open_identifier(identifier or "py3langid", candidates)
    except MissingExtraError:
        if identifier is not None:
            raise
        return Tools(limits, quality=score)
    return Tools(limits, known, probabilities, score)


def show(reviews: Sequence[Review]) -> None:
    """Print counts by file, the checks that were not passed by all, and every row that fails."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lm_eval_steer.crosslingual.review import why
    from lm_eval_steer.crosslingual.verdict import STATUSES

    table = Table(title="translations checked")
    for heading in ("file", "language", "rows", *STATUSES):
        table.add_column(heading, justify="left" if heading in ("file", "language") else "right", overflow="fold")
    for each in reviews:
        counts = [str(each.count(status)) for status in STATUSES]
        table.add_row(Text(f"{each.path.parent.name}/{each.path.name}"), each.lang, str(len(each.verdicts)), *counts)
    console = Console()
    console.print(table)
    for each in reviews:
        reasons = each.reasons().items()
        said = ", ".join(f"{name} {count} {status}" for name, by in reasons for status, count in by.items())
        line = f"{each.path.parent.name}/{each.path.name}: {said or 'every check passed'}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        for verdict in each.verdicts:
            if verdict.status == "fail":
                line = f"  fail {verdict.id}: {why(verdict)}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)


def _source(path: Path, lang: str, args: argparse.Namespace) -> Path:
    """Return the source of a file: ``--items``, or the file beside it that is named after the source's language."""
    if args.items is not None:
        return Path(args.items)
    name = path.name
    beside = path.with_name(args.source + name.removeprefix(lang)) if name.startswith(f"{lang}.") else path
    if beside == path or not beside.is_file():
        raise ConfigError(f"{path}: no source {args.source}.* beside it. Name it with --items FILE.")
    return beside
