"""ParallelRow: one item in one language, beside the same item in others.

The files are ``<folder>/<family>/<lang>.jsonl``. A row of any language is matched with the others by its ``id``::

    {"id", "split", "question", "matching", "other"}                  stem and options apart, no letters
    {"id", "split", "question", "positive", "negative"}               the same under other names
    {"id", "split", "question", "answer_matching_behavior", ...}      CAA's, options inside the question

Other keys (``lang``, ``src_doc_id``, ``translator``, ``bt_text``, ``qc``, ``source_hash``) are passed over, but for
``qc_status``: a row whose translation failed its checks (``fail``) is left out, ``pass``, ``flag`` and ``waived`` stay.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval_steer.caa import parse_ab_item
from lm_eval_steer.errors import ConfigError, DataError, InputError
from lm_eval_steer.files import sha256_file
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.suggest import choice_message

#: The environment variable that names a folder of the user's own translations.
FOLDER_VARIABLE = "CROSSLINGUAL_DATA_DIR"
SPLITS = ("train", "test")
#: The packaged families whose answers are texts; all others show their options.
TEXT_FAMILIES = ("positivity",)
MACHIAVELLI = "machiavelli"
#: Families whose folder has another name.
_FOLDERS = {MACHIAVELLI: "machiavelli_demo"}
_FAIL = "fail"
_PAIRS = (("matching", "other"), ("positive", "negative"))
_CAA_KEY = "answer_matching_behavior"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParallelRow:
    """One item: a question, the option that shows the behaviour, and the other one."""

    id: str
    split: str
    question: str
    matching: str
    other: str


@dataclass(frozen=True)
class LanguageFile:
    """One family in one language.

    Attributes:
        family: its name.
        lang: BCP-47, such as ``fr``.
        path: of the file.
        sha256: of its bytes.
        raw: the JSON objects in the file's order, without those whose translation failed.
        failed: ids of the rows left out for that.
    """

    family: str
    lang: str
    path: Path
    sha256: str
    raw: tuple[Mapping[str, Any], ...]
    failed: tuple[str, ...]

    @cached_property
    def rows(self) -> tuple[ParallelRow, ...]:
        """The rows as A/B items.

        Raises:
            DataError: a row is malformed.
        """
        return tuple(_row(each, f"{self.path}, id {each['id']!r}") for each in self.raw)


def family_folder(family: str, folder: Path | str | None = None) -> Path:
    """Return the folder of a family's language files.

    Args:
        family: its name; ``machiavelli`` is the folder ``machiavelli_demo``.
        folder: the folder of families; None takes :data:`FOLDER_VARIABLE` where it is set and has the family, else the
            packaged data.
    """
    name = _FOLDERS.get(family, family)
    if folder is not None:
        return Path(folder).expanduser() / name
    own = os.environ.get(FOLDER_VARIABLE)
    if own and (Path(own).expanduser() / name).is_dir():
        return Path(own).expanduser() / name
    return tasks_dir() / "crosslingual" / "data" / name


def languages(family: str, folder: Path | str | None = None) -> list[str]:
    """Return the languages that a family has its files in: English first, the others by name."""
    place = family_folder(family, folder)
    found = {path.stem for path in place.glob("*.jsonl")}
    if family == MACHIAVELLI:
        found = {lang for lang in found if (place / f"{lang}.games.json").is_file()}
    return sorted(found, key=lambda lang: (lang != "en", lang))


def families() -> list[str]:
    """Return the A/B families that are packaged or in the user's own folder."""
    roots = [tasks_dir() / "crosslingual" / "data"]
    if own := os.environ.get(FOLDER_VARIABLE):
        roots.append(Path(own).expanduser())
    names = {path.parent.name for root in roots for path in root.glob("*/*.jsonl")}
    return sorted(names - set(_FOLDERS.values()))


def read_language(family: str, lang: str, folder: Path | str | None = None) -> LanguageFile:
    """Return the rows of one family in one language.

    Args:
        family: its name.
        lang: the file's name without ``.jsonl``.
        folder: as in :func:`family_folder`.

    Raises:
        ConfigError: the family has no such language.
        DataError: the file is no JSON lines, has no row left, or an id or a split is missing or wrong.
    """
    place = family_folder(family, folder)
    path = place / f"{lang}.jsonl"
    if not path.is_file():
        known = languages(family, folder)
        told = choice_message(f"language of {family}", lang, known) if known else f"no file of the family {family!r}."
        raise ConfigError(f"{told} Files are {place}/LANG.jsonl; {FOLDER_VARIABLE} names a folder of your own.")
    raw = _objects(path)
    kept = tuple(row for row in raw if row.get("qc_status") != _FAIL)
    failed = tuple(row["id"] for row in raw if row.get("qc_status") == _FAIL)
    if failed:
        _log.warning("%s: %d of %d rows failed their translation checks and are left out.", path, len(failed), len(raw))
    if not kept:
        raise DataError(f"{path}: no row is left, {len(failed)} failed their translation checks.")
    return LanguageFile(family, lang, path, sha256_file(path), kept, failed)


def text_docs(file: LanguageFile, split: str) -> list[dict[str, Any]]:
    """Return one document for each item of a split, answered by the whole text of an option.

    Fields: those of :mod:`lm_eval_steer.scoring`, ``lang``, ``question`` and ``data_sha256``.
    """
    return [
        {**_common(file, row), "order": 0, "n_orders": 1, "options": [row.matching, row.other], "matching": 0}
        for row in file.rows
        if row.split == split
    ]


def letter_docs(file: LanguageFile, split: str) -> list[dict[str, Any]]:
    """Return two documents for each item of a split, one for each order of its options, answered by a letter."""
    return [
        {
            **_common(file, row),
            "order": order,
            "n_orders": 2,
            "letters": ["A", "B"],
            "options": [row.other, row.matching] if order else [row.matching, row.other],
            "matching": order,
        }
        for row in file.rows
        if row.split == split
        for order in (0, 1)
    ]


def _common(file: LanguageFile, row: ParallelRow) -> dict[str, Any]:
    return {"item_id": row.id, "lang": file.lang, "question": row.question, "data_sha256": file.sha256}


def _objects(path: Path) -> list[dict[str, Any]]:
    """Return the file's objects, each with a unique id and a split; a row without a split is a test row."""
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not a JSON object: {error}.") from error
        if not isinstance(row, dict) or not isinstance(row.get("id"), str) or row["id"] in seen:
            raise DataError(f"{where}: wants a JSON object with an 'id' of its own; translations are matched by it.")
        if row.setdefault("split", "test") not in SPLITS:
            raise DataError(f"{where}: 'split' is {row['split']!r}; it is train or test.")
        seen.add(row["id"])
        rows.append(row)
    return rows


def _row(raw: Mapping[str, Any], where: str) -> ParallelRow:
    if _CAA_KEY in raw:
        try:
            shown = parse_ab_item(raw, where)
        except InputError as error:
            raise DataError(str(error)) from error
        texts = shown.stem.strip(), shown.options[shown.matching], shown.options[shown.other]
    else:
        keys = next((pair for pair in _PAIRS if pair[0] in raw), _PAIRS[0])
        question, matching, other = (_text(raw, key, where) for key in ("question", *keys))
        texts = question, matching, other
    if texts[1] == texts[2]:
        raise DataError(f"{where}: both options are {texts[1]!r}.")
    return ParallelRow(str(raw["id"]), str(raw["split"]), *texts)


def _text(raw: Mapping[str, Any], key: str, where: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {key!r} is {value!r}; it must be a text that is not empty.")
    return value.strip()
