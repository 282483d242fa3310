"""Contrast pairs: two answers to one prompt, one that shows the behaviour and one that does not.

A source (:func:`read_source`) is read once and then shown in one of two ways: as *letters*, with both options in the
prompt and "(A)" or "(B)" as the answer (:func:`letter_pairs`, CAA), or as *text*, without options and with the whole
text as the answer (:func:`text_pairs`). Prompts are those of the packaged tasks, character for character:

=============  ==========================================  ===========================
data           prompt                                      answer, plain
=============  ==========================================  ===========================
letters        ``{question with options}\\n\\n``             ``Answer: (`` + ``A)``
CAA, text      ``{question without options}\\n\\nAnswer:``   a blank and the text
question rows  ``{question}\\nAnswer:``                     a blank and the text
prompt rows    ``{prompt}``                                a blank and the text
=============  ==========================================  ===========================

With ``_native`` the items of the crosslingual tasks have "Answer" and "Choices" in their own language.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lm_eval_steer.caa import BEHAVIOURS, ABItem, load_caa, parse_ab_item
from lm_eval_steer.errors import ConfigError, DataError
from lm_eval_steer.files import canonical_json, sha256_bytes
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.scaffold import ENGLISH, Scaffold
from lm_eval_steer.suggest import choice_message

Kind = Literal["letter", "text"]

_PACKAGED = {"positivity": Path("control") / "data" / "positivity_train.jsonl"}
_LICENCES = {"positivity": "Apache-2.0"}
_CAA_KEY = "answer_matching_behavior"
#: What the names of crosslingual tasks begin with.
PARALLEL = "xl_"


@dataclass(frozen=True)
class ContrastPair:
    """One prompt with the answer that shows the behaviour and one that does not.

    Attributes:
        id: unique in its set; the item's id, and the order where an item enters in two.
        item: id of the item it comes from; both orders of one item share it.
        prompt: everything before the answer; the user's turn under a chat template.
        lead: what both answers begin with; the assistant's own first words under a chat template.
        positive: the rest of the answer that shows the behaviour.
        negative: the rest of the other answer.
        kind: ``letter`` or ``text``.
        letters: the letters of the positive and the negative answer; None for text.
        meanings: the texts that these letters stand for; None for text.
    """

    id: str
    item: str
    prompt: str
    lead: str
    positive: str
    negative: str
    kind: Kind
    letters: tuple[str, str] | None = None
    meanings: tuple[str, str] | None = None

    @property
    def matching_first(self) -> bool | None:
        """Whether the matching answer's letter comes before the other's; None for text answers."""
        return None if self.letters is None else self.letters[0] < self.letters[1]


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


@dataclass(frozen=True)
class PairSet:
    """What an extraction reads: pairs of one kind.

    Attributes:
        source: name of the source.
        pairs: in order; the two orders of an item side by side.
        kind: of every pair.
        balanced: whether every item enters in both orders; None for text.
        left_out: ids of items that cannot be shown this way.
        licence: of the data, where it is known.
    """

    source: str
    pairs: tuple[ContrastPair, ...]
    kind: Kind
    balanced: bool | None = None
    left_out: tuple[str, ...] = ()
    licence: str | None = None

    def __post_init__(self) -> None:
        if not self.pairs:
            raise DataError(f"{self.source}: none of its {len(self.left_out)} items can be used as {self.kind} pairs.")

    @property
    def letter_balance(self) -> float | None:
        """Share of pairs whose matching answer is the first of the two letters; None for text answers."""
        firsts = [pair.matching_first for pair in self.pairs if pair.matching_first is not None]
        return sum(firsts) / len(firsts) if firsts else None

    @property
    def sha256(self) -> str:
        """Hash of what the model is shown: prompt, lead and both answers of every pair, in order."""
        rows = [[pair.prompt, pair.lead, pair.positive, pair.negative] for pair in self.pairs]
        return sha256_bytes(canonical_json(rows).encode("ascii"))


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


def letter_pairs(source: PairSource, *, balance: bool = True) -> PairSet:
    """Return pairs answered by a letter, with the options shown in the prompt.

    Balanced, every item enters in both orders: the two texts change places, the letters stay, so the part of
    ``h(pos) − h(neg)`` that only says which letter was given cancels. An item whose options speak of one another
    by letter or place has one order and is left out. Unbalanced is the paper's original: the order of the data.

    Raises:
        ConfigError: unbalanced, of data that has no order of its own.
        DataError: no item is left.
    """
    pairs: list[ContrastPair] = []
    left_out: list[str] = []
    for item in source.items:
        shown = item.shown
        if shown is None and not balance:
            raise ConfigError(
                f"{source.name} shows no options, so there is no original order to keep; balance the letters."
            )
        if shown is None:
            shown = _two_options(item)
        if balance and shown.n_orders == 1:
            left_out.append(item.id)
            continue
        orders = [shown, _swapped(shown)] if balance else [shown]
        pairs += [_letter_pair(item, number, each) for number, each in enumerate(orders)]
    return PairSet(source.name, tuple(pairs), "letter", balance, tuple(left_out), source.licence)


def text_pairs(source: PairSource) -> PairSet:
    """Return pairs answered by the whole text; items that cannot be asked without their options are left out.

    Raises:
        DataError: no item is left.
    """
    pairs = tuple(
        ContrastPair(item.id, item.id, item.prompt, "", item.positive, item.negative, "text")
        for item in source.items
        if item.text
    )
    left_out = tuple(item.id for item in source.items if not item.text)
    return PairSet(source.name, pairs, "text", None, left_out, source.licence)


def _letter_pair(item: PairItem, order: int, shown: ABItem) -> ContrastPair:
    letters = shown.letters[shown.matching], shown.letters[shown.other]
    meanings = shown.options[shown.matching], shown.options[shown.other]
    prompt = shown.question(0) + "\n\n"
    answers = f"{letters[0]})", f"{letters[1]})"
    return ContrastPair(f"{item.id}/{order}", item.id, prompt, item.words.lead, *answers, "letter", letters, meanings)


def _swapped(shown: ABItem) -> ABItem:
    """Return the item with the matching and the other text in each other's place; further options stay."""
    texts = list(shown.options)
    texts[shown.matching], texts[shown.other] = texts[shown.other], texts[shown.matching]
    return dataclasses.replace(shown, options=tuple(texts), matching=shown.other, other=shown.matching)


def _two_options(item: PairItem) -> ABItem:
    seams = f"\n\n{item.words.choices}\n(A) ", "\n(B) "
    return ABItem(item.question, (item.positive, item.negative), 0, 1, seams)


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
