"""Spec values: how each key of a sweep's spec is read, from YAML or JSON or as the command line spells it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval_steer.axes import parse_multipliers
from lm_eval_steer.errors import ConfigError
from lm_eval_steer.files import canonical_json
from lm_eval_steer.gate_args import GATE_KEYS
from lm_eval_steer.model_args import PLACEMENT_KEYS, PlanRequest, parse_arguments
from lm_eval_steer.plan import check_multiplier
from lm_eval_steer.suggest import choice_message
from lm_eval_steer.sweep.system_prompts import parse_system_prompts


def _texts(key: str, value: Any, *, separator: str) -> tuple[str, ...]:
    """Return a list's texts; a scope's own white space counts, so its items are taken as they are."""
    if isinstance(value, str):
        parts = value.split(separator)
        value = parts if separator == ";" else [part.strip() for part in parts]
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise ConfigError(f"sweep: {key} is a list of names, not {value!r}.")
    return tuple(value)


def _layers(value: Any) -> str:
    items = value if isinstance(value, list | tuple) else [value]
    if not items or not all(isinstance(item, int | str) and not isinstance(item, bool) for item in items):
        raise ConfigError(f"sweep: layers {value!r}: write all, 12, 10-14 or a list of these.")
    return ",".join(map(str, items))


def _multipliers(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):
        return parse_multipliers(value)
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(sorted(check_multiplier(item) for item in items))


def _plans(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, Mapping) for item in value):
        raise ConfigError("sweep: placements is a list of plans, each an object.")
    try:
        plans: tuple[Mapping[str, Any], ...] = tuple(json.loads(canonical_json(list(value))))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sweep: placements hold a value that is no text or number: {error}.") from None
    return plans


def _gates(value: Any) -> tuple[Mapping[str, Any] | None, ...]:
    items = value if isinstance(value, list | tuple) else [value]
    gates = [None if item in (None, "none") else item for item in items]
    for gate in gates:
        if gate is not None and not (isinstance(gate, Mapping) and gate):
            raise ConfigError(f"sweep: gates: {gate!r} is neither none nor an object of {', '.join(GATE_KEYS)}.")
        for key in gate or ():
            if key not in GATE_KEYS:
                raise ConfigError(f"sweep: gates: {choice_message('key', str(key), GATE_KEYS)}")
    return tuple(gates)


READERS: Mapping[str, Callable[[Any], Any]] = {
    **{key: partial(_texts, key, separator=",") for key in ("vectors", "operations", "normalize", "orders", "tasks")},
    "scopes": partial(_texts, "scopes", separator=";"),
    "layers": _layers,
    "multipliers": _multipliers,
    "gates": _gates,
    "system_prompts": parse_system_prompts,
    "placements": _plans,
}


def explicit_request(item: Mapping[str, Any], base: Path | None, allow: bool) -> PlanRequest:
    """Return the request of one item of ``placements``.

    Raises:
        ConfigError: it is no plan.
        InputError: a vector cannot be read.
    """
    if set(item) == {"order"}:
        return parse_arguments(item, base)
    parts = item["placements"] if set(item) == {"placements"} else [item]
    if not isinstance(parts, list) or not parts or not all(isinstance(part, Mapping) for part in parts):
        raise ConfigError("sweep: a plan is model arguments, or {placements: [...]} with a list of them.")
    for key in (key for part in parts for key in part):
        if key not in PLACEMENT_KEYS:
            raise ConfigError(f"sweep: placements: {choice_message('key', str(key), PLACEMENT_KEYS)}")
    return PlanRequest(tuple(entry for part in parts for entry in parse_arguments(part, base).entries), allow)
