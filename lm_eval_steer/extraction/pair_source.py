"""Pair sources: items with two answers, from a packaged name, a CAA behaviour, a crosslingual task or a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_steer.caa import BEHAVIOURS, ABItem, load_caa, parse_ab_item
from lm_eval_steer.errors import ConfigError, DataError
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.scaffold import ENGLISH, Scaffold
from lm_eval_steer.suggest import choice_message

_PACKAGED = {"positivity": Path("control") / "data" / "positivity_train.jsonl"}
_LICENCES = {"positivity": "Apache-2.0"}
_CAA_KEY = "answer_matching_behavior"
#: What the names of crosslingual tasks begin with.
PARALLEL = "xl_"


@dataclass(frozen=True)
class PairItem:
    """One item of a source, before it is shown as letters or as text.

    Attributes:
        id: unique in its source.
        question: without options.
        prompt: of the text variant.
        positive: the text that shows the behaviour.
        negative: the other text.
        shown: the item with its own option order, where the source has one.
        text: whether it can be asked without showing options.
        words: what stands around it.
    """

    id: str
    question: str
    prompt: str
    positive: str
    negative: str
    shown: ABItem | None = None
    text: bool = True
    words: Scaffold = ENGLISH


@dataclass(frozen=True)
class PairSource:
    """The items of one file or packaged name, in its order, and their licence where it is known."""

    name: str
    items: tuple[PairItem, ...]
    licence: str | None = None

    def limited(self, limit: int | None) -> PairSource:
        """Return the first ``limit`` items; all of them for None.

        Raises:
            ConfigError: ``limit`` is below 1.
        """
        if limit is not None and limit < 1:
            raise ConfigError(f"limit {limit} leaves no pairs; write a number from 1 on.")
        return dataclasses.replace(self, items=self.items[:limit])


def read_source(name: str) -> PairSource:
    """Return the items of a packaged name, a CAA behaviour or a file.

    Args:
        name: ``positivity``; one of :data:`lm_eval_steer.caa.BEHAVIOURS` (its ``generate`` split); the name of a
            crosslingual task such as ``xl_positivity_fr`` (its ``train`` split), without the language for all of
            them; or a path to JSON (a list) or JSONL (an object a line), rows ``question, answer_matching_behavior,
            answer_not_matching_behavior`` or ``question|prompt, positive, negative``.

    Raises:
        ConfigError: neither a packaged name nor a file.
        DataError: the file is not such a list, or a row is malformed; the message names the line or item.
    """
    if name in _PACKAGED:
        return PairSource(name, _read_items(tasks_dir() / _PACKAGED[name]), _LICENCES[name])
    if name in BEHAVIOURS:
        data = load_caa(name, "generate")
        items = tuple(_from_ab(f"{index:04d}", item) for index, item in enumerate(data.items))
        return PairSource(name, items, "MIT (questions partly CC BY 4.0)")
    path = Path(name).expanduser()
    if name.startswith(PARALLEL) and not path.is_file():
        from lm_eval_steer.extraction.parallel_pairs import parallel_source

        return parallel_source(name)
    if not path.is_file():
        raise ConfigError(f"{choice_message('pairs', name, [*_PACKAGED, *BEHAVIOURS])} Or name a .json or .jsonl file.")
    return PairSource(path.stem, _read_items(path))


def _from_ab(name: str, item: ABItem) -> PairItem:
    texts = item.options[item.matching], item.options[item.other]
    return PairItem(name, item.stem, f"{item.stem}\n\nAnswer:", *texts, shown=item, text=not item.names_letters)


def _read_items(path: Path) -> tuple[PairItem, ...]:
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path} holds no pairs.")
    items = [_item(row, str(number), where) for number, (where, row) in enumerate(rows)]
    seen: dict[str, str] = {}
    for (where, _), item in zip(rows, items, strict=True):
        if item.id in seen:
            raise DataError(f"{where}: the id {item.id!r} stands in {seen[item.id]} too; give each row its own.")
        seen[item.id] = where
    return tuple(items)


def _rows(path: Path) -> Sequence[tuple[str, Any]]:
    """Return every row with the words that say where it stands."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}.") from error
        return [(f"{path}, item {number}", row) for number, row in enumerate(rows)]
    return [
        (f"{path}, line {number}", _line(line, f"{path}, line {number}"))
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def _line(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not a JSON object: {error}.") from error


def _item(row: Any, number: str, where: str) -> PairItem:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: wants a JSON object, not {type(row).__name__}.")
    name = str(row.get("id", number))
    if _CAA_KEY in row:
        return _from_ab(name, parse_ab_item(row, where))
    if ("question" in row) == ("prompt" in row):
        raise DataError(f"{where}: wants either 'question' or 'prompt' beside 'positive' and 'negative'.")
    key = "question" if "question" in row else "prompt"
    question, positive, negative = (_text(row, each, where) for each in (key, "positive", "negative"))
    if positive == negative:
        raise DataError(f"{where}: 'positive' and 'negative' are the same text.")
    return PairItem(name, question, f"{question}\nAnswer:" if key == "question" else question, positive, negative)


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {key!r} is {value!r}; it must be a text that is not empty.")
    return value.strip()
