"""Where: choosing and grouping records by their labels.

``layer=20``, ``multiplier>0, control=none``, ``vector!=positivity and layer in 10-14``, ``scope in all;after_prompt``:
comparisons joined by commas or ``and``. Operators are ``= != < <= > >=`` and ``in`` (a range of whole numbers, both
ends in, or a list with ``;``). ``none`` stands for an absent label. A value with a comma, or with the word ``and``, is
written in quotes. ``status`` and ``cell`` may be asked for like labels.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.suggest import choice_message
from lm_eval_steer.sweep.records import CellRecord, Label, label_key

_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TERM = re.compile(
    r"""\s*(?P<key>[A-Za-z_][\w.-]*)\s*
        (?P<operator>!=|<=|>=|=|<|>|(?<=\s)in(?=\s))\s*
        (?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^,"']+?))\s*
        (?P<join>,|(?<=\s)and(?=\s|$)|$)""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_RANGE = re.compile(r"(\d+)-(\d+)")
_WORDS: dict[str, Label] = {"none": None, "true": True, "false": False}


@dataclass(frozen=True)
class Comparison:
    """One comparison of a label with a value.

    Attributes:
        key: the label.
        operator: ``= != < <= > >= in``.
        text: the value as it was written.
        quoted: whether it was written in quotes, and is text for that.
    """

    key: str
    operator: str
    text: str
    quoted: bool = False

    def holds(self, labels: Mapping[str, Label]) -> bool:
        """Whether it holds; a label that is absent is none, smaller or greater than nothing."""
        value = labels.get(self.key)
        if self.operator in _ORDER:
            return _is_number(value) and _ORDER[self.operator](float(value or 0), float(self.text))
        if self.operator == "in":
            return self._among(value)
        return _equal(value, self.text, self.quoted) == (self.operator == "=")

    def check(self, values: Sequence[Label]) -> None:
        """Refuse a comparison that no value of the label could ever decide.

        Raises:
            ConfigError: an order asked of text, or a number compared with a word.
        """
        if self.operator in _ORDER and values and not any(map(_is_number, values)):
            raise ConfigError(f"--where: {self.key} is text; compare it with =, != or in, not {self.operator}.")
        word = self.quoted or not (_NUMBER.fullmatch(self.text) or self.text.lower() in _WORDS)
        if self.operator in ("=", "!=") and values and all(map(_is_number, values)) and word:
            raise ConfigError(
                f"--where: {self.key} is a number, {self.text!r} is none; for several write {self.key} in 10-14."
            )

    def _among(self, value: Label) -> bool:
        span = None if self.quoted else _RANGE.fullmatch(self.text)
        if span is not None and not isinstance(value, str):
            return _is_number(value) and int(span[1]) <= float(value or 0) <= int(span[2])
        return any(_equal(value, item.strip(), self.quoted) for item in self.text.split(";"))


@dataclass(frozen=True)
class Where:
    """Comparisons that must all hold; none at all hold for every record."""

    comparisons: tuple[Comparison, ...] = ()

    def select(self, records: Iterable[CellRecord]) -> list[CellRecord]:
        """Return the records for which all comparisons hold, in their order.

        Raises:
            ConfigError: a label that no record has, or an order asked of one that is nowhere a number.
        """
        rows = [(record, labels_of(record)) for record in records]
        known = sorted({key for _, labels in rows for key in labels})
        for term in self.comparisons if rows else ():
            if term.key not in known:
                raise ConfigError(f"--where: {choice_message('label', term.key, known)}")
            term.check([value for _, labels in rows if (value := labels.get(term.key)) is not None])
        return [record for record, labels in rows if all(term.holds(labels) for term in self.comparisons)]


def parse_where(text: str | None) -> Where:
    """Return the comparisons that ``text`` spells (see the module's examples); None or blank spells none.

    Raises:
        ConfigError: it spells no comparisons; the message says from where on.
    """
    comparisons: list[Comparison] = []
    at, rest = 0, text or ""
    while rest[at:].strip() or at:
        match = _TERM.match(rest, at)
        if match is None:
            raise ConfigError(
                f"--where {text!r}: cannot read {rest[at:].strip()!r}; write comparisons such as layer=20, "
                "multiplier>0, vector!=NAME or layer in 10-14, joined by commas."
            )
        comparisons.append(_comparison(match))
        at = match.end()
        if not match["join"]:
            break
    return Where(tuple(comparisons))


def labels_of(record: CellRecord) -> dict[str, Label]:
    """Return a record's labels, with its status and its id as ``status`` and ``cell``."""
    return {**record.labels, "status": record.status, "cell": record.cell_id}


def group(records: Iterable[CellRecord], keys: Sequence[str]) -> dict[tuple[Label, ...], list[CellRecord]]:
    """Return records by their values of ``keys``, groups sorted by these, records in their order.

    Raises:
        ConfigError: a key that no record has as a label.
    """
    rows = [(record, labels_of(record)) for record in records]
    known = sorted({key for _, labels in rows for key in labels})
    for key in keys if rows else ():
        if key not in known:
            raise ConfigError(f"--group-by: {choice_message('label', key, known)}")
    groups: dict[tuple[Label, ...], list[CellRecord]] = {}
    for record, labels in rows:
        groups.setdefault(tuple(labels.get(key) for key in keys), []).append(record)
    return dict(sorted(groups.items(), key=lambda item: [label_key(value) for value in item[0]]))


def _comparison(match: re.Match[str]) -> Comparison:
    quoted = match["bare"] is None
    text = match["bare"].strip() if match["bare"] is not None else match["double"] or match["single"] or ""
    term = Comparison(match["key"], match["operator"], text, quoted)
    if term.operator in _ORDER and (quoted or not _NUMBER.fullmatch(text)):
        raise ConfigError(f"--where: {term.key}{term.operator}{text}: {text!r} is no number.")
    if not quoted and re.search(r"[<>=!]", text):
        raise ConfigError(f"--where: {term.key}: write the value {text!r} in quotes, or a comma before what follows.")
    span = _RANGE.fullmatch(text) if term.operator == "in" and not quoted else None
    if span is not None and int(span[1]) > int(span[2]):
        raise ConfigError(f"--where: the range {text} runs backwards; write {span[2]}-{span[1]}.")
    return term


def _equal(value: Label, text: str, quoted: bool) -> bool:
    if isinstance(value, str):
        return value == text
    if quoted:
        return False
    if value is None or isinstance(value, bool):
        return text.lower() in _WORDS and _WORDS[text.lower()] is value
    return _NUMBER.fullmatch(text) is not None and float(text) == float(value)


def _is_number(value: Label) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
