"""Curve ↔ JSON values, field by field, so that a curve read back equals the one written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lm_eval_steer.stats.curve import Calibration, Curve, Estimate, NullTest, Point, Selection, SideMetric

_ESTIMATES = ("score", "propensity", "effect", "effect_ld")


def curve_to_dict(curve: Curve) -> dict[str, Any]:
    """Return a curve as JSON values; multipliers that are keys become ``[multiplier, value]`` pairs."""
    band = [[multiplier, list(ends)] for multiplier, ends in sorted(curve.null.band.items())]
    content: dict[str, Any] = _plain(curve)
    return {**content, "null": {**content["null"], "band": band}}


def curve_from_dict(content: Mapping[str, Any]) -> Curve:
    """Return the curve that :func:`curve_to_dict` wrote.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is not the content of a curve.
    """
    data = dict(content)
    for name in ("steerability", "steerability_dose", "range"):
        data[name] = Estimate(**data[name])
    data["points"] = tuple(_point(point) for point in data["points"])
    data["selection"] = None if data["selection"] is None else _selection(data["selection"])
    band = {float(multiplier): (low, high) for multiplier, (low, high) in data["null"]["band"]}
    data["null"] = NullTest(**{**data["null"], "band": band})
    for name in ("items", "flags", "left_out", "item_effects", "item_sizes"):
        data[name] = tuple(data[name])
    return Curve(**data)


def _plain(value: Any) -> Any:
    """Return a dataclass as a dict, all the way down; unlike ``dataclasses.asdict`` long tuples are not copied."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        return [_plain(item) for item in value]
    return list(value) if isinstance(value, tuple) else value


def _point(content: Mapping[str, Any]) -> Point:
    data = dict(content)
    for name in _ESTIMATES:
        data[name] = Estimate(**data[name])
    for name in ("perplexity_ratio", "kl"):
        data[name] = None if data[name] is None else Estimate(**data[name])
    if data["calibration"] is not None:
        data["calibration"] = Calibration(**{name: Estimate(**each) for name, each in data["calibration"].items()})
    data["side_metrics"] = {
        metric: SideMetric(**{name: Estimate(**each) for name, each in found.items()})
        for metric, found in data["side_metrics"].items()
    }
    data["capability"] = {task: Estimate(**estimate) for task, estimate in data["capability"].items()}
    data["flags"] = tuple(data["flags"])
    return Point(**data)


def _selection(content: Mapping[str, Any]) -> Selection:
    return Selection(
        multiplier=content["multiplier"],
        chosen_on=Estimate(**content["chosen_on"]),
        reported=Estimate(**content["reported"]),
        selection_items=tuple(content["selection_items"]),
    )
