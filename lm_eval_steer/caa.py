"""The A/B items of Contrastive Activation Addition: read, check, and show them in every option order.

Upstream writes the options into the question (``\\n\\nChoices:\\n (A) x\\n (B) y``, or without the heading, without
the blank after the bracket, or all in one line). :func:`parse_ab_item` takes a question apart so that it can be put
together again with the options in another order: the letters stay where they are, the texts move, and the label
goes with its text. In order 0 the question is upstream's, byte for byte.

The data is not part of this package; :mod:`lm_eval_steer.caa_source` says where it comes from.

Source: Panickssery et al. 2023, arXiv 2312.06681; repository nrimsky/CAA (MIT).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval_steer import caa_source
from lm_eval_steer.errors import ConfigError, DataError
from lm_eval_steer.suggest import choice_message

BEHAVIOURS = (
    "coordinate-other-ais",
    "corrigible-neutral-HHH",
    "hallucination",
    "myopic-reward",
    "refusal",
    "survival-instinct",
    "sycophancy",
)

SPLITS = tuple(caa_source.LAYOUT)

_KEYS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_AT_LINE_START = re.compile(r"(?:\A|\n)[ \t]*\(([A-Z])\)")
_ANYWHERE = re.compile(r"\(([A-Z])\)")
_HEADING = re.compile(r"\s*(?:Choices:)?\s*\Z")

# An option that names another by its letter, and a stem that names an answer by its letter.
_OPTION_NAMES_LETTER = re.compile(r"\([A-Z]\)|\b[A-H] (?:and|or|&) [A-H]\b")
_STEM_NAMES_LETTER = re.compile(r"\b[Aa]nswer\b[^.?!\n]{0,40}?\b(?:is|be) \(?[A-H]\b")
# An option that names others by their place.
_OPTION_NAMES_PLACE = re.compile(
    r"\b(?:all|any|both|each|either|neither|none|one|some) (?:of )?(?:the )?(?:above|below)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class ABItem:
    """One question with its options, taken apart.

    Attributes:
        stem: the question without options and without the heading above them.
        options: the option texts in upstream's order, white space stripped from their ends.
        matching: index of the option that shows the behaviour.
        other: index of the option that upstream contrasts it with (with two options, simply the other one).
        seams: what stands before each option text, brackets and letter included.
        tail: white space after the last option.
    """

    stem: str
    options: tuple[str, ...]
    matching: int
    other: int
    seams: tuple[str, ...]
    tail: str = ""

    @property
    def letters(self) -> tuple[str, ...]:
        """Return the letters shown, ``A`` onwards; they never move."""
        return tuple(_ALPHABET[: len(self.options)])

    @cached_property
    def names_letters(self) -> bool:
        """Return whether the stem or an option speaks of an answer by its letter ("I believe the answer is B")."""
        return bool(_STEM_NAMES_LETTER.search(self.stem)) or any(map(_OPTION_NAMES_LETTER.search, self.options))

    @cached_property
    def n_orders(self) -> int:
        """Return the number of option orders: all rotations, or 1 where moving an option would change its meaning."""
        if self.names_letters or any(map(_OPTION_NAMES_PLACE.search, self.options)):
            return 1
        return len(self.options)

    def shown(self, order: int) -> tuple[str, ...]:
        """Return the option texts rotated left by ``order``; with two options, order 1 is the swap."""
        return self.options[order:] + self.options[:order]

    def matching_at(self, order: int) -> int:
        """Return the place of the matching option in :meth:`shown` of this order."""
        return (self.matching - order) % len(self.options)

    def question(self, order: int = 0) -> str:
        """Return the whole question with the options in this order; order 0 is upstream's own string."""
        pieces = [seam + text for seam, text in zip(self.seams, self.shown(order), strict=True)]
        return self.stem + "".join(pieces) + self.tail


@dataclass(frozen=True)
class CAAData:
    """The items of one file, with what is known of the file.

    Attributes:
        behaviour: upstream's name of the behaviour, one of :data:`BEHAVIOURS`.
        split: ``generate`` (for extraction) or ``test``.
        items: the items in the file's order.
        sha256: of the file's bytes.
        known: whether that is the hash of the pinned upstream file.
    """

    behaviour: str
    split: str
    items: tuple[ABItem, ...]
    sha256: str
    known: bool


def parse_ab_item(raw: Any, where: str = "item") -> ABItem:
    """Return one upstream item taken apart.

    Args:
        raw: a mapping with ``question``, ``answer_matching_behavior`` and ``answer_not_matching_behavior``, the
            answers written as ``(A)``.
        where: how to call the item in a message, for example ``file.json, item 3``.

    Raises:
        DataError: a key is missing or no text, the options cannot be found without doubt, an option is empty, or an
            answer is none of the letters.
    """
    if not isinstance(raw, Mapping) or not all(isinstance(raw.get(key), str) for key in _KEYS):
        raise DataError(f"{where}: wants an object with the texts {', '.join(_KEYS)}.")
    question = raw["question"]
    stem, options, seams, tail = _take_apart(question, where)
    letters = _ALPHABET[: len(options)]
    answers = []
    for key in _KEYS[1:]:
        letter = raw[key].strip().strip("()")
        if len(letter) != 1 or letter not in letters:
            raise DataError(f"{where}: {key} is {raw[key]!r}; the question offers ({letters[0]}) to ({letters[-1]}).")
        answers.append(letters.index(letter))
    if answers[0] == answers[1]:
        raise DataError(f"{where}: the matching and the other answer are both ({letters[answers[0]]}).")
    return ABItem(stem, options, answers[0], answers[1], seams, tail)


def load_caa(behaviour: str, split: str = "test", folder: Path | str | None = None) -> CAAData:
    """Return the items of one behaviour and split.

    Args:
        behaviour: one of :data:`BEHAVIOURS`.
        split: ``generate`` or ``test``.
        folder: a local folder of upstream's layout; None takes the environment variable ``CAA_DATA_DIR``, and where
            that is unset too, the pinned upstream file, which ``datasets`` downloads once.

    Raises:
        ConfigError: an unknown behaviour or split.
        DataError: the file is missing, is not what upstream's hash says (downloads only), or holds a malformed item.

    A local file with another hash is used, with a warning: upstream has changed its test sets over time.
    """
    if behaviour not in BEHAVIOURS:
        raise ConfigError(choice_message("CAA behaviour", behaviour, BEHAVIOURS))
    if split not in SPLITS:
        raise ConfigError(choice_message("CAA split", split, SPLITS))
    file = caa_source.find(behaviour, split, folder)
    return CAAData(behaviour, split, _read(file.path), file.sha256, file.known)


def letter_docs(data: CAAData) -> list[dict[str, Any]]:
    """Return one document for each item and option order, the orders of one item side by side.

    Fields: those of :mod:`lm_eval_steer.scoring`, ``behaviour``, ``question`` (options shown) and ``data_sha256``.
    """
    return [
        {
            **_common(data, index),
            "order": order,
            "n_orders": item.n_orders,
            "question": item.question(order),
            "letters": list(item.letters),
            "options": list(item.shown(order)),
            "matching": item.matching_at(order),
        }
        for index, item in enumerate(data.items)
        for order in range(item.n_orders)
    ]


def text_docs(data: CAAData) -> list[dict[str, Any]]:
    """Return one document for each item, its ``question`` without options.

    An item that speaks of an answer by its letter cannot be asked without showing the options and is left out.
    """
    return [
        {
            **_common(data, index),
            "order": 0,
            "n_orders": 1,
            "question": item.stem,
            "options": list(item.options),
            "matching": item.matching,
        }
        for index, item in enumerate(data.items)
        if not item.names_letters
    ]


def task_name(behaviour: str) -> str:
    """Return the name of a behaviour's letter task, ``caa_`` and underscores; the text task adds ``_text``."""
    return "caa_" + behaviour.replace("-", "_")


def _common(data: CAAData, index: int) -> dict[str, Any]:
    return {
        "item_id": f"{data.behaviour}/{data.split}/{index:03d}",
        "behaviour": data.behaviour,
        "data_sha256": data.sha256,
    }


def _take_apart(question: str, where: str) -> tuple[str, tuple[str, ...], tuple[str, ...], str]:
    marks = _marks(question)
    if not marks:
        raise DataError(f"{where}: cannot find options (A), (B), … in order, each once, in {question[-120:]!r}.")
    stem = _HEADING.sub("", question[: marks[0].start()], count=1)
    if not stem.strip():
        raise DataError(f"{where}: the question has no text before its options.")
    seams, options = [], []
    end_of_last = len(stem)
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        raw = question[mark.end() : following.start() if following else len(question)]
        text = raw.strip()
        if not text:
            raise DataError(f"{where}: option ({mark.group(1)}) is empty.")
        start = mark.end() + raw.index(text)
        seams.append(question[end_of_last:start])
        options.append(text)
        end_of_last = start + len(text)
    return stem, tuple(options), tuple(seams), question[end_of_last:]


def _marks(question: str) -> Sequence[re.Match[str]]:
    # Both readings want A, B, C … in sequence, each once. Marks at line starts win a draw, and alone are in sequence
    # where an option speaks of the others: "(C) both (A) and (B)".
    readings = [_in_sequence(pattern, question) for pattern in (_AT_LINE_START, _ANYWHERE)]
    return max(readings, key=len)


def _in_sequence(pattern: re.Pattern[str], question: str) -> Sequence[re.Match[str]]:
    marks = list(pattern.finditer(question))
    letters = "".join(mark.group(1) for mark in marks)
    return marks if len(letters) > 1 and letters == _ALPHABET[: len(letters)] else []


def _read(path: Path) -> tuple[ABItem, ...]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}. {caa_source.advice()}") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} holds no list of items. {caa_source.advice()}")
    return tuple(parse_ab_item(row, f"{path}, item {index}") for index, row in enumerate(rows))
