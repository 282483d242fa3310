"""``lm-eval-steer translate``: items into other languages, how they stand to their source, and whether they hold."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli import translate_check
from lm_eval_steer.cli.command import add_command
from lm_eval_steer.errors import EXIT_INCOMPLETE, EXIT_OK, ConfigError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.crosslingual.items import Items

_DESCRIPTION = """\
Translate the items of an A/B or choice task, and check what came of it.

without an action   translates a file of items into one file for each language, then checks and stamps it
status              says which rows of these files are there, missing, or made from a source that has changed since
check               checks translations, made here or elsewhere, against their source

A question and its options are translated apart; letters, placeholders, tags and line breaks are put back, never
translated. A run that was stopped goes on where it was; rows whose source has changed are made anew, others are kept.
Nothing is downloaded.
"""
_EPILOG = """\
back-ends:
  file    translations made elsewhere, --file: whole rows, or id, segment, translation, or source, translation
  hf      a translation model or a causal model of transformers, --model FOLDER
  argos   the argostranslate packages on this machine

examples:
  lm-eval-steer translate --items en.jsonl --target fr,de --backend hf --model DIR --out items --back-translate
  lm-eval-steer translate --items en.jsonl --target ja --backend file --file made/{lang}.csv --out items
  lm-eval-steer translate status --items en.jsonl --out items
  lm-eval-steer translate check items/fr.jsonl items/de.jsonl --items en.jsonl --strict --report report.md
"""
_STATUS = """\
Show how the translated files of a folder stand to their source, by the hash that each row carries of it. Exit code 4
where rows are missing or stale.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``translate`` to the command line."""
    parser = add_command(
        subparsers, "translate", "items into other languages, every translation checked", _DESCRIPTION, _EPILOG
    )
    add = parser.add_argument
    add("--items", type=Path, metavar="FILE", help="the source: .jsonl or .json")
    add("--source", default="en", metavar="LANG", help="language of the source; default: en")
    add("--target", metavar="A,B", help="languages wanted, such as fr,de,zh")
    add("--backend", metavar="NAME", help="file, hf or argos")
    add("--file", type=Path, metavar="FILE", help="of file: .jsonl, .json or .csv; {lang} stands for the language")
    add("--model", metavar="DIR", help="of hf: a folder, or a hub name that is in the local cache")
    add("--device", help="of hf: cpu, cuda, cuda:1; default: a GPU where there is one")
    add("--out", type=Path, metavar="DIR", help="where LANG.jsonl goes")
    add("--back-translate", action="store_true", help="translate back too, so that more checks can run")
    add("--batch-size", type=int, default=8, metavar="N", help="rows and texts at once; default: 8")
    add("--json", action="store_true", help="print a JSON object, alone on stdout")
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION")
    _add_status(actions)
    translate_check.add_parser(actions)


def run(args: argparse.Namespace) -> int:
    """Translate into every language asked for, then check and stamp each file.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the items, the back-end and the files raise it; what was done before is in the files.
    """
    from lm_eval_steer.crosslingual.backend import Settings, open_backend
    from lm_eval_steer.crosslingual.items import read_items
    from lm_eval_steer.crosslingual.review import review, write_review
    from lm_eval_steer.crosslingual.translation import translate_items

    for name in ("items", "target", "backend", "out"):
        if getattr(args, name) is None:
            raise ConfigError(f"translate wants --{name} (or an action: status, check).")
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size {args.batch_size}: at least 1.")
    source, wanted = read_items(args.items), _languages(args.target, args.source)
    backend = open_backend(args.backend, Settings(args.file, args.model, args.batch_size, args.device))
    tools, told, reviews = translate_check.open_tools([*wanted, args.source], None, None, None), {}, []
    for lang in wanted:
        path = out_path(source, args.out, args.source, lang)
        with _progress(lang) as progress:
            done = translate_items(
                source,
                path,
                args.source,
                lang,
                backend,
                batch_size=args.batch_size,
                back_translate=args.back_translate,
                progress=progress,
            )
        target = read_items(path)
        reviews.append(review(source, target, lang, tools))
        write_review(target, reviews[-1])
        told[lang] = {"file": str(path), **vars(done)}
    if args.json:
        print(json.dumps({"translated": told, "checked": [each.to_dict() for each in reviews]}, ensure_ascii=False))
        return EXIT_OK
    for lang, each in told.items():
        print(f"{lang}: {each['made']} new, {each['stale']} made anew, {each['kept']} kept: {each['file']}")
    translate_check.show(reviews)
    return EXIT_OK


def status(args: argparse.Namespace) -> int:
    """Show how translated files stand to their source.

    Returns:
        0; 4 where rows are missing or stale.

    Raises:
        SteerError: as the files raise it.
    """
    from lm_eval_steer.crosslingual.items import read_items
    from lm_eval_steer.crosslingual.translation import standing

    source = read_items(args.items)
    wanted = _languages(args.target, args.source) if args.target else _found(source, args.out, args.source)
    told: dict[str, dict[str, Any]] = {}
    for lang in wanted:
        path = out_path(source, args.out, args.source, lang)
        found = standing(source, path)
        lists = {name: list(getattr(found, name)) for name in ("missing", "stale", "unknown")}
        told[lang] = {"file": str(path), "rows": len(source.rows), "current": len(found.current), **lists}
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
    elif not told:
        print(f"{args.out}: no translation of {args.items} is there")
    for lang, each in told.items() if not args.json else ():
        counts = ", ".join(f"{len(each[name])} {name}" for name in ("missing", "stale", "unknown"))
        print(f"{lang}: {each['current']} of {each['rows']} rows current, {counts}: {each['file']}")
        for name in ("stale", "unknown"):
            print("".join(f"  {name} {row}\n" for row in each[name]), end="")
    return EXIT_INCOMPLETE if any(each["missing"] or each["stale"] for each in told.values()) else EXIT_OK


def out_path(source: Items, folder: Path, src: str, tgt: str) -> Path:
    """Return where a language's rows go: the source's name with the language changed, else ``LANG`` and its ending."""
    name = source.path.name
    rest = name.removeprefix(src) if name.startswith(f"{src}.") else source.path.suffix
    return folder.expanduser() / f"{tgt}{rest}"


def _add_status(actions: Subparsers) -> None:
    parser = actions.add_parser("status", help="how translated files stand to their source", description=_STATUS)
    add = parser.add_argument
    add("--items", type=Path, required=True, metavar="FILE", help="the source")
    add("--source", default="en", metavar="LANG", help="language of the source; default: en")
    add("--target", metavar="A,B", help="languages to look for; default: those that are there")
    add("--out", type=Path, required=True, metavar="DIR", help="where the translations are")
    add("--json", action="store_true", help="print a JSON object, alone on stdout")
    parser.set_defaults(run=status)


def _languages(text: str, src: str) -> list[str]:
    from lm_eval_steer.crosslingual.items import is_tag

    found = list(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))
    if not found or src in found:
        raise ConfigError(f"--target {text!r}: name languages other than the source {src}, joined by commas.")
    for tag in (*found, src):
        if not is_tag(tag):
            raise ConfigError(f"{tag!r} is no language tag. Write it as fr, de or zh-Hant.")
    return found


def _found(source: Items, folder: Path, src: str) -> list[str]:
    """Return the languages whose files are in a folder."""
    from lm_eval_steer.crosslingual.items import is_tag

    rest = out_path(source, folder, src, "").name
    names = sorted(path.name.removesuffix(rest) for path in folder.expanduser().glob(f"*{rest}"))
    return [name for name in names if is_tag(name) and name != src]


@contextmanager
def _progress(lang: str) -> Iterator[Callable[[int, int], None]]:
    """Give a callback of rows done and rows to do: a bar in a terminal, a line now and then in a log; on stderr."""
    if not sys.stderr.isatty():
        import time

        from lm_eval_steer.cli.progress import Pace

        pace = Pace(time.monotonic)

        def line(done: int, total: int) -> None:
            if total and (left := pace.line(done, total)) is not None:
                print(f"{lang}: {done} of {total} rows translated{left}", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(f"translating to {lang}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
