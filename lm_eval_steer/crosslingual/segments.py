"""Segments: the texts of a row that are translated, whatever its schema, and the row put together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lm_eval_steer.caa import ABItem, parse_ab_item
from lm_eval_steer.crosslingual.provenance import PROVENANCE
from lm_eval_steer.errors import DataError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Segment:
    """One text of a row.

    Attributes:
        name: what it is in the row, such as ``question``, ``option B`` or ``choice 2``.
        text: as it stands, without letters and headings.
        is_choice: whether it is one of the answers to choose from.
    """

    name: str
    text: str
    is_choice: bool = False

    @property
    def kind(self) -> str:
        """Return what its length is compared with: ``choice`` for all choices, else its name."""
        return "choice" if self.is_choice else self.name


class Schema(Protocol):
    """How rows of one kind are taken apart and put together."""

    @property
    def name(self) -> str:
        """Return what a message calls it."""

    def fits(self, row: Row) -> bool:
        """Return whether a row is of this kind."""

    def segments(self, row: Row, where: str) -> tuple[Segment, ...]:
        """Return the texts of a row in a fixed order.

        Raises:
            DataError: a text is missing or is none.
        """

    def rebuild(self, row: Row, texts: Sequence[str], where: str) -> dict[str, Any]:
        """Return the row with other texts, one for each segment; everything else stays.

        Raises:
            DataError: the new row would not come apart into these texts again.
        """

    def frame(self, row: Row, where: str) -> dict[str, Any]:
        """Return what must be equal in a row and its source: all but texts and provenance, and the number of texts."""


@dataclass(frozen=True)
class PairSchema:
    """A question and two answers under keys of their own, without letters.

    Attributes:
        matching: key of the answer that shows the behaviour.
        other: key of the other answer.
    """

    matching: str = "matching"
    other: str = "other"
    name: str = "pair"

    def fits(self, row: Row) -> bool:
        """Return whether the row has the three keys."""
        return set(self._keys) <= row.keys()

    def segments(self, row: Row, where: str) -> tuple[Segment, ...]:
        """Return question, matching and other."""
        return tuple(Segment(key, _text(row, key, where), key != "question") for key in self._keys)

    def rebuild(self, row: Row, texts: Sequence[str], where: str) -> dict[str, Any]:
        """Return the row with another question and other answers."""
        return {**row, **dict(zip(self._keys, texts, strict=True))}

    def frame(self, row: Row, where: str) -> dict[str, Any]:
        """Return the keys that are neither text nor provenance."""
        return _without(row, *self._keys)

    @property
    def _keys(self) -> tuple[str, str, str]:
        return ("question", self.matching, self.other)


class CAASchema:
    """``question`` with "(A) … (B) …" inside, and two answers by letter."""

    name = "caa"

    def fits(self, row: Row) -> bool:
        """Return whether the row has a question and the two answers."""
        return {"question", "answer_matching_behavior", "answer_not_matching_behavior"} <= row.keys()

    def segments(self, row: Row, where: str) -> tuple[Segment, ...]:
        """Return the stem and the options; letters and the heading above them belong to no segment."""
        item = parse_ab_item(row, where)
        options = (Segment(f"option {a}", text, True) for a, text in zip(item.letters, item.options, strict=True))
        return (Segment("stem", item.stem), *options)

    def rebuild(self, row: Row, texts: Sequence[str], where: str) -> dict[str, Any]:
        """Return the row with another stem and other options behind the same letters."""
        item = parse_ab_item(row, where)
        new = dataclasses.replace(item, stem=texts[0], options=tuple(texts[1:]))
        rebuilt = {**row, "question": new.question()}
        try:
            again: ABItem | None = parse_ab_item(rebuilt, where)
        except DataError:
            again = None
        if again is None or (again.stem, again.options) != (new.stem, new.options):
            raise DataError(f"{where}: a new text is empty or holds something like an option's letter, such as (A).")
        return rebuilt

    def frame(self, row: Row, where: str) -> dict[str, Any]:
        """Return letters, answers and whatever else is neither text nor provenance."""
        item = parse_ab_item(row, where)
        return {**_without(row, "question"), "letters": item.letters}


class ChoiceSchema:
    """``scene`` and ``choices``, and where they are there the game's title, role, summary and goal."""

    name = "choices"
    _card = ("title", "role", "summary", "goal")

    def fits(self, row: Row) -> bool:
        """Return whether the row has a scene and choices."""
        return {"scene", "choices"} <= row.keys()

    def segments(self, row: Row, where: str) -> tuple[Segment, ...]:
        """Return title, role, summary and goal where they are there, the scene, and the choices in order."""
        texts = [Segment(key, _text(row, key, where)) for key in (*self._present(row), "scene")]
        return (*texts, *(Segment(f"choice {i}", text, True) for i, text in enumerate(_choices(row, where))))

    def rebuild(self, row: Row, texts: Sequence[str], where: str) -> dict[str, Any]:
        """Return the row with other texts in the same places."""
        keys = (*self._present(row), "scene")
        if len(texts) != len(keys) + len(row["choices"]):
            raise DataError(f"{where}: {len(texts)} texts do not fit {len(row['choices'])} choices.")
        return {**row, **dict(zip(keys, texts, strict=False)), "choices": list(texts[len(keys) :])}

    def frame(self, row: Row, where: str) -> dict[str, Any]:
        """Return the number of choices, their labels, and whatever else is neither text nor provenance."""
        kept = _without(row, "scene", "choices", *self._card)
        return {**kept, "texts": self._present(row), "number of choices": len(_choices(row, where))}

    def _present(self, row: Row) -> tuple[str, ...]:
        return tuple(key for key in self._card if row.get(key))


class CardSchema:
    """A game's ``title``, ``role``, ``summary`` and ``goal``, without scenes."""

    name = "card"
    _keys = ("title", "role", "summary", "goal")

    def fits(self, row: Row) -> bool:
        """Return whether the row has the four keys."""
        return set(self._keys) <= row.keys()

    def segments(self, row: Row, where: str) -> tuple[Segment, ...]:
        """Return the four texts."""
        return tuple(Segment(key, _text(row, key, where)) for key in self._keys)

    def rebuild(self, row: Row, texts: Sequence[str], where: str) -> dict[str, Any]:
        """Return the row with four other texts."""
        return {**row, **dict(zip(self._keys, texts, strict=True))}

    def frame(self, row: Row, where: str) -> dict[str, Any]:
        """Return the keys that are neither text nor provenance."""
        return _without(row, *self._keys)


SCHEMAS: tuple[Schema, ...] = (
    CAASchema(),
    PairSchema(),
    PairSchema("positive", "negative"),
    ChoiceSchema(),
    CardSchema(),
)


def schema_of(row: Row, where: str) -> Schema:
    """Return the schema of a row.

    Raises:
        DataError: it is of none; the message lists the keys of each.
    """
    for schema in SCHEMAS:
        if schema.fits(row):
            return schema
    raise DataError(
        f"{where}: wants question, matching and other (or positive and negative); or question, "
        "answer_matching_behavior and answer_not_matching_behavior; or scene and choices; or title, role, summary and "
        f"goal; found {', '.join(row)}."
    )


def row_id(row: Row, index: int) -> str:
    """Return a row's name: its ``doc_id`` or ``id``, else its number in the file in four digits."""
    for key in ("doc_id", "id", "src_doc_id"):
        if row.get(key) is not None:
            return str(row[key])
    return f"{index:04d}"


def _text(row: Row, key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}: {key} is {value!r}; it must be a text.")
    return value


def _choices(row: Row, where: str) -> list[str]:
    choices = row.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(text, str) for text in choices):
        raise DataError(f"{where}: choices is {choices!r}; it must be a list of texts.")
    return choices


def _without(row: Row, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys and key not in PROVENANCE}
