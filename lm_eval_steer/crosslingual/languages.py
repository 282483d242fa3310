"""Languages: the names and three-letter codes that translation models call them by."""

from __future__ import annotations

from dataclasses import dataclass

from lm_eval_steer.errors import ConfigError


@dataclass(frozen=True)
class Language:
    """One language: its English name, and its code in NLLB (ISO 639-3 and script)."""

    name: str
    nllb: str


LANGUAGES = {
    "ar": Language("Arabic", "arb_Arab"),
    "cs": Language("Czech", "ces_Latn"),
    "de": Language("German", "deu_Latn"),
    "en": Language("English", "eng_Latn"),
    "es": Language("Spanish", "spa_Latn"),
    "fi": Language("Finnish", "fin_Latn"),
    "fr": Language("French", "fra_Latn"),
    "he": Language("Hebrew", "heb_Hebr"),
    "hi": Language("Hindi", "hin_Deva"),
    "id": Language("Indonesian", "ind_Latn"),
    "it": Language("Italian", "ita_Latn"),
    "ja": Language("Japanese", "jpn_Jpan"),
    "ko": Language("Korean", "kor_Hang"),
    "nl": Language("Dutch", "nld_Latn"),
    "pl": Language("Polish", "pol_Latn"),
    "pt": Language("Portuguese", "por_Latn"),
    "ru": Language("Russian", "rus_Cyrl"),
    "sv": Language("Swedish", "swe_Latn"),
    "tr": Language("Turkish", "tur_Latn"),
    "uk": Language("Ukrainian", "ukr_Cyrl"),
    "vi": Language("Vietnamese", "vie_Latn"),
    "zh": Language("Chinese", "zho_Hans"),
    "zh-Hant": Language("Traditional Chinese", "zho_Hant"),
}


def language(tag: str) -> Language:
    """Return the language of a BCP-47 tag, by the whole tag or else by what stands before its first hyphen.

    Raises:
        ConfigError: it is not in :data:`LANGUAGES`.
    """
    found = LANGUAGES.get(tag) or LANGUAGES.get(tag.partition("-")[0].lower())
    if found is None:
        raise ConfigError(f"no name is known for the language {tag!r}. Known: {', '.join(LANGUAGES)}.")
    return found
