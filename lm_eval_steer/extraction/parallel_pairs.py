"""Contrast pairs out of the crosslingual tasks' train rows, in one language or in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lm_eval_steer.errors import ConfigError, DataError
from lm_eval_steer.extraction.pair_source import PARALLEL, PairItem, PairSource
from lm_eval_steer.parallel_rows import families, family_folder, languages, read_language
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.scaffold import ENGLISH, NATIVE
from lm_eval_steer.suggest import choice_message


@dataclass(frozen=True)
class _Wanted:
    family: str
    langs: tuple[str, ...]
    native: bool


def parallel_source(name: str) -> PairSource:
    """Return the train rows behind the name of a crosslingual task.

    Args:
        name: ``xl_<family>_<lang>`` or, of all languages together, ``xl_<family>``; with ``_native`` the words around
            an item are those of its language.

    Raises:
        ConfigError: no such name.
        DataError: a file is malformed, or no row is a train row.
    """
    known = _names()
    if name not in known:
        raise ConfigError(choice_message("pairs", name, known))
    wanted = known[name]
    items = tuple(item for lang in wanted.langs for item in _items(wanted.family, lang, native=wanted.native))
    if not items:
        raise DataError(f"{name}: no row of its files has the split train, so there are no pairs.")
    packaged = tasks_dir() in family_folder(wanted.family).parents
    return PairSource(name, items, "Apache-2.0" if packaged else None)


def _names() -> Mapping[str, _Wanted]:
    names: dict[str, _Wanted] = {}
    for family in families():
        for native, suffix in ((False, ""), (True, "_native")):
            langs = tuple(lang for lang in languages(family) if lang in NATIVE or not native)
            names[f"{PARALLEL}{family}{suffix}"] = _Wanted(family, langs, native)
            names |= {
                f"{PARALLEL}{family}_{lang}{suffix}": _Wanted(family, (lang,), native)
                for lang in langs
                if lang != "en" or not native
            }
    return names


def _items(family: str, lang: str, *, native: bool) -> list[PairItem]:
    words = NATIVE[lang] if native else ENGLISH
    return [
        PairItem(
            f"{lang}/{row.id}",
            row.question,
            f"{row.question}\n{words.answer}",
            row.matching,
            row.other,
            words=words,
        )
        for row in read_language(family, lang).rows
        if row.split == "train"
    ]
