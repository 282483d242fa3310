"""Argos: the user's own argostranslate packages as a back-end."""

from __future__ import annotations

import importlib
from typing import Any

from lm_eval_steer.crosslingual.items import base
from lm_eval_steer.crosslingual.markers import translate_protected
from lm_eval_steer.errors import ConfigError, MissingExtraError


class ArgosBackend:
    """Translates with what ``argospm install`` put on this machine.

    Raises:
        MissingExtraError: argostranslate is not installed.
    """

    identity = "argos"

    def __init__(self) -> None:
        try:
            self._library: Any = importlib.import_module("argostranslate.translate")
        except ImportError as error:
            raise MissingExtraError("argostranslate", "argos") from error

    def translate(self, texts: list[str], src: str, tgt: str) -> list[str]:
        """Return translations, one text at a time; markers stay.

        Raises:
            ConfigError: no package for this direction is installed.
        """
        translation = self._direction(base(src), base(tgt))
        return translate_protected(texts, lambda lines: [str(translation.translate(line)) for line in lines])

    def given(self, row: str, segment: str, tgt: str) -> str | None:
        """Return None: every text is translated."""
        return None

    def made_from(self, row: str, tgt: str) -> str | None:
        """Return None: what is translated is the source as it is now."""
        return None

    def _direction(self, src: str, tgt: str) -> Any:
        installed = {language.code: language for language in self._library.get_installed_languages()}
        found = installed[src].get_translation(installed[tgt]) if {src, tgt} <= installed.keys() else None
        if found is None:
            raise ConfigError(
                f"argostranslate has no package from {src} to {tgt}; installed languages: "
                f"{', '.join(sorted(installed)) or 'none'}. Install it with: argospm install translate-{src}_{tgt}"
            )
        return found
