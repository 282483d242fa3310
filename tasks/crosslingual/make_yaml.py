"""Writes the task and group files: ``python tasks/crosslingual/make_yaml.py``. Running it again changes nothing.

One small file for each family, language and scaffold, which includes the template of its kind, and two groups a family.
Languages are those that have a data file. For a family of your own, with files ``DIR/NAME/LANG.jsonl``::

    python make_yaml.py --family NAME --kind text --data DIR --out OUT
    lm_eval --include_path OUT --tasks xl_NAME_multilingual ...
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.files import write_text
from lm_eval_steer.machiavelli.scores import LETTER_METRICS as SCENE_METRICS
from lm_eval_steer.parallel_rows import MACHIAVELLI, TEXT_FAMILIES, languages
from lm_eval_steer.scaffold import ENGLISH, NATIVE, Scaffold
from lm_eval_steer.scoring import LETTER_METRICS, TEXT_METRICS

HERE = Path(__file__).resolve().parent
HEADER = "# Written by make_yaml.py; change that file or the template.\n"
VERSION = 1.0
FAMILIES = ("positivity", "patience", "agreement", "caution", MACHIAVELLI)

#: Kind → what its group averages over languages.
METRICS: Mapping[str, Sequence[str]] = {
    "text": list(TEXT_METRICS),
    "letters": list(LETTER_METRICS),
    # The scores that every language has; single violations may be in few of the states.
    "machiavelli": [name for name in SCENE_METRICS if not name.startswith(("v_", "power_", "tradeoff"))],
}


def kind_of(family: str) -> str:
    """Return the kind of a packaged family."""
    if family == MACHIAVELLI:
        return "machiavelli"
    return "text" if family in TEXT_FAMILIES else "letters"


def task_name(family: str, lang: str, scaffold: str) -> str:
    """Return a task's name: ``xl_FAMILY_LANG``, with ``_native`` for the native scaffold."""
    return f"xl_{family}_{lang}" + ("_native" if scaffold == "native" else "")


def task_file(family: str, lang: str, scaffold: str, kind: str, data: Path | None) -> str:
    """Return the YAML of one task."""
    words = NATIVE[lang] if scaffold == "native" else ENGLISH
    folder = "" if data is None else f"dataset_kwargs:\n  data: {json.dumps(str(data))}\n"
    return (
        f"{HEADER}include: _{kind}_yaml\ntask: {task_name(family, lang, scaffold)}\n{folder}{_prompt(words, kind)}"
        f"metadata:\n  version: {VERSION}\n  family: {_word(family)}\n  lang: {_word(lang)}\n  scaffold: {scaffold}\n"
    )


def _prompt(words: Scaffold, kind: str) -> str:
    if kind == "text":
        return f"doc_to_text: {_quoted(words.text_prompt)}\n"
    prompt = words.scene_prompt if kind == "machiavelli" else words.letter_prompt
    return f"doc_to_text: {_quoted(prompt)}\ngen_prefix: {_quoted(words.lead)}\n"


def _word(text: str) -> str:
    """Return a word of the YAML, quoted where it would be something else, as the language ``no`` is false."""
    return text if yaml.safe_load(text) == text else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def group_file(group: str, names: Sequence[str], kind: str) -> str:
    """Return the YAML of a group, whose aggregate gives every language the same weight."""
    tasks = "".join(f"  - {name}\n" for name in names)
    entries = "".join(
        f"  - metric: {metric}\n    aggregation: mean\n    weight_by_size: false\n" for metric in METRICS[kind]
    )
    return f"{HEADER}group: {group}\ntask:\n{tasks}aggregate_metric_list:\n{entries}metadata:\n  version: {VERSION}\n"


def family_files(family: str, kind: str, data: Path | None = None) -> dict[str, str]:
    """Return every file's name and text of one family.

    English has one task, which is in both groups. A language without words of its own in
    :mod:`lm_eval_steer.scaffold` has the English scaffold only.
    """
    made: dict[str, str] = {}
    found = languages(family, data or HERE / "data")
    for suffix, scaffold in (("", "english"), ("_native", "native")):
        chosen = [(lang, "english" if lang == "en" else scaffold) for lang in found]
        chosen = [(lang, each) for lang, each in chosen if each == "english" or lang in NATIVE]
        names = [task_name(family, lang, each) for lang, each in chosen]
        for name, (lang, each) in zip(names, chosen, strict=True):
            made[f"{name}.yaml"] = task_file(family, lang, each, kind, data)
        group = f"xl_{family}_multilingual{suffix}"
        if names:
            made[f"{group}.yaml"] = group_file(group, names, kind)
    return made


def files() -> dict[str, str]:
    """Return every packaged file's name and text."""
    return {name: text for family in FAMILIES for name, text in family_files(family, kind_of(family)).items()}


def own_family(family: str, kind: str, data: Path, out: Path) -> list[str]:
    """Write the tasks of a family of the user's, with their template, and return the tasks' and groups' names.

    Raises:
        ConfigError: the name cannot be part of a task's, or there is no file.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", family):
        raise ConfigError(f"--family {family!r}: wants small letters, digits and underscores, such as my_family.")
    made = family_files(family, kind, data.resolve())
    if not made:
        raise ConfigError(f"no file {data / family}/LANG.jsonl, so there is no task to write.")
    out.mkdir(parents=True, exist_ok=True)
    for name in ("utils.py", f"_{kind}_yaml"):
        shutil.copyfile(HERE / name, out / name)
    for name, text in made.items():
        write_text(out / name, text)
    return [name.removesuffix(".yaml") for name in made]


def main(argv: Sequence[str] | None = None) -> None:
    """Write the packaged files beside this script, or those of one family of the user's."""
    parser = argparse.ArgumentParser(description="Write the YAML files of the crosslingual tasks.")
    parser.add_argument("--family", help="a family of your own; default: all packaged ones")
    parser.add_argument("--kind", choices=["text", "letters"], default="letters", help="default: %(default)s")
    parser.add_argument("--data", type=Path, help="the folder that has FAMILY/LANG.jsonl")
    parser.add_argument("--out", type=Path, help="the folder to write to")
    args = parser.parse_args(argv)
    if args.family is None:
        for name, text in files().items():
            write_text(HERE / name, text)
        return
    if args.data is None or args.out is None:
        parser.error("--family wants --data and --out")
    print("\n".join(own_family(args.family, args.kind, args.data, args.out)))  # noqa: T201


if __name__ == "__main__":
    main()
