"""Back-ends: what translates, behind one contract; none of them touches the network by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.suggest import choice_message


class Backend(Protocol):
    """Something that translates.

    Attributes:
        identity: what a row says of its translator; it changes when the translations may.
    """

    identity: str

    def translate(self, texts: list[str], src: str, tgt: str) -> list[str]:
        """Return a translation of each text.

        Args:
            texts: none of them blank.
            src: language of the texts, BCP-47.
            tgt: language wanted, BCP-47.

        Raises:
            SteerError: a text cannot be translated by this back-end.
        """

    def given(self, row: str, segment: str, tgt: str) -> str | None:
        """Return a translation that belongs to this very segment of a row, or None to have its text translated."""

    def made_from(self, row: str, tgt: str) -> str | None:
        """Return the ``source_hash`` that the given translation of a row was made from; None where it says none."""


@dataclass(frozen=True)
class Settings:
    """What a back-end is opened with.

    Attributes:
        file: of ``file``: where translations made elsewhere are; ``{lang}`` in it stands for the language.
        model: of ``hf``: a folder, or a hub name that is in the local cache.
        batch_size: texts a forward pass, of ``hf``.
        device: of ``hf``; None for the best there is.
    """

    file: Path | None = None
    model: str | None = None
    batch_size: int = 8
    device: str | None = None


def open_backend(name: str, settings: Settings) -> Backend:
    """Return a back-end by its name in :data:`BACKENDS`.

    Raises:
        ConfigError: no such back-end, or it lacks a setting.
        MissingExtraError: its library is not installed.
    """
    if name not in BACKENDS:
        raise ConfigError(choice_message("back-end", name, BACKENDS))
    return BACKENDS[name](settings)


def _file(settings: Settings) -> Backend:
    from lm_eval_steer.crosslingual.file_backend import FileBackend

    if settings.file is None:
        raise ConfigError("the back-end file wants --file PATH, the translations made elsewhere.")
    return FileBackend(settings.file)


def _hf(settings: Settings) -> Backend:
    from lm_eval_steer.crosslingual.hf_backend import load_hf

    if settings.model is None:
        raise ConfigError("the back-end hf wants --model, a folder or a hub name that is in the local cache.")
    return load_hf(settings.model, batch_size=settings.batch_size, device=settings.device)


def _argos(settings: Settings) -> Backend:
    from lm_eval_steer.crosslingual.argos_backend import ArgosBackend

    return ArgosBackend()


BACKENDS: dict[str, Callable[[Settings], Backend]] = {"file": _file, "hf": _hf, "argos": _argos}
