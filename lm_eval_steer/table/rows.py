"""Rows: what stands in the table for a set of curves that may be compared, vectors and nulls alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from lm_eval_steer.files import content_id
from lm_eval_steer.stats.curve import Curve, Estimate, Point
from lm_eval_steer.table.choose import band, best_of, mean, nulls_of, test_of
from lm_eval_steer.table.elsewhere import largest_drop, off_target
from lm_eval_steer.table.keys import behaviour, kind, model_key, place, place_key, vector_key
from lm_eval_steer.table.row import NONE, Row

Per = Literal["vector", "curve"]
NO_NULL, SOME_NULLS = "no null", "nulls at some layers only"
PROMPTED = 1.0  # where the curve of a system prompt has its point
_TOO_SMALL = "insufficient_grid"


def make_rows(curves: Sequence[Curve], everything: Sequence[Curve], per: Per) -> list[Row]:
    """Return the rows of comparable curves: vectors, then the nulls.

    Args:
        curves: those of one ranking, without random directions.
        everything: all curves there are, random directions and other tasks too.
        per: ``vector`` for one row a vector at its best layer, ``curve`` for one row a curve.
    """
    families: dict[tuple[Any, ...], list[Curve]] = {}
    prompts = [curve for curve in curves if kind(curve) == "prompt"]
    for curve in (curve for curve in curves if kind(curve) != "prompt"):
        cells_of = (vector_key(curve), model_key(curve), place_key(curve, layer=per == "curve"))
        families.setdefault((*cells_of, curve.id if per == "curve" else ""), []).append(curve)
    rows, summaries = [], []
    for cells in families.values():
        chosen = best_of(cells)
        candidates = [curve for curve in cells if curve.selection is not None] or [chosen]
        draws = nulls_of(candidates, everything)
        p, k = test_of(chosen, candidates, draws)
        note = "" if k else NO_NULL if not any(nulls_of([cell], everything) for cell in candidates) else SOME_NULLS
        rows.append(dataclasses.replace(_vector_row(chosen, everything), p_null=p, k=k or None, null_note=note))
        at = candidates.index(chosen)
        if draws and kind(chosen) == "vector":
            summaries.append(_random_row(chosen, [draw[at] for draw in draws]))
    return [*rows, *_unsteered_rows(curves), *summaries, *map(_prompt_row, prompts)]


def _vector_row(curve: Curve, everything: Iterable[Curve]) -> Row:
    chosen = curve.selection
    point = _chosen_point(curve, curve.multiplier)
    drop, task = largest_drop(point)
    return Row(
        kind=kind(curve),
        id=curve.id,
        multiplier=curve.multiplier,
        **_provenance(curve),
        place=place(curve),
        relative_dose=None if point is None else point.relative_dose,
        n=None if chosen is None else chosen.reported.n,
        n_items=len(curve.items),
        **_levels(curve, point),
        effect=NONE if chosen is None else chosen.reported,
        effect_selection=None if chosen is None else chosen.chosen_on.value,
        selection_items=() if chosen is None else chosen.selection_items,
        steerability=curve.steerability,
        anti_frac=curve.anti_frac,
        monotone=None if curve.spearman is None or _TOO_SMALL in curve.flags else curve.turns_at is None,
        turns_at=curve.turns_at,
        off_target=off_target(curve, curve.multiplier, everything),
        capability=drop,
        capability_task=task,
        perplexity_ratio=None if point is None or point.perplexity_ratio is None else point.perplexity_ratio.value,
        kl=None if point is None or point.kl is None else point.kl.value,
        flags=_flags(curve, point),
        higher_is_better=curve.higher_is_better,
        curve=curve,
    )


def _random_row(curve: Curve, draws: Sequence[Curve]) -> Row:
    """Return the summary of K random directions at the place and λ* of the curve they were made for."""
    points = [point for draw in draws if (point := _chosen_point(draw, curve.multiplier)) is not None]
    return Row(
        kind="random",
        id=content_id(sorted(draw.id for draw in draws)),
        vector=f"random ×{len(draws)} of {curve.labels.get('vector')}",
        method="random",
        **_setting(curve),
        place=place(curve),
        multiplier=curve.multiplier,
        relative_dose=mean(point.relative_dose for point in points),
        n=len(curve.items),
        n_items=len(curve.items),
        p0=mean(map(_unsteered_score, draws)),
        p=mean(point.score.value for point in points),
        effect=band(point.effect.value for point in points),
        steerability=band(draw.steerability.value for draw in draws),
        anti_frac=mean(draw.anti_frac for draw in draws),
        delta_position_bias=mean(point.delta_position_bias for point in points),
        mass=mean(point.mass for point in points),
        k=len(draws),
        higher_is_better=curve.higher_is_better,
    )


def _prompt_row(curve: Curve) -> Row:
    """Return what a system prompt does alone; nothing was chosen, so all items count."""
    point = _chosen_point(curve, PROMPTED)
    return Row(
        kind="prompt",
        id=curve.id,
        **_provenance(curve),
        n=len(curve.items),
        n_items=len(curve.items),
        **_levels(curve, point),
        effect=NONE if point is None else point.effect,
        flags=() if point is None else point.flags,
        higher_is_better=curve.higher_is_better,
    )


def _unsteered_rows(curves: Iterable[Curve]) -> list[Row]:
    """Return the unsteered model's row, one for each copy of the model that ran."""
    rows: dict[tuple[str, ...], Row] = {}
    for curve in curves:
        point, score = _unsteered_point(curve), _unsteered_score(curve)
        if score is None or model_key(curve) in rows:
            continue
        rows[model_key(curve)] = Row(
            kind="unsteered",
            id=curve.baseline,
            vector="unsteered",
            **_setting(curve),
            multiplier=0.0,
            n=len(curve.items),
            n_items=len(curve.items),
            p0=score,
            p=score,
            effect=Estimate(0.0, n=len(curve.items), why="0 by definition"),
            mass=None if point is None else point.mass,
            calibration=None if point is None else point.calibration,
            flags=() if point is None else point.flags,
            higher_is_better=curve.higher_is_better,
        )
    return list(rows.values())


def _unsteered_point(curve: Curve) -> Point | None:
    """Return the unsteered cell's point; an operation that does something at λ = 0 has its own cell there instead."""
    return next((point for point in curve.points if point.cell_id == curve.baseline), None)


def _unsteered_score(curve: Curve) -> float | None:
    point = _unsteered_point(curve)
    if point is not None:
        return point.score.value
    differences = [
        point.score.value - point.effect.value
        for point in curve.points
        if point.score.value is not None and point.effect.value is not None
    ]
    return differences[0] if differences else None


def _setting(curve: Curve) -> dict[str, Any]:
    model = curve.model
    return {
        "model": model.get("id"),
        "revision": model.get("revision"),
        "dtype": model.get("dtype"),
        "behaviour": behaviour(curve),
        "language": curve.task_identity.get("language"),
        "versions": ", ".join(f"{name} {version}" for name, version in _versions(curve).items()),
    }


def _versions(curve: Curve) -> dict[str, str]:
    return {"task": str(curve.task_identity.get("version")), **curve.versions}


def _provenance(curve: Curve) -> dict[str, Any]:
    vector = curve.vector
    return {
        **_setting(curve),
        "vector": str(curve.labels.get("vector")),
        "sha256": vector.get("sha256") or vector.get("id"),
        "method": vector.get("method"),
        "pairs": vector.get("pairs"),
        "letter_balance": vector.get("letter_balance"),
    }


def _levels(curve: Curve, point: Point | None) -> dict[str, Any]:
    return {
        "p0": _unsteered_score(curve),
        "p": None if point is None else point.score.value,
        "delta_position_bias": None if point is None else point.delta_position_bias,
        "mass": None if point is None else point.mass,
        "calibration": None if point is None else point.calibration,
    }


def _chosen_point(curve: Curve, multiplier: float | None) -> Point | None:
    return None if multiplier is None else curve.at(multiplier)


def _flags(curve: Curve, point: Point | None) -> tuple[str, ...]:
    own = ("nothing_to_choose",) if curve.selection is None else ()
    return tuple(dict.fromkeys((*own, *curve.flags, *(() if point is None else point.flags))))
