"""Dose and response: E(λ) with its interval, the band of random directions behind it, controls beside it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from lm_eval_steer.names import slug
from lm_eval_steer.report.labels import (
    Naming,
    TaskCurves,
    dose,
    is_random,
    is_subject,
    number,
    owner_name,
    setting_key,
    short,
    vector_name,
)
from lm_eval_steer.report.panel import SMALL, WIDTH, Panel, legend, span
from lm_eval_steer.report.picture import Numbers, Picture
from lm_eval_steer.report.scene import Area, Dot, Line, Mark, Scene, Shape, Text, fitted
from lm_eval_steer.stats.curve import Curve, Point

MOST_PANELS = 12
_COLUMNS = 4
_LEFT, _HEAD, _HEIGHT, _ROW = 64, 38, 128, 206  # pixels
_BAND_ALPHA, _INTERVAL_ALPHA = 0.3, 0.22
_CONTROL_STYLES: Mapping[str, tuple[str, Shape]] = {"letter": ("fall", "square"), "shuffled": ("fourth", "triangle")}
_CAPTION = (
    "Each panel is one vector at one place. Line: E(λ), the mean change from the unsteered model, over the same items; "
    "shaded: its 95 % interval. Grey band: where 95 % of random directions of the same norm lie. A line inside the "
    "band is no effect of this direction. p: this curve alone against its K random directions. Hollow points are "
    "flagged."
)


def dose_response(group: TaskCurves, naming: Naming) -> Picture | None:
    """Return the dose–response curves of one task; None where no curve has two finite points."""
    usable = [curve for curve in group.curves if not is_random(curve) and len(_finite(curve)) > 1]
    owners = {(owner_name(c), setting_key(c, layer=True)): c.id for c in usable if is_subject(c)}
    beside: dict[str, list[Curve]] = {}
    panels = []
    for curve in usable:
        owner = None if is_subject(curve) else owners.get((owner_name(curve), setting_key(curve, layer=True)))
        if owner is None:
            panels.append(curve)
        else:
            beside.setdefault(owner, []).append(curve)
    if not panels:
        return None
    shown = strongest(panels, MOST_PANELS)
    left_out = len(panels) - len(shown)
    note = f" The {len(shown)} curves with the largest |S| of {len(panels)} are shown." if left_out else ""
    return Picture(
        name=f"dose-response-{slug(group.slug_source)}",
        title=f"Dose and response on {short(group.title, 60)}",
        caption=_CAPTION + note,
        alt=f"{len(shown)} panels of effect against multiplier. "
        + " ".join(f"{short(naming.full(curve), 80)}: {_in_words(curve)}." for curve in shown),
        scene=_scene(shown, beside, naming),
        numbers=_numbers([*shown, *(c for curve in shown for c in beside.get(curve.id, ()))], naming),
    )


def strongest(curves: Sequence[Curve], most: int) -> list[Curve]:
    """Return at most ``most`` curves, those with the largest |S| (the largest |E| where there is no S), in order."""
    ranked = sorted(curves, key=lambda curve: (-_strength(curve), curve.id))[:most]
    kept = {curve.id for curve in ranked}
    return [curve for curve in curves if curve.id in kept]


def _strength(curve: Curve) -> float:
    if curve.steerability.value is not None:
        return abs(curve.steerability.value)
    return max((abs(point.effect.value or 0.0) for point in curve.points), default=0.0)


def _finite(curve: Curve) -> list[Point]:
    return [point for point in curve.points if point.effect.value is not None]


def _scene(shown: Sequence[Curve], beside: Mapping[str, Sequence[Curve]], naming: Naming) -> Scene:
    layers = {curve.labels.get("layer") for curve in shown}
    columns = len(layers) if 1 < len(layers) <= _COLUMNS and len(shown) % len(layers) == 0 else _COLUMNS
    columns = min(columns, len(shown))
    cell = (WIDTH - _LEFT) / max(columns, 2)
    curves = [*shown, *(control for curve in shown for control in beside.get(curve.id, ()))]
    xs, ys = [point.multiplier for curve in curves for point in _finite(curve)], _extent(curves)
    marks: list[Mark] = []
    for index, curve in enumerate(shown):
        row, column = divmod(index, columns)
        left, top = _LEFT + column * cell, row * _ROW
        panel = Panel(
            span(xs, left + 2, left + cell - 26, margin=0.04), span(ys, top + _HEAD + _HEIGHT, top + _HEAD, margin=0.05)
        )
        marks.append(Text(left, top + 13, fitted(vector_name(curve), cell - 26), bold=True))
        marks.append(Text(left, top + 28, fitted(_subtitle(curve, naming), cell - 20, SMALL), SMALL, "muted"))
        marks += panel.zeros()
        marks += _panel_marks(panel, curve, beside.get(curve.id, ()))
        marks += panel.x_axis("multiplier λ" if index + columns >= len(shown) else "")
        marks += panel.y_axis("effect E(λ)") if column == 0 else []
    height = -(-len(shown) // columns) * _ROW
    entries = legend(_entries(shown, beside), _LEFT, height + 4, WIDTH - _LEFT)
    return Scene(WIDTH, height + 4 + entries[1], (*marks, *entries[0]))


def _extent(curves: Sequence[Curve]) -> list[float]:
    """Return every number that the y axis has to hold."""
    effects = [point.effect for curve in curves for point in _finite(curve)]
    ends = [end for effect in effects for end in (effect.value, effect.low, effect.high)]
    bands = [end for curve in curves for pair in curve.null.band.values() for end in pair]
    return [end for end in (*ends, *bands) if end is not None]


def _panel_marks(panel: Panel, curve: Curve, controls: Sequence[Curve]) -> list[Mark]:
    marks: list[Mark] = []
    band = _band(curve)
    doses = sorted(band)
    if len(doses) > 1:
        low, high = zip(*(band[multiplier] for multiplier in doses), strict=True)
        marks.append(Area(panel.band(doses, low, high), "band", _BAND_ALPHA))
    for control in controls:
        points = _finite(control)
        places = panel.line([point.multiplier for point in points], [point.effect.value or 0.0 for point in points])
        role, shape = _control_style(control)
        marks.append(Line(places, role, 1.5, dashed=True))
        marks += [Dot(x, y, role, 2.8, shape) for x, y in places]
    return [*marks, *_own_line(panel, _finite(curve))]


def _band(curve: Curve) -> Mapping[float, tuple[float, float]]:
    """Return the band of random directions; where λ = 0 is the unsteered model they all have its effect, 0."""
    at_zero = any(point.multiplier == 0 and point.effect.value == 0 for point in curve.points)
    return {0.0: (0.0, 0.0), **curve.null.band} if at_zero and curve.null.band else curve.null.band


def _own_line(panel: Panel, points: Sequence[Point]) -> list[Mark]:
    marks: list[Mark] = []
    runs = itertools.groupby(points, lambda point: point.effect.low is not None or point.multiplier == 0)
    for bounded in (list(run) for has_interval, run in runs if has_interval):
        ends = [(point.effect.low or 0.0, point.effect.high or 0.0) for point in bounded]
        low, high = zip(*ends, strict=True)
        if len(bounded) > 1:  # no ribbon over a λ that has no interval
            marks.append(Area(panel.band([point.multiplier for point in bounded], low, high), "rise", _INTERVAL_ALPHA))
    places = panel.line([point.multiplier for point in points], [point.effect.value or 0.0 for point in points])
    marks.append(Line(places, "rise", 2))
    for point, (x, y) in zip(points, places, strict=True):
        flags = f" ({', '.join(point.flags)})" if point.flags else ""
        about = f"λ {dose(point.multiplier)}: E {number(point.effect.value, 4, sign=True)}{flags}"
        marks.append(Dot(x, y, "rise", 3.4, hollow=bool(point.flags), about=about))
    return marks


def _control_style(curve: Curve) -> tuple[str, Shape]:
    return _CONTROL_STYLES.get(str(curve.labels.get("control")), ("fifth", "diamond"))


def _entries(shown: Sequence[Curve], beside: Mapping[str, Sequence[Curve]]) -> list[tuple[list[Mark], str]]:
    """Return what the legend explains: only what is in the picture."""
    stroke = ((-12.0, 0.0), (12.0, 0.0))
    block = ((-12.0, -6.0), (12.0, -6.0), (12.0, 6.0), (-12.0, 6.0))
    own: list[Mark] = [Area(block, "rise", _INTERVAL_ALPHA), Line(stroke, "rise", 2), Dot(0, 0, "rise", 3.4)]
    entries: list[tuple[list[Mark], str]] = [(own, "the vector, 95 % interval")]
    if any(len(curve.null.band) > 1 for curve in shown):
        entries.append(([Area(block, "band", _BAND_ALPHA)], "95 % of random directions"))
    for kind, control in sorted({str(c.labels.get("control")): c for each in beside.values() for c in each}.items()):
        role, shape = _control_style(control)
        entries.append(([Line(stroke, role, 1.5, dashed=True), Dot(0, 0, role, 2.8, shape)], f"{short(kind)} control"))
    if any(point.flags for curve in shown for point in _finite(curve)):
        entries.append(([Dot(0, 0, "rise", 3.4, hollow=True)], "flagged"))
    return entries


def _subtitle(curve: Curve, naming: Naming) -> str:
    null = f"p {curve.null.p:.2g} (K {curve.null.k})" if curve.null.p is not None else "no null"
    return " · ".join(part for part in (naming.place(curve), null) if part)


def _in_words(curve: Curve) -> str:
    first, last = _finite(curve)[0], _finite(curve)[-1]
    ends = f"{number(first.effect.value, 3, sign=True)} at {dose(first.multiplier)}"
    return f"{ends} to {number(last.effect.value, 3, sign=True)} at {dose(last.multiplier)}"


def _numbers(curves: Sequence[Curve], naming: Naming) -> Numbers:
    rows = []
    for curve in curves:
        for point in curve.points:
            band = curve.null.band.get(point.multiplier)
            rows.append(
                (
                    naming.full(curve),
                    dose(point.multiplier),
                    number(point.effect.value, 4, sign=True),
                    number(point.effect.low, 4, sign=True),
                    number(point.effect.high, 4, sign=True),
                    number(band[0] if band else None, 4, sign=True),
                    number(band[1] if band else None, 4, sign=True),
                    ", ".join(point.flags) or "none",
                )
            )
    header = ("curve", "λ", "E", "E low", "E high", "null low", "null high", "flags")
    return Numbers(header, tuple(rows))
