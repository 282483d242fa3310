"""Identifier: which of some candidate languages a text is in, by a library that works offline."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lm_eval_steer.errors import ConfigError, MissingExtraError
from lm_eval_steer.suggest import choice_message

Probabilities = Callable[[str], Mapping[str, float]]


def open_identifier(name: str, candidates: Iterable[str]) -> tuple[frozenset[str], Probabilities]:
    """Return the candidates that a library knows, and what tells them apart.

    Args:
        name: a key of :data:`IDENTIFIERS`.
        candidates: two-letter codes.

    Raises:
        ConfigError: no such library.
        MissingExtraError: it is not installed.
    """
    if name not in IDENTIFIERS:
        raise ConfigError(choice_message("language identifier", name, IDENTIFIERS))
    return IDENTIFIERS[name](frozenset(candidates))


@functools.cache
def _py3langid(candidates: frozenset[str]) -> tuple[frozenset[str], Probabilities]:
    try:
        library: Any = importlib.import_module("py3langid.langid")
    except ImportError as error:
        raise MissingExtraError("py3langid", "translate") from error
    identifier = library.LanguageIdentifier.from_model_file(library.MODEL_FILE, norm_probs=True)
    known = candidates & frozenset(identifier.labels)
    identifier.set_languages(sorted(known))
    return known, lambda text: dict(identifier.rank(text))


@functools.cache
def _lingua(candidates: frozenset[str]) -> tuple[frozenset[str], Probabilities]:
    try:
        library: Any = importlib.import_module("lingua")
    except ImportError as error:
        raise MissingExtraError("lingua-language-detector", "lingua") from error
    codes = {code: getattr(library.IsoCode639_1, code.upper(), None) for code in sorted(candidates)}
    known = {code: found for code, found in codes.items() if found is not None}
    detector: Any = library.LanguageDetectorBuilder.from_iso_codes_639_1(*known.values()).build()

    def probabilities(text: str) -> Mapping[str, float]:
        found = detector.compute_language_confidence_values(text)
        return {each.language.iso_code_639_1.name.lower(): float(each.value) for each in found}

    return frozenset(known), probabilities


#: Libraries by name; each takes candidates and gives those it knows with their probabilities for a text.
IDENTIFIERS: dict[str, Callable[[frozenset[str]], tuple[frozenset[str], Probabilities]]] = {
    "py3langid": _py3langid,
    "lingua": _lingua,
}
