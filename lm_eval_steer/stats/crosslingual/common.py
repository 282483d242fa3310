"""Common: the items that every language of a family has, in one order, and numbers of tracks on just these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lm_eval_steer.stats.arrays import Floats, Ints
from lm_eval_steer.stats.crosslingual.clusters import Clusters
from lm_eval_steer.stats.crosslingual.family import ordered
from lm_eval_steer.stats.crosslingual.track import Items, Track


@dataclass(frozen=True, eq=False)
class Common:
    """The intersection of the items of several languages.

    Attributes:
        languages: the reference first.
        names: of the common items, cluster after cluster of the reference.
        clusters: that they fall into.
        left_out: language → how many of its items are not common.
    """

    languages: tuple[str, ...]
    names: tuple[str, ...]
    clusters: Clusters
    left_out: Mapping[str, int]

    def places(self, items: Items) -> Ints:
        """Return where the common items stand among some items, ``[common]``."""
        return np.asarray([items.places[name] for name in self.names], dtype=np.int64)

    def slopes(self, track: Track) -> Floats | None:
        """Return ``s_i`` of the common items, ``[common]``."""
        return None if track.slopes is None else track.slopes[self.places(track.items)]


def common_items(tracks: Sequence[Track], draws: int, seed: int) -> Common:
    """Return the items that all tracks have.

    Args:
        tracks: of one family, scaffold and model.
        draws: bootstrap resamples.
        seed: of the resamples.
    """
    languages = ordered(track.member.language for track in tracks)
    distinct = {id(track.items): track for track in tracks}.values()
    shared = set.intersection(*(set(track.items.names) for track in distinct))
    first = next(track.items for track in tracks if track.member.language == languages[0])
    kept = sorted((c, n) for c, n in zip(first.clusters, first.names, strict=True) if n in shared)
    all_of = {
        language: {name for track in distinct if track.member.language == language for name in track.items.names}
        for language in languages
    }
    return Common(
        languages,
        tuple(name for _, name in kept),
        Clusters.of([cluster for cluster, _ in kept], draws, seed),
        {language: len(names - shared) for language, names in all_of.items()},
    )
