"""Operations: the ways of editing one position, behind one contract (:class:`Operation`).

A package adds its own under the entry-point group ``lm_eval_steer.operations``.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.operations.ablate import Ablate
from lm_eval_steer.operations.add import Add
from lm_eval_steer.operations.add_norm_preserving import AddNormPreserving
from lm_eval_steer.operations.base import Operation
from lm_eval_steer.operations.clamp import Clamp
from lm_eval_steer.suggest import choice_message

OPERATIONS: dict[str, Operation] = {op.name: op for op in (Add(), AddNormPreserving(), Ablate(), Clamp())}

__all__ = ["OPERATIONS", "Operation", "get_operation"]


def get_operation(name: str) -> Operation:
    """Return the operation called ``name``.

    Raises:
        ConfigError: there is none, neither here nor in an installed plugin; the message lists ours.
    """
    if name in OPERATIONS:
        return OPERATIONS[name]
    for point in entry_points(group="lm_eval_steer.operations", name=name):
        operation = point.load()()
        if not isinstance(operation, Operation):
            raise ConfigError(f"the plugin operation {name!r} ({point.value}) does not implement Operation.")
        return operation
    raise ConfigError(choice_message("operation", str(name), OPERATIONS))
