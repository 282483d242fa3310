"""Items: the rows of a file in one language, of one schema, read strictly and written back in the same shape."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lm_eval_steer.crosslingual.segments import Row, Schema, Segment, row_id, schema_of
from lm_eval_steer.errors import ConfigError, DataError, InputError
from lm_eval_steer.files import write_text

Shape = Literal["lines", "list", "map"]

_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class Items:
    """The rows of a file.

    Attributes:
        path: the file.
        shape: ``lines`` (JSONL), ``list`` (a JSON list) or ``map`` (a JSON object of id → row).
        rows: as they stand; in a ``map`` each has its key as ``id``.
        schema: of the rows.
        ids: of the rows, each once.
        segments: of the rows.
    """

    path: Path
    shape: Shape
    rows: tuple[Row, ...]
    schema: Schema
    ids: tuple[str, ...]
    segments: tuple[tuple[Segment, ...], ...]

    def where(self, index: int) -> str:
        """Return how a message calls a row."""
        return f"{self.path}, row {self.ids[index]!r}"


def read_items(path: Path | str) -> Items:
    """Return the rows of a ``.jsonl`` or ``.json`` file.

    Raises:
        InputError: the file cannot be read.
        DataError: it holds no rows, rows of more than one schema, a row without its texts, or an id twice.
    """
    file = Path(path).expanduser()
    shape, rows = read_rows(file)
    if not rows:
        raise DataError(f"{file} holds no rows.")
    ids = [row_id(row, index) for index, row in enumerate(rows)]
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise DataError(f"{file}: the id {name!r} is there more than once.")
    where = [f"{file}, row {name!r}" for name in ids]
    schema = schema_of(rows[0], where[0])
    for row, place in zip(rows, where, strict=True):
        if schema_of(row, place) is not schema:
            raise DataError(f"{place} is of another schema than the first row ({schema.name}).")
    segments = tuple(schema.segments(row, place) for row, place in zip(rows, where, strict=True))
    return Items(file, shape, tuple(rows), schema, tuple(ids), segments)


def read_rows(path: Path) -> tuple[Shape, list[dict[str, Any]]]:
    """Return the shape of a file and its objects; a key of a map becomes the ``id``.

    Raises:
        InputError: the file cannot be read.
        DataError: it is not JSON, or holds something that is no object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if path.suffix == ".jsonl":
        # not splitlines: a text may hold other separators
        rows = [_parsed(line, f"{path}, line {n}") for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        return "lines", [_object(row, f"{path}, line {number}") for number, row in enumerate(rows, start=1)]
    data = _parsed(text, str(path))
    if isinstance(data, list):
        return "list", [_object(row, f"{path}, row {number}") for number, row in enumerate(data)]
    found = _object(data, str(path))
    return "map", [{"id": key, **_object(row, f"{path}, {key!r}")} for key, row in found.items()]


def write_rows(path: Path, shape: Shape, rows: Iterable[Row]) -> None:
    """Write rows in a shape, atomically.

    Raises:
        WriteError: the file cannot be written; the old one is whole.
    """
    if shape == "lines":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif shape == "list":
        text = json.dumps(list(rows), ensure_ascii=False, indent=1) + "\n"
    else:
        text = json.dumps({row["id"]: _keyless(row) for row in rows}, ensure_ascii=False, indent=1) + "\n"
    write_text(path, text)


def language_of(path: Path, rows: Iterable[Row]) -> str:
    """Return the language of a file: its rows' ``lang``, else the beginning of its name (``fr.jsonl``).

    Raises:
        DataError: rows of more than one language.
        ConfigError: neither says one.
    """
    said = {str(row["lang"]) for row in rows if row.get("lang")}
    if len(said) > 1:
        raise DataError(f"{path} holds rows in {', '.join(sorted(said))}; a file has one language.")
    name = said.pop() if said else path.name.partition(".")[0]
    if not is_tag(name):
        raise ConfigError(f"{path}: {name!r} is no language tag. Name the file after its language, such as fr.jsonl.")
    return name


def is_tag(lang: str) -> bool:
    """Return whether a text is spelt as a language tag is: ``fr``, ``zh-Hant``."""
    return _LANGUAGE.fullmatch(lang) is not None


def base(lang: str) -> str:
    """Return a tag's language without script and region: ``zh`` of ``zh-Hans``."""
    return lang.partition("-")[0].lower()


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is no JSON: {error}") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: wants a JSON object, found {type(value).__name__}.")
    return value


def _keyless(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "id"}
