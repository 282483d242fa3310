"""Places: the vectors at one scope and operation, layer by layer, and the layer that tables show."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lm_eval_steer.files import canonical_json
from lm_eval_steer.stats.crosslingual.alignment import Alignment
from lm_eval_steer.stats.crosslingual.common import Common
from lm_eval_steer.stats.crosslingual.effects import Draws, Tracks, item_slopes, vector_effect, with_agreement
from lm_eval_steer.stats.crosslingual.family import ALL
from lm_eval_steer.stats.crosslingual.result import LayerResult, Place, Transfer, VectorEffect
from lm_eval_steer.stats.crosslingual.track import Track
from lm_eval_steer.stats.crosslingual.transfer import Source, transfer
from lm_eval_steer.sweep.records import Label, label_key

_VECTOR = ("vector", "control", "control_of", "multiplier", "layer")
RANDOM = "random"

_Key = tuple[str, str]  # a vector's name and content id
_NORM_TOLERANCE = 1e-3  # null directions are rescaled in float32


def places(tracks: Sequence[Track], common: Common, alignment: Alignment | None) -> tuple[Place, ...]:
    """Return what vectors do, one result a place that differs in more than vector and layer.

    Args:
        tracks: of one family, scaffold and model; random directions too.
        common: their items.
        alignment: of the model.
    """
    groups: dict[str, list[Track]] = defaultdict(list)
    for track in tracks:
        groups[canonical_json(place_labels(track))].append(track)
    found = [_place(groups[key], common, alignment) for key in sorted(groups)]
    return tuple(place for place in found if place is not None)


def place_labels(track: Track) -> dict[str, Label]:
    """Return the labels of a track that are neither the vector's nor the layer."""
    return {name: value for name, value in track.curve.labels.items() if name not in _VECTOR}


@dataclass(frozen=True, eq=False)
class _Here:
    """The tracks of one place, sorted.

    Attributes:
        vectors: vector → layer → language → track.
        randoms: name of a vector → random direction → layer → language → track.
        common: items of the family.
    """

    vectors: Mapping[_Key, Mapping[Label, Mapping[str, Track]]]
    randoms: Mapping[str, Mapping[_Key, Mapping[Label, Mapping[str, Track]]]]
    common: Common

    @classmethod
    def of(cls, tracks: Sequence[Track], common: Common) -> _Here:
        vectors: dict[_Key, dict[Label, dict[str, Track]]] = defaultdict(lambda: defaultdict(dict))
        randoms: dict[str, dict[_Key, dict[Label, dict[str, Track]]]] = defaultdict(lambda: defaultdict(dict))
        for track in tracks:
            labels, language = track.curve.labels, track.member.language
            key = (str(labels.get("vector")), str(track.curve.vector.get("id")))
            if labels.get("control") is None:
                vectors[key][labels.get("layer")].setdefault(language, track)
            elif labels.get("control") == RANDOM and track.slopes is not None:
                drawn = randoms[str(labels.get("control_of"))][key]
                drawn[labels.get("layer")] = {**drawn.get(labels.get("layer"), {}), language: track}
        return cls(vectors, randoms, common)

    def draws(self, key: _Key) -> Draws:
        """Return S of each random direction that has all of a vector's layers, by language."""
        found: dict[str, dict[str, list[float]]] = {}
        for name, by_layer in sorted(self.randoms.get(key[0], {}).items()):
            own = [self._sizes(mine, by_layer.get(layer, {})) for layer, mine in self.vectors[key].items()]
            shared = set.intersection(*map(set, own))
            if shared:
                found["@".join(name)] = {language: [each[language] for each in own] for language in sorted(shared)}
        return found

    def nulls(self, key: _Key, layer: Label) -> dict[str, list[float]]:
        """Return S of each random direction at one layer, by language."""
        found: dict[str, list[float]] = defaultdict(list)
        for by_layer in self.randoms.get(key[0], {}).values():
            for language, size in self._sizes(self.vectors[key][layer], by_layer.get(layer, {})).items():
                found[language].append(size)
        return found

    def _sizes(self, own: Tracks, null: Tracks) -> dict[str, float]:
        """Return language → S of a random direction; without those of another norm than the vector's."""
        slopes = item_slopes(null, self.common)
        return {
            language: float(np.mean(each))
            for language, each in slopes.items()
            if language in own and _same_norm(own[language], null[language])
        }


def _same_norm(own: Track, null: Track) -> bool:
    norms = own.curve.vector.get("norm"), null.curve.vector.get("norm")
    return None in norms or math.isclose(norms[0], norms[1], rel_tol=_NORM_TOLERANCE)  # type: ignore[arg-type]


def _place(tracks: Sequence[Track], common: Common, alignment: Alignment | None) -> Place | None:
    here = _Here.of(tracks, common)
    made: dict[Label, dict[_Key, VectorEffect]] = defaultdict(dict)
    for key, mine in sorted(here.vectors.items()):
        draws = here.draws(key)
        for layer, own in mine.items():
            effect = vector_effect(own, common, draws)
            if effect is not None:
                made[layer][key] = effect
    if not made:
        return None
    layers = sorted(made, key=label_key)
    shown = max(range(len(layers)), key=lambda at: (_strength(made[layers[at]].values()), -at))
    at_shown = made[layers[shown]]
    made[layers[shown]] = {
        key: with_agreement(effect, here.vectors[key][layers[shown]], common) for key, effect in at_shown.items()
    }
    results = [
        LayerResult(layer, tuple(made[layer].values()), _transfers(here, layer, made[layer], common, alignment))
        for layer in layers
    ]
    return Place(place_labels(tracks[0]), tuple(results), shown)


def _strength(effects: Iterable[VectorEffect]) -> float:
    """Return the mean |S| of vectors on the tasks of their own language; of all vectors where none says its own."""
    every = [(effect, language, s) for effect in effects for language, s in effect.steerability.items()]
    own = [s for effect, language, s in every if language in effect.extracted] or [s for _, _, s in every]
    return math.fsum(abs(s.value or 0.0) for s in own) / len(own) if own else 0.0


def _transfers(
    here: _Here, layer: Label, effects: Mapping[_Key, VectorEffect], common: Common, alignment: Alignment | None
) -> tuple[Transfer, ...]:
    sources: dict[str, list[tuple[VectorEffect, Source]]] = defaultdict(list)
    for key, effect in effects.items():
        if not effect.extracted:
            continue
        tracks = here.vectors[key][layer]
        slopes = item_slopes(tracks, common)
        source = Source(
            effect.vector,
            effect.id,
            effect.extracted,
            slopes,
            {language: tracks[language].dose for language in slopes},
            effect.p_null,
            here.nulls(key, layer),
        )
        sources[effect.concept].append((effect, source))
    return tuple(
        transfer(name, each, common, layer, alignment)
        for concept, own in sorted(sources.items())
        for name, each in kinds(concept, own)
    )


def kinds(concept: str, sources: Sequence[tuple[VectorEffect, Source]]) -> list[tuple[str, list[Source]]]:
    """Return the sources of each matrix: vectors of one method, and of one name where that is not enough.

    Pooled vectors stand in every matrix of what they stand for. A kind with one language has none.
    """
    single = [
        (effect, source) for effect, source in sources if len(source.languages) == 1 and ALL not in source.languages
    ]
    pooled = [source for _, source in sources if len(source.languages) > 1 or ALL in source.languages]
    for key in (lambda effect: effect.method, lambda effect: (effect.method, _without_language(effect))):
        groups: dict[object, list[Source]] = defaultdict(list)
        for effect, source in single:
            groups[key(effect)].append(source)
        if all(len({s.languages for s in own}) == len(own) for own in groups.values()):
            break
    whole = {name: own for name, own in groups.items() if len({s.languages for s in own}) > 1}
    named = sorted(whole.items(), key=lambda item: str(item[0]))
    titles = [concept if len(named) == 1 else f"{concept} ({_title(name)})" for name, _ in named]
    return [
        (title, [*{s.languages: s for s in reversed(own)}.values(), *{s.languages: s for s in pooled}.values()])
        for title, (_, own) in zip(titles, named, strict=True)
    ]


def _title(name: object) -> str:
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _without_language(effect: VectorEffect) -> str:
    """Return a vector's name without its language."""
    return re.sub(rf"(?<![A-Za-z]){re.escape(effect.extracted[0])}(?![A-Za-z])", "·", effect.vector)
