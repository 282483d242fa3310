"""Where the packaged tasks and vectors are: in a wheel, an editable install or a checkout."""

from __future__ import annotations

import os
from pathlib import Path

from lm_eval_steer.errors import InputError

_PACKAGE = Path(__file__).resolve().parent


def data_dir(name: str) -> Path:
    """Return the folder ``name`` (``tasks`` or ``vectors``) of this installation.

    A wheel carries it inside the package; an editable install and a checkout have it beside the package.

    Raises:
        InputError: neither is there.
    """
    for candidate in (_PACKAGE / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise InputError(
        f"this installation of lm-eval-steer has no folder {name!r} in or beside {_PACKAGE}. Install it again."
    )


def tasks_dir() -> Path:
    """Return the folder of the packaged lm-eval tasks."""
    return data_dir("tasks")


def vectors_dir() -> Path:
    """Return the folder of the shipped vectors."""
    return data_dir("vectors")


def cache_dir() -> Path:
    """Return the user's cache folder: ``LM_EVAL_STEER_CACHE``, else ``XDG_CACHE_HOME``, else ``~/.cache``."""
    own = os.environ.get("LM_EVAL_STEER_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "lm_eval_steer"
