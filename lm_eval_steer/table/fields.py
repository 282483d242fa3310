"""Fields: every value of a row by name, for CSV, JSON and sorting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.suggest import choice_message
from lm_eval_steer.sweep.records import Label
from lm_eval_steer.table.row import Row

Best = Literal["high", "low", "near 0"]


@dataclass(frozen=True)
class Field:
    """One value of a row.

    Attributes:
        get: takes it out of a row.
        best: which numbers come first when rows are sorted by it; None for what is no number.
        optional: whether a table is without it where no row has it.
    """

    get: Callable[[Row], Label]
    best: Best | None = None
    optional: bool = False


def _calibration(name: str) -> dict[str, Field]:
    """Return an estimate of :class:`Calibration` and its interval; less is better."""

    def field(end: str) -> Field:
        def get(row: Row) -> Label:
            estimate = getattr(row.calibration, name, None)
            value: float | None = getattr(estimate, end, None)
            return value

        return Field(get, "low", optional=True)

    key = f"delta_{name.removesuffix('_change')}" if name.endswith("_change") else name
    return {key: field("value"), f"{key}_low": field("low"), f"{key}_high": field("high")}


def _place(name: str) -> Field:
    return Field(lambda row: row.place.get(name))


FIELDS: Mapping[str, Field] = {
    "rank": Field(lambda row: row.rank, "low"),
    "tied": Field(lambda row: row.tied),
    "kind": Field(lambda row: row.kind),
    "vector": Field(lambda row: row.vector),
    "sha256": Field(lambda row: row.sha256),
    "method": Field(lambda row: row.method),
    "model": Field(lambda row: row.model),
    "revision": Field(lambda row: row.revision),
    "dtype": Field(lambda row: row.dtype),
    "layer": Field(lambda row: row.place.get("layer"), "low"),
    **{name: _place(name) for name in ("site", "scope", "operation", "normalize", "skip_first", "system_prompt")},
    "multiplier": Field(lambda row: row.multiplier, "low"),
    "relative_dose": Field(lambda row: row.relative_dose, "low"),
    "pairs": Field(lambda row: row.pairs, "high"),
    "letter_balance": Field(lambda row: row.letter_balance, "high"),
    "behaviour": Field(lambda row: row.behaviour),
    "language": Field(lambda row: row.language),
    "n": Field(lambda row: row.n, "high"),
    "n_items": Field(lambda row: row.n_items, "high"),
    "p0": Field(lambda row: row.p0, "high"),
    "p": Field(lambda row: row.p, "high"),
    "E": Field(lambda row: row.effect.value, "high"),
    "E_low": Field(lambda row: row.effect.low, "high"),
    "E_high": Field(lambda row: row.effect.high, "high"),
    "E_selection": Field(lambda row: row.effect_selection, "high"),
    "S": Field(lambda row: row.steerability.value, "high"),
    "S_low": Field(lambda row: row.steerability.low, "high"),
    "S_high": Field(lambda row: row.steerability.high, "high"),
    "anti_frac": Field(lambda row: row.anti_frac, "low"),
    "monotone": Field(lambda row: row.monotone),
    "turns_at": Field(lambda row: row.turns_at, "high"),
    "delta_pb": Field(lambda row: row.delta_position_bias, "near 0"),
    "mass": Field(lambda row: row.mass, "high"),
    "p_null": Field(lambda row: row.p_null, "low"),
    "k": Field(lambda row: row.k, "high"),
    "null": Field(lambda row: row.null_note),
    "off_target": Field(lambda row: row.off_target, "low"),
    "delta_capability": Field(lambda row: row.capability.value, "high"),
    "delta_capability_low": Field(lambda row: row.capability.low, "high"),
    "delta_capability_high": Field(lambda row: row.capability.high, "high"),
    "capability_task": Field(lambda row: row.capability_task),
    "perplexity_ratio": Field(lambda row: row.perplexity_ratio, "low"),
    "kl": Field(lambda row: row.kl, "low", optional=True),
    **_calibration("brier"),
    **_calibration("brier_change"),
    **_calibration("ece"),
    **_calibration("ece_change"),
    "flags": Field(lambda row: " ".join(row.flags)),
    "versions": Field(lambda row: row.versions),
    "id": Field(lambda row: row.id),
}

SORT_KEYS = tuple(name for name, field in FIELDS.items() if field.best is not None)
_SIGNED = {"p0", "p", "E", "E_low", "E_high", "E_selection", "S", "S_low", "S_high"}  # of the score or propensity


def names_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the names of the fields of a table: all that are not optional, and the optional ones that a row has."""
    kept = tuple(rows)
    return tuple(
        name for name, field in FIELDS.items() if not field.optional or any(field.get(row) is not None for row in kept)
    )


def value_of(row: Row, name: str) -> Label:
    """Return a field of a row; None also for what is no finite number."""
    value = FIELDS[name].get(row)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_sort_key(key: str) -> str:
    """Return a sort key as it is spelled in :data:`SORT_KEYS`; ``e`` is ``E``.

    Raises:
        ConfigError: it is none; the message names the nearest one.
    """
    spelled = {name.lower(): name for name in SORT_KEYS}
    if key.lower() not in spelled:
        raise ConfigError(f"--sort: {choice_message('key', key, SORT_KEYS)}")
    return spelled[key.lower()]


def sort_value(row: Row, key: str) -> tuple[bool, float]:
    """Return what a row is sorted by: best first, rows without the number last."""
    field = FIELDS[key]
    value = value_of(row, key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return (True, 0.0)
    if field.best == "near 0":
        return (False, abs(value))
    rising = (field.best == "high") == (row.higher_is_better or key not in _SIGNED)
    return (False, -float(value) if rising else float(value))
