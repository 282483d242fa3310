"""Runs :func:`lm_eval_steer.register.after_import` when a module of lm-eval has been loaded."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_searching: set[tuple[str, int]] = set()  # by thread: another finder of this kind may ask all finders again


def watched_spec(name: str, path: Sequence[str] | None, target: ModuleType | None, asked: object) -> ModuleSpec | None:
    """Return the spec that the other finders have for a module, with its loader wrapped.

    Args:
        name: the module's full name.
        path: the parent package's ``__path__``.
        target: the module being reloaded, if it is.
        asked: the entry of ``sys.meta_path`` that was asked; it is not asked again.

    Returns:
        None where nobody finds the module, or inside a search that this one started.
    """
    search = (name, threading.get_ident())
    if search in _searching:
        return None
    _searching.add(search)
    try:
        spec = _first_spec(name, path, target, asked)
    finally:
        _searching.discard(search)
    if spec is not None and hasattr(spec.loader, "exec_module"):
        spec.loader = WatchingLoader(spec.loader)  # type: ignore[assignment]
    return spec


def _first_spec(name: str, path: Sequence[str] | None, target: ModuleType | None, asked: object) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        if finder is not asked and find_spec is not None:
            spec: ModuleSpec | None = find_spec(name, path, target)
            if spec is not None:
                return spec
    return None


class WatchingLoader:
    """Loads a module with its own loader, gives that loader back to the module, then registers."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the module's own loader creates: usually None, for Python's default."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then :func:`lm_eval_steer.register.after_import`."""
        from lm_eval_steer import register

        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        register.after_import(module.__name__)
