"""Did you mean: the nearest allowed word to one that is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, allowed: Iterable[str], cutoff: float = 0.7) -> str | None:
    """Return the allowed word most like ``word``, or None where none is like it.

    Likeness is :class:`difflib.SequenceMatcher`'s ratio, at least ``cutoff``.
    """
    matches = difflib.get_close_matches(word.lower(), list(allowed), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def choice_message(what: str, word: str, allowed: Iterable[str]) -> str:
    """Return ``unknown WHAT 'WORD'`` with the nearest allowed word and the whole list."""
    words = sorted(allowed)
    guess = nearest(word, words, cutoff=0.5)
    hint = f" Did you mean {guess!r}?" if guess else ""
    return f"unknown {what} {word!r}.{hint} Allowed: {', '.join(words)}."
