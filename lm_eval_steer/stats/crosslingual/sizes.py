"""Sizes: the same family on models of several sizes, each with its own vectors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.crosslingual.clusters import Clusters
from lm_eval_steer.stats.crosslingual.common import common_items
from lm_eval_steer.stats.crosslingual.places import place_labels
from lm_eval_steer.stats.crosslingual.result import Family, ScalingRow
from lm_eval_steer.stats.crosslingual.scaling import scaling
from lm_eval_steer.stats.crosslingual.track import Track

LAMBDA, DOSE = "λ", "relative dose"


def scaling_rows(families: Sequence[tuple[Family, Sequence[Track]]], draws: int, seed: int) -> tuple[ScalingRow, ...]:
    """Return S of each language's own vector against model size, at the layer that each model's table shows.

    S is per unit of relative dose where all models know that, else per λ. Of a model that has several places or
    several vectors of a language the first by name counts.

    Args:
        families: each family on each model, with its tracks.
        draws: bootstrap resamples.
        seed: of the resamples.
    """
    found: dict[tuple[str, str, str, str], list[tuple[int, Track]]] = defaultdict(list)
    for family, tracks in families:
        size = family.model.get("parameters")
        if not isinstance(size, int):
            continue
        for (concept, language), track in _own(family, tracks).items():
            found[family.family, family.scaffold, concept, language].append((size, track))
    return tuple(_row(key, models, draws, seed) for key, models in sorted(found.items()))


def _own(family: Family, tracks: Sequence[Track]) -> dict[tuple[str, str], Track]:
    """Return what each language's own vector does in that language, by concept and language."""
    found: dict[tuple[str, str], Track] = {}
    for place in family.places:
        layer = place.layers[place.shown]
        for effect in layer.vectors:
            if len(effect.extracted) != 1:
                continue
            for track in tracks:
                labels = track.curve.labels
                here = labels.get("layer") == layer.layer and place_labels(track) == dict(place.labels)
                mine = labels.get("vector") == effect.vector and labels.get("control") is None
                if here and mine and track.member.language == effect.extracted[0] and track.slopes is not None:
                    found.setdefault((effect.concept, effect.extracted[0]), track)
    return found


def _row(key: tuple[str, str, str, str], models: Sequence[tuple[int, Track]], draws: int, seed: int) -> ScalingRow:
    tracks = [track for _, track in models]
    common = common_items(tracks, draws, seed)
    by_dose = all(track.dose for track in tracks)
    columns: list[Floats] = []
    for track in tracks:
        own = common.slopes(track)
        assert own is not None
        columns.append(own / track.dose if by_dose and track.dose else own)
    slopes = np.column_stack(columns)
    clusters: Clusters = common.clusters
    return ScalingRow(*key, DOSE if by_dose else LAMBDA, scaling([size for size, _ in models], slopes, clusters))
