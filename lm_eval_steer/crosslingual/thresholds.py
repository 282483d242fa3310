"""Thresholds: from which number on a translation is flagged or fails, by language, read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lm_eval_steer.crosslingual.items import base
from lm_eval_steer.errors import ConfigError
from lm_eval_steer.spec_file import read_spec
from lm_eval_steer.suggest import choice_message

PACKAGED = Path(__file__).with_name("thresholds.yaml")


@dataclass(frozen=True)
class Thresholds:
    """The numbers of one language.

    Attributes:
        scripts: first words of the Unicode names of its letters.
        needs: script → least share of a row's letters.
        script_fail, script_flag: least share of a segment's letters in ``scripts``.
        language_fail, language_flag: least probability of the language among the candidates.
        language_letters: segments with fewer letters are not asked for their language.
        candidates: languages that a text may be in, beside those of the files.
        ratio: median of characters to the source; None where none is known.
        ratio_rows: rows from which on a file has its own median.
        ratio_drift: factor of ``ratio`` within which the own median is held.
        length_flag, length_fail: greatest :func:`~lm_eval_steer.crosslingual.text.length_deviation`.
        sentences_fail: the same, of a short segment with fewer sentences than its source.
        same_fail: chrF of a segment to its source.
        same_letters: shorter segments that stay as they are get a flag only.
        choices_fail, choices_flag: chrF between two choices.
        back_fail, back_flag: least chrF++ of the back-translation.
        match_margin: cosine by which a row is nearer to another source row.
        order_margin: chrF by which choices are nearer to each other's sources.
        quality_fail, quality_flag: least score of a quality estimation model; None only records it.
    """

    scripts: tuple[str, ...]
    needs: Mapping[str, float]
    script_fail: float
    script_flag: float
    language_fail: float
    language_flag: float
    language_letters: int
    candidates: tuple[str, ...]
    ratio: float | None
    ratio_rows: int
    ratio_drift: float
    length_flag: float
    length_fail: float
    sentences_fail: float
    same_fail: float
    same_letters: int
    choices_fail: float
    choices_flag: float
    back_fail: float
    back_flag: float
    match_margin: float
    order_margin: float
    quality_fail: float | None
    quality_flag: float | None


_NAMES = tuple(field.name for field in fields(Thresholds))
_LISTS = ("scripts", "candidates")
_MAY_BE_NULL = ("ratio", "quality_fail", "quality_flag")


@dataclass(frozen=True)
class ThresholdFile:
    """Thresholds of all languages: the defaults, and what single languages have instead."""

    defaults: Thresholds
    languages: Mapping[str, Mapping[str, Any]]

    def of(self, lang: str) -> Thresholds:
        """Return a language's numbers, by its whole tag, else by what stands before its first hyphen."""
        return replace(self.defaults, **self.languages.get(lang, self.languages.get(base(lang), {})))


def read_thresholds(path: Path | None = None) -> ThresholdFile:
    """Return the packaged thresholds, with those of a file over them.

    Args:
        path: a YAML file with ``defaults`` and ``languages``, each as far as it differs; None for none.

    Raises:
        ConfigError: the file cannot be read, or has an unknown name or a value that is no number.
    """
    packaged = read_spec(PACKAGED)
    own = {} if path is None else read_spec(path)
    for name in own:
        if name not in ("defaults", "languages"):
            raise ConfigError(f"{path}: {choice_message('section', name, ('defaults', 'languages'))}")
    defaults = {**_section(packaged["defaults"], PACKAGED), **_section(own.get("defaults") or {}, path)}
    languages = {tag: _section(value, PACKAGED) for tag, value in packaged["languages"].items()}
    for tag, value in (own.get("languages") or {}).items():
        languages[tag] = {**languages.get(tag, {}), **_section(value, path)}
    return ThresholdFile(Thresholds(**defaults), languages)


def _section(values: Any, path: Path | None) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: wants names with numbers, found {values!r}.")
    found = {}
    for name, value in values.items():
        if name not in _NAMES:
            raise ConfigError(f"{path}: {choice_message('threshold', str(name), _NAMES)}")
        found[name] = _value(name, value, path)
    return found


def _value(name: str, value: Any, path: Path | None) -> Any:
    if name in _LISTS:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ConfigError(f"{path}: {name} is {value!r}; it must be a list of words.")
        return tuple(value)
    if name == "needs":
        if not isinstance(value, Mapping) or not all(_is_number(each) for each in value.values()):
            raise ConfigError(f"{path}: needs is {value!r}; it must name scripts with shares.")
        return dict(value)
    if not _is_number(value) and not (value is None and name in _MAY_BE_NULL):
        raise ConfigError(f"{path}: {name} is {value!r}; it must be a number.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
