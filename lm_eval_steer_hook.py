"""Lets an lm-eval that discovers no plugins (0.4.13) find ``steered_hf`` and the packaged tasks.

Run by ``zz_lm_eval_steer.pth`` at every start of Python, hence small and without imports but two that are loaded by
then. This module is itself the finder: it waits for the two modules below. ``LM_EVAL_STEER_NO_HOOK=1`` says no.
"""

import os
import sys

TYPE_CHECKING = False  # the name type checkers take for true; importing typing would cost more than all the rest
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

TARGETS = ("lm_eval.models", "lm_eval.tasks.manager")


def find_spec(
    name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
) -> "ModuleSpec | None":
    """Return a target's spec, which registers after loading; None for every other module, as a finder does."""
    if name not in TARGETS:
        return None
    try:
        from lm_eval_steer.post_import import watched_spec
    except ImportError:
        return None  # the package is gone and this file stayed behind: lm-eval goes on without it
    return watched_spec(name, path, target, asked=sys.modules[__name__])


if os.environ.get("LM_EVAL_STEER_NO_HOOK", "0") in ("", "0") and sys.modules[__name__] not in sys.meta_path:
    sys.meta_path.insert(0, sys.modules[__name__])
