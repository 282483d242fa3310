"""Makes lm-eval know ``steered_hf`` and the packaged tasks, in this process.

Two ways lead here: :func:`register`, called by ``lm-eval-steer run`` and by programs, and the post-import hook
``lm_eval_steer_hook``, for the stock command ``lm_eval``. Everything here may run twice and then changes nothing.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from lm_eval_steer import paths
from lm_eval_steer.errors import InputError, SteerError

MODEL_NAME = "steered_hf"
MODEL_TARGET = "lm_eval_steer.model:SteeredHF"

_MARK = "_lm_eval_steer"  # on what was wrapped, so that it is not wrapped again, by another copy of this file either
_log = logging.getLogger(__name__)


def register() -> None:
    """Register the model and the packaged tasks; imports lm-eval's registry and task manager.

    Calling it again changes nothing.
    """
    import lm_eval.models
    import lm_eval.tasks.manager  # noqa: F401

    add_model()
    add_tasks()


def after_import(module: str) -> None:
    """Do what is due when a module of lm-eval has just been loaded; called by the post-import hook.

    Args:
        module: ``"lm_eval.models"`` or ``"lm_eval.tasks.manager"``; others are ignored.
    """
    if module == "lm_eval.models":
        add_model()
        show_errors_plainly()
    elif module == "lm_eval.tasks.manager":
        add_tasks()


def add_model() -> None:
    """Put the placeholder of :class:`~lm_eval_steer.model.SteeredHF` into the model registry.

    ``lm_eval.models`` must be loaded: lm-eval fills its registry with the built-in models only while it is empty.
    A newer lm-eval has read our entry point by then; its entry stays.
    """
    from lm_eval.api.registry import model_registry

    if MODEL_NAME not in model_registry:
        model_registry.register(MODEL_NAME, target=MODEL_TARGET)


def add_tasks() -> None:
    """Have every ``TaskManager`` that indexes lm-eval's own tasks index the packaged ones after them.

    ``include_defaults=False`` asks for a bare manager and gets one. Paths given by the user come last and so
    override ours, as they override lm-eval's.
    """
    from lm_eval.tasks.manager import TaskManager

    original = TaskManager.__init__
    if hasattr(original, _MARK):
        return
    signature = inspect.signature(original)
    if not {"include_path", "include_defaults"} <= signature.parameters.keys():
        _log.warning("this lm-eval's TaskManager is new to lm-eval-steer; pass --include_path %s", _tasks_dir())
        return

    @functools.wraps(original)
    def init(*args: Any, **kwargs: Any) -> None:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        asked = given.arguments["include_path"]
        if given.arguments["include_defaults"]:
            given.arguments["include_path"] = with_packaged_tasks(asked)
        original(*given.args, **given.kwargs)
        args[0].include_path = asked  # what the caller gave is what a reader of the attribute expects

    setattr(init, _MARK, True)
    TaskManager.__init__ = init


def with_packaged_tasks(include_path: str | Path | list[str | Path] | tuple[str | Path, ...] | None) -> list[Any]:
    """Return the paths to index: the packaged tasks, then what the user asked for.

    Args:
        include_path: one path, several, or None, as ``TaskManager`` takes it.

    Returns:
        The user's paths alone where one of them holds ours already, so that no task is indexed twice.
    """
    asked = list(include_path) if isinstance(include_path, list | tuple) else [include_path] if include_path else []
    ours = _tasks_dir()
    if ours is None or any(ours.is_relative_to(Path(path).resolve()) for path in asked):
        return asked
    return [ours, *asked]


def show_errors_plainly() -> None:
    """In lm-eval's own command, end a :class:`SteerError` with one message and the error's exit code.

    An exception hook covers ``lm_eval``, ``lm-eval`` and ``python -m lm_eval`` alike. Other programs keep their
    tracebacks, and so does every other exception.
    """
    if not _is_lm_eval(sys.argv) or hasattr(sys.excepthook, _MARK):
        return
    previous = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, SteerError):
            previous(kind, error, trace)
            return
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code)  # Python takes the exit code from a SystemExit raised here

    setattr(excepthook, _MARK, True)
    sys.excepthook = excepthook


def _is_lm_eval(argv: list[str]) -> bool:
    program = Path(os.fspath(argv[0])) if argv else Path()
    name = program.parent.name if program.name == "__main__.py" else program.name.removesuffix(".exe")
    return name in ("lm_eval", "lm-eval")


def _tasks_dir() -> Path | None:
    try:
        return paths.tasks_dir().resolve()
    except InputError as error:  # lm-eval is of use without our tasks
        _log.warning("%s", error)
        return None
