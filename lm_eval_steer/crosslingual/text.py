"""Text: what the checks measure in texts, each a pure function. chrF is sacrebleu's."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from typing import Any

# Digits with the separators that may stand between them; a separator at the end belongs to the sentence.
_NUMBER = re.compile(r"\d+(?:[.,'’٫٬ \u00a0\u202f\u2009]\d{3}(?!\d)|[.,٫]\d+)*")
_FINAL = ".!?…。！？｡؟।"
_STOP = re.compile(rf"[{_FINAL}]+(?!\d)")
_CLOSING = "\"'”’»›」』）)]】》〉*_ \u00a0\u202f"


def letters(text: str) -> int:
    """Return the number of letters of a text, of any script."""
    return sum(map(str.isalpha, text))


def script_shares(text: str) -> dict[str, float]:
    """Return the share of each script in the letters of a text, after NFKC.

    A script is the first word of a letter's Unicode name: LATIN, CYRILLIC, CJK, HIRAGANA … No letters, no shares.
    """
    found = Counter(
        unicodedata.name(char, "UNKNOWN").split()[0] for char in unicodedata.normalize("NFKC", text) if char.isalpha()
    )
    return {script: count / found.total() for script, count in found.items()}


def numbers(text: str) -> Counter[str]:
    """Return the numbers of a text that are written in digits, as digits alone.

    Full-width and other digits become ASCII; separators of thousands and decimals go, because their meaning differs
    between languages: 1,000 and 1.000 and １０００ are equal, 3.5 and 3,5 too.
    """
    plain = unicodedata.normalize("NFKC", text)
    return Counter(
        "".join(str(unicodedata.decimal(char)) for char in match if char.isdecimal())
        for match in _NUMBER.findall(plain)
    )


def length_deviation(source: str, target: str, median: float) -> float:
    """Return |ln(ratio / median)| · √n, with the ratio of characters and n the characters of the source.

    The spread of a ratio falls with the root of a text's length, so one number serves options and whole scenes alike.
    """
    if not source or not target:
        return math.inf if source or target else 0.0
    return abs(math.log(len(target) / len(source) / median)) * math.sqrt(len(source))


def ends(text: str) -> bool:
    """Return whether a text ends as a sentence does, closing quotes and brackets aside."""
    bare = text.rstrip().rstrip(_CLOSING)
    return bare.endswith(tuple(_FINAL))


def sentence_ends(text: str) -> int:
    """Return how often a text has a sentence's end, a run of stops as one; a point before a digit is none."""
    return len(_STOP.findall(text))


def same_text(one: str, other: str) -> bool:
    """Return whether two texts are equal but for case, width, punctuation and blanks."""
    return _plain(one) == _plain(other)


def chrf(one: str, other: str) -> float:
    """Return the mean of chrF(one, other) and chrF(other, one), 0 to 100.

    Source: Popović 2015; sacrebleu's ``CHRF()`` with its defaults, both ways because β = 2 weighs recall.
    """
    metric = _chrf(0)
    forth, back = metric.sentence_score(one, [other]).score, metric.sentence_score(other, [one]).score
    return float(forth + back) / 2


def chrf_pp(hypothesis: str, reference: str) -> float:
    """Return chrF++ of a text against a reference, 0 to 100.

    Source: Popović 2017; sacrebleu's ``CHRF(word_order=2)``.
    """
    return float(_chrf(2).sentence_score(hypothesis, [reference]).score)


def _plain(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKC", text).casefold() if char.isalnum())


@functools.cache
def _chrf(word_order: int) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=word_order)
