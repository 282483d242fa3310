"""Effects: what each vector does to the same items in every language, and how far the languages agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.crosslingual.agreement import cohen_kappa, krippendorff_alpha, same_sign, signs, spearman
from lm_eval_steer.stats.crosslingual.clusters import Clusters
from lm_eval_steer.stats.crosslingual.common import Common
from lm_eval_steer.stats.crosslingual.family import extracted_in
from lm_eval_steer.stats.crosslingual.result import Agreement, Pair, VectorEffect
from lm_eval_steer.stats.crosslingual.track import Track
from lm_eval_steer.stats.crosslingual.variance import components
from lm_eval_steer.stats.curve import Estimate
from lm_eval_steer.stats.nulls import p_null

#: Of one vector at one layer: language → track.
Tracks = Mapping[str, Track]
#: Of one vector: draw → language → S at each of the layers that the vector has.
Draws = Mapping[str, Mapping[str, Sequence[float]]]


def agreement(columns: Mapping[str, Floats], floor: float, clusters: Clusters) -> Agreement:
    """Return how one number agrees between languages.

    Args:
        columns: language → ``[items]``, the reference first.
        floor: what is at most this far from 0 has no sign.
        clusters: of the items.
    """
    reference, *others = columns
    base = columns[reference]
    of_base = signs(base, floor)
    pairs = {
        language: Pair(
            spearman(base, columns[language], clusters),
            same_sign(base, columns[language], floor, clusters),
            cohen_kappa(of_base, signs(columns[language], floor), clusters),
        )
        for language in others
    }
    values = np.column_stack(list(columns.values()))
    return Agreement(
        pairs,
        krippendorff_alpha(signs(values, floor), "nominal", clusters),
        krippendorff_alpha(values, "interval", clusters),
        components(values, clusters),
    )


def vector_effect(tracks: Tracks, common: Common, draws: Draws) -> VectorEffect | None:
    """Return what one vector does at one layer; None where it has no slope in any language.

    Args:
        tracks: of the vector.
        common: items of the family.
        draws: S of the random directions that were made for it.
    """
    columns = item_slopes(tracks, common)
    if not columns or not common.names:
        return None
    found = dict(zip(columns, common.clusters.means(np.column_stack(list(columns.values()))), strict=True))
    reference = common.languages[0]
    differences: dict[str, Estimate] = {}
    if reference in columns and len(columns) > 1:
        others = [language for language in columns if language != reference]
        paired = np.column_stack([columns[language] - columns[reference] for language in others])
        differences = dict(zip(others, common.clusters.means(paired), strict=True))
    tested = {language: null_test(found[language].value, language, draws) for language in columns}
    first = next(iter(tracks.values()))
    made = extracted_in(first.curve.vector, common.languages)
    return VectorEffect(
        vector=str(first.curve.labels.get("vector")),
        id=str(first.curve.vector.get("id")),
        sha256=first.curve.vector.get("sha256"),
        method=first.curve.vector.get("method"),
        concept="" if made is None else made[0],
        extracted=() if made is None else made[1],
        steerability=found,
        difference=differences,
        p_null={language: p for language, (p, _) in tested.items()},
        nulls={language: k for language, (_, k) in tested.items()},
    )


def with_agreement(effect: VectorEffect, tracks: Tracks, common: Common) -> VectorEffect:
    """Return an effect that says how far the languages agree, which takes longest; as it is where one is missing."""
    columns = item_slopes(tracks, common)
    if set(columns) != set(common.languages):
        return effect
    floor = next(iter(tracks.values())).items.floor
    return dataclasses.replace(effect, agreement=agreement(columns, floor, common.clusters))


def item_slopes(tracks: Tracks, common: Common) -> dict[str, Floats]:
    """Return language → ``s_i`` of the common items, the reference first; languages without slopes lack."""
    found = {language: common.slopes(tracks[language]) for language in common.languages if language in tracks}
    return {language: own for language, own in found.items() if own is not None}


def null_test(value: float | None, language: str, draws: Draws) -> tuple[float | None, int]:
    """Return ``(1 + #{max_layers |S_k| ≥ |S|}) / (K + 1)`` and K.

    The maximum is over the layers that the vector has, so that p holds for whichever of them is shown.
    """
    largest = [max(map(abs, each[language])) for each in draws.values() if each.get(language)]
    return (None, len(largest)) if value is None else (p_null(value, largest), len(largest))
