"""Analysis: from curves to what they say across languages; nothing where no family has two languages."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from lm_eval_steer.files import canonical_json
from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.bootstrap import DRAWS
from lm_eval_steer.stats.crosslingual.alignment import Alignment, find
from lm_eval_steer.stats.crosslingual.common import Common, common_items
from lm_eval_steer.stats.crosslingual.effects import agreement
from lm_eval_steer.stats.crosslingual.family import Member, members
from lm_eval_steer.stats.crosslingual.levels import MARGIN, level_gap
from lm_eval_steer.stats.crosslingual.places import places
from lm_eval_steer.stats.crosslingual.result import CrossLingual, Family, Language
from lm_eval_steer.stats.crosslingual.sizes import scaling_rows
from lm_eval_steer.stats.crosslingual.track import Track, read_tracks
from lm_eval_steer.stats.curve import Curve, Estimate
from lm_eval_steer.sweep.ledger import Ledger

NO_ITEMS = "no item is in all languages"
_LANGUAGE = ("family", "language", "scaffold")  # older records do not say these


def cross_lingual(
    ledgers: Iterable[Ledger],
    curves: Sequence[Curve],
    *,
    given: Mapping[str, Member] | None = None,
    alignments: Sequence[Alignment] = (),
    margin: float = MARGIN,
    draws: int = DRAWS,
    seed: int = 0,
) -> CrossLingual:
    """Return what curves say across languages; empty where no family of tasks has two languages.

    Args:
        ledgers: where the curves come from; a family may lie in several.
        curves: of vectors and of random directions.
        given: task → member, for tasks that do not say it themselves.
        alignments: of the models.
        margin: δ of the equivalence of levels, in units of the score.
        draws: bootstrap resamples.
        seed: of the resamples.

    Raises:
        InputError: samples are missing or damaged.
    """
    known = members(curves, given)
    if not known:
        return CrossLingual()
    return analyse(read_tracks(ledgers, curves, known), alignments, margin=margin, draws=draws, seed=seed)


def analyse(
    tracks: Sequence[Track],
    alignments: Sequence[Alignment] = (),
    *,
    margin: float = MARGIN,
    draws: int = DRAWS,
    seed: int = 0,
) -> CrossLingual:
    """Return what tracks say across languages; arguments as for :func:`cross_lingual`."""
    groups: dict[tuple[str, str, str], list[Track]] = defaultdict(list)
    for track in tracks:
        groups[track.member.family, track.member.scaffold, model_key(track)].append(track)
    whole = {key: own for key, own in sorted(groups.items()) if len({t.member.language for t in own}) > 1}
    families = []
    kept = [one_setting(own) for own in whole.values()]
    for (name, _, _), (own, set_apart) in zip(whole, kept, strict=True):
        common = common_items(own, draws, seed)
        made = _family(own, common, find(alignments, own[0].curve.model, name), margin)
        families.append(dataclasses.replace(made, set_apart=set_apart))
    sized = [(made, own) for made, (own, _) in zip(families, kept, strict=True)]
    return CrossLingual(tuple(families), scaling_rows(sized, draws, seed))


def one_setting(tracks: Sequence[Track]) -> tuple[list[Track], tuple[str, ...]]:
    """Return the tracks of one setting of each task and system prompt, and the tasks that have others.

    Runs of a task that differ in its items, examples or prompts are no one run: the one of most items counts, then
    that of most curves.
    """
    settings: dict[tuple[str, str], dict[str, list[Track]]] = defaultdict(lambda: defaultdict(list))
    for track in tracks:
        identity = {name: said for name, said in track.curve.task_identity.items() if name not in _LANGUAGE}
        prompt = canonical_json(track.curve.labels.get("system_prompt"))
        settings[track.curve.task, prompt][canonical_json(identity)].append(track)
    chosen = {
        key: max(sorted(runs), key=lambda name: (len(runs[name][0].items.names), len(runs[name])))
        for key, runs in settings.items()
    }
    kept = {id(track) for key, name in chosen.items() for track in settings[key][name]}
    others = {task for (task, _), runs in settings.items() if len(runs) > 1}
    return [track for track in tracks if id(track) in kept], tuple(sorted(others))


def model_key(track: Track) -> str:
    """Return a model as it ran."""
    return canonical_json([track.curve.model.get(name) for name in ("id", "revision", "dtype", "fingerprint")])


def _family(tracks: Sequence[Track], common: Common, alignment: Alignment | None, margin: float) -> Family:
    plain = [track for track in tracks if track.curve.labels.get("system_prompt") is None] or tracks
    by_language = {
        language: min((t for t in plain if t.member.language == language), key=_base_key, default=None)
        for language in common.languages
    }
    shown = {language: track for language, track in by_language.items() if track is not None}
    head = tracks[0]
    unsteered = None
    if common.names and len(shown) == len(common.languages):
        levels = {language: t.items.level[common.places(t.items)] for language, t in shown.items()}
        # A score between 0 and 1 prefers nothing at one half; a logit difference at 0.
        centre = 0.0 if head.curve.slope_of != head.curve.metric or _signed(levels) else 0.5
        unsteered = agreement({language: each - centre for language, each in levels.items()}, 0.0, common.clusters)
    return Family(
        family=head.member.family,
        scaffold=head.member.scaffold,
        model=head.curve.model,
        metric=head.curve.metric,
        languages=tuple(_languages(shown, common, margin)) if common.names else _names(common, tracks),
        items=len(common.names),
        clusters=len(common.clusters.starts),
        unsteered=unsteered,
        places=places(tracks, common, alignment) if common.names else (),
        note="" if common.names else NO_ITEMS,
    )


def _languages(shown: Mapping[str, Track], common: Common, margin: float) -> Iterable[Language]:
    scores = {language: t.items.score[common.places(t.items)] for language, t in shown.items()}
    reference = common.languages[0]
    for language, own in scores.items():
        gap = None
        if language != reference and reference in scores:
            gap = level_gap(own, scores[reference], common.clusters, margin)
        task = shown[language].curve.task
        (score,) = common.clusters.means(own[:, None])
        yield Language(language, task, common.left_out[language], score, gap)


def _names(common: Common, tracks: Sequence[Track]) -> tuple[Language, ...]:
    tasks = {track.member.language: track.curve.task for track in tracks}
    nothing = Estimate(None, why=NO_ITEMS)
    return tuple(Language(name, tasks[name], common.left_out[name], nothing, None) for name in common.languages)


def _signed(levels: Mapping[str, Floats]) -> bool:
    return any(bool((each < 0).any() or (each > 1).any()) for each in levels.values())


def _base_key(track: Track) -> tuple[str, str]:
    return (track.curve.baseline, track.curve.id)
