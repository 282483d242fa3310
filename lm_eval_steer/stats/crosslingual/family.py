"""Family: which tasks are one task in several languages, and which vectors were made in which of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.stats.curve import Curve

REFERENCE = "en"
"""The language that others are held against; where it is missing, the first by name."""

ALL = "all"
"""In the place of the languages of a vector that was made of every language's data together."""

NATIVE = "native"
_PREFIX = "xl_"
_TAG = r"[a-z]{2,3}(?:-[A-Za-z0-9]+)*"


@dataclass(frozen=True, order=True)
class Member:
    """One task's place in a family.

    Attributes:
        family: name of what is asked, in whatever language.
        scaffold: ``english`` or ``native``, the words around the item.
        language: tag (BCP 47) of the item.
    """

    family: str
    scaffold: str
    language: str


def parse_family(text: str) -> dict[str, Member]:
    """Return task → member of ``NAME:en=TASK,fr=TASK``, for tasks that do not say so themselves.

    Raises:
        ConfigError: it is not of this form, has one language, or names a task twice.
    """
    name, colon, rest = text.partition(":")
    parts = [part.partition("=") for part in rest.split(",") if part.strip()]
    found = {task.strip(): Member(name.strip(), NATIVE, tag.strip()) for tag, _, task in parts}
    good = colon and name.strip() and all(re.fullmatch(_TAG, m.language) for m in found.values()) and "" not in found
    if not good or len(found) < len(parts) or len({m.language for m in found.values()}) < max(2, len(parts)):
        raise ConfigError(
            f"--family {text!r}: write NAME:LANGUAGE=TASK,LANGUAGE=TASK with two languages or more, each with a task "
            "of its own, such as xnli:en=xnli_en,fr=xnli_fr."
        )
    return found


def members(curves: Iterable[Curve], given: Mapping[str, Member] | None = None) -> dict[str, tuple[Member, ...]]:
    """Return task → its places in the families of which there are at least two languages.

    English words around an English item are native too, so such a task stands in both scaffolds.

    Args:
        curves: whose tasks say what they are.
        given: tasks that somebody else says it of; that goes before.
    """
    found: dict[str, Member] = {}
    for curve in curves:
        said = [curve.task_identity.get(name) for name in ("family", "scaffold", "language")]
        if given is not None and curve.task in given:
            found[curve.task] = given[curve.task]
        elif all(isinstance(each, str) for each in said):
            found[curve.task] = Member(str(said[0]).removeprefix(_PREFIX), str(said[1]), str(said[2]))
    places = {task: {member} for task, member in found.items()}
    taken = set(found.values())
    for task, member in found.items():
        native = Member(member.family, NATIVE, member.language)
        if member.language == REFERENCE and native not in taken:
            places[task].add(native)
    languages: dict[tuple[str, str], set[str]] = {}
    for member in set().union(*places.values()):
        languages.setdefault((member.family, member.scaffold), set()).add(member.language)
    kept = {
        task: tuple(sorted(m for m in own if len(languages[m.family, m.scaffold]) > 1)) for task, own in places.items()
    }
    return {task: own for task, own in sorted(kept.items()) if own}


def extracted_in(vector: Mapping[str, Any], languages: Collection[str]) -> tuple[str, tuple[str, ...]] | None:
    """Return what a vector stands for and the languages of the data that it was made of; None where it does not say.

    Its data is named ``xl_<what>_<language>``, ``xl_<what>`` for all languages, or anything that ends in
    ``_<language>``; a combined vector names the data of all its parents.

    Args:
        vector: what the records know of it.
        languages: the only ones that count as such in names that do not begin with ``xl_``.
    """
    data = vector.get("data")
    named = [data] if isinstance(data, str) else data if isinstance(data, Sequence) else []
    found = [_split(str(name), languages) for name in named]
    concepts = {each[0] for each in found if each is not None}
    if not found or None in found or len(concepts) != 1:
        return None
    return concepts.pop(), ordered(each[1] for each in found if each is not None)


def ordered(languages: Iterable[str]) -> tuple[str, ...]:
    """Return languages with the reference first, the others by name."""
    return tuple(sorted(set(languages), key=lambda language: (language != REFERENCE, language)))


def _split(name: str, languages: Collection[str]) -> tuple[str, str] | None:
    stem = name.removeprefix(_PREFIX).removesuffix(f"_{NATIVE}")
    if name.startswith(_PREFIX):
        parts = re.fullmatch(rf"(.+)_({_TAG})", stem)
        return (stem, ALL) if parts is None else (parts[1], parts[2])
    for language in sorted(languages, key=len, reverse=True):
        rest = stem.removesuffix(language)
        if rest != stem and rest[-1:] in ("_", "-", ".") and rest[:-1]:
            return rest[:-1], language
    return None
