"""Markers: placeholders, tags and the like, which stay as they are in every language."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence

_MARKER = re.compile(
    r"""
      \{\{[^{}\n]*\}\}                          # {{ name }}
    | \$?\{[^{}\n]*\}                           # {name}, ${name}
    | </?[A-Za-z][^<>\n]*>                      # <tag>, </tag>
    | %\([A-Za-z_]\w*\)[sdif]                   # %(name)s
    | %(?:\.\d+)?[sdifr](?![^\W\d_])            # %s, %d, %.2f; no letter behind, so that "5 %de" stays text
    | \[\d+\]                                   # [1]
    | \([A-Z]\)                                 # (A)
    """,
    re.VERBOSE,
)
_MASK = re.compile(r"\{\s*(\d+)\s*\}")

Texts = Callable[[list[str]], list[str]]


def markers(text: str) -> Counter[str]:
    """Return how often each marker stands in a text."""
    return Counter(match.group() for match in _MARKER.finditer(text))


def translate_protected(texts: Sequence[str], translate: Texts) -> list[str]:
    """Translate texts with their markers and line breaks kept.

    A line is shown with ``{0}``, ``{1}`` … for its markers. Where one of these does not come back exactly once, the
    pieces between the markers are translated one by one.

    Args:
        texts: what is to be translated.
        translate: one answer for each line, in order; it never sees an empty one.

    Returns:
        One text for each, with the same markers and the same line breaks.
    """
    lines = [line for text in texts for line in text.split("\n")]
    masked = [_mask(line) for line in lines]
    answers = _each(masked, translate)
    made = [_unmask(answer, line) for answer, line in zip(answers, lines, strict=True)]
    lost = [index for index, line in enumerate(made) if line is None]
    pieces = [piece for index in lost for piece in _pieces(lines[index])]
    said = iter(_each([piece for piece in pieces if _is_text(piece)], translate))
    for index in lost:
        made[index] = "".join(
            _padded(_MASK.sub("", next(said)), piece) if _is_text(piece) else piece for piece in _pieces(lines[index])
        )
    done = iter(made)
    return ["\n".join(str(next(done)) for _ in text.split("\n")) for text in texts]


def _each(texts: Sequence[str], translate: Texts) -> list[str]:
    """Translate what is not blank, each text once."""
    wanted = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    answers = dict(zip(wanted, translate(wanted), strict=True)) if wanted else {}
    return [_padded(answers[text.strip()], text) if text.strip() else text for text in texts]


def _padded(answer: str, text: str) -> str:
    """Return an answer with the white space around the text that it answers."""
    bare = text.strip()
    start = text.index(bare)
    return text[:start] + answer.strip() + text[start + len(bare) :]


def _mask(line: str) -> str:
    numbers = iter(range(len(line)))
    return _MARKER.sub(lambda _match: f"{{{next(numbers)}}}", line)


def _unmask(answer: str, line: str) -> str | None:
    """Return an answer with its markers, or None where one is lost, doubled or made up."""
    found = _MARKER.findall(line)
    numbers = [int(match.group(1)) for match in _MASK.finditer(answer)]
    if sorted(numbers) != list(range(len(found))):
        return None
    made = _MASK.sub(lambda match: found[int(match.group(1))], answer)
    return made if markers(made) == markers(line) else None


def _pieces(line: str) -> list[str]:
    """Return a line cut before and after each marker."""
    ends = [0, *(end for match in _MARKER.finditer(line) for end in match.span()), len(line)]
    return [line[start:stop] for start, stop in itertools.pairwise(ends) if start < stop]


def _is_text(piece: str) -> bool:
    return not _MARKER.fullmatch(piece) and any(map(str.isalnum, piece))
