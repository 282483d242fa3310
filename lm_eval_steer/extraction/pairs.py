"""Contrast pairs: two answers to one prompt, one that shows the behaviour and one that does not.

A source (:mod:`~lm_eval_steer.extraction.pair_source`) is read once and then shown in one of two ways: as *letters*,
with both options in the prompt and "(A)" or "(B)" as the answer (:func:`letter_pairs`, CAA), or as *text*, without
options and with the whole text as the answer (:func:`text_pairs`). Prompts are those of the packaged tasks, character
for character:

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
from dataclasses import dataclass
from typing import Literal

from lm_eval_steer.caa import ABItem
from lm_eval_steer.errors import ConfigError, DataError
from lm_eval_steer.extraction.pair_source import PairItem, PairSource
from lm_eval_steer.files import canonical_json, sha256_bytes

Kind = Literal["letter", "text"]


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
