"""Ledgers of one family of tasks in several languages, with planted slopes, made without a model."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_steer.files import content_id
from lm_eval_steer.stats.crosslingual.family import Member
from lm_eval_steer.stats.crosslingual.track import Items, Track
from lm_eval_steer.stats.curve import Curve
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.records import CellRecord, Label
from tests.curve_tools import curve

GRID = (-1.0, 0.5, 1.0)
LANGUAGES = ("en", "de", "fr")
Slopes = Mapping[str, Mapping[str, float]]  # vector → language of the task → S


def write_family(
    folder: Path | str,
    slopes: Slopes,
    *,
    data: Mapping[str, Any] | None = None,
    n: int = 40,
    k: int = 0,
    layers: Sequence[int] = (3,),
    spread: float = 0.2,
    null: float = 0.03,
    parameters: int | None = 1000,
    model: str = "tiny",
    missing: Mapping[str, Sequence[int]] | None = None,
    family: str = "joy",
    scaffold: str = "native",
    seed: int = 0,
    said: bool = True,
) -> Ledger:
    """Return a ledger in which vector x moves item i in language y by λ·(S[x][y] + what the item adds).

    Args:
        folder: where it goes.
        slopes: planted S; at layer l they are times ``1 + l/100``.
        data: vector → name of its training data; ``xl_joy_fr`` for ``v_fr`` unless given.
        n: items a language.
        k: random directions a vector.
        layers: of every vector.
        spread: standard deviation of what an item adds, the same in all languages, with a fifth of it apart.
        null: standard deviation of the random directions' S.
        parameters: of the model; None where the records do not say.
        model: its name; another name is another model.
        missing: language → items that it lacks.
        family: name.
        scaffold: of the tasks.
        seed: of all that is random.
        said: whether the records say family and language.
    """
    chance = random.Random(f"{seed}/{model}")
    languages = sorted({language for row in slopes.values() for language in row})
    tasks = {language: f"xl_{family}_{language}" for language in languages}
    items = [chance.gauss(0, spread) for _ in range(n)]
    own = {(i, y): items[i] + chance.gauss(0, spread / 5) for i in range(n) for y in languages}
    base = {(i, y): 0.3 * items[i] / (spread or 1) + chance.gauss(0, 0.1) for i in range(n) for y in languages}
    facts = {
        task: {
            **{"version": 1.0, "n": n, "limit": None, "num_fewshot": 0, "data_hash": task, "prompt_hash": task},
            **({"family": family, "language": language, "scaffold": scaffold} if said else {}),
            "metrics": {"p_match": 0.5},
        }
        for language, task in tasks.items()
    }
    about: dict[str, Any] = {"id": model, "revision": None, "dtype": "float32"}
    about["fingerprint"] = {"config": model, "weights": model, "tokenizer": None}
    if parameters is not None:
        about["parameters"] = parameters
    ledger = Ledger.open(folder)

    def write(labels: dict[str, Label], plan: dict[str, Any], moved: Mapping[tuple[int, str], float]) -> None:
        rows = [
            {
                "task": task,
                "item_id": f"test-{i:03d}",
                "order": 0,
                "filter": "none",
                **_scores(base[i, language] + moved.get((i, language), 0.0)),
            }
            for language, task in tasks.items()
            for i in range(n)
            if i not in (missing or {}).get(language, ())
        ]
        made = CellRecord(content_id([labels, model, scaffold]), plan, labels, about, facts)
        ledger.write_cell(made, rows)

    nothing = {"vector": "unsteered", "control": None, "control_of": None, "layer": None, "multiplier": 0.0}
    write(nothing, {"id": "unsteered", "placements": []}, {})
    for vector, row in slopes.items():
        named = {vector: (None, None), **{f"{vector}-random-{draw}": ("random", vector) for draw in range(k)}}
        drawn = {(name, y): chance.gauss(0, null) for name in named for y in languages}
        for name, (control, of) in named.items():
            for layer in layers:
                for at in GRID:
                    labels: dict[str, Label] = {"vector": name, "control": control, "control_of": of, "layer": layer}
                    labels |= {"scope": "all", "operation": "add", "multiplier": at}
                    placement: dict[str, Any] = {"vector": content_id(name), "vector_name": name, "method": "mean_text"}
                    placement |= {"multiplier": at, "norm": 2.0}
                    if control is None:
                        placement["data"] = (data or {}).get(name, f"xl_{family}_{vector.rpartition('_')[2]}")

                    size = {y: drawn[name, y] if control else row[y] * (1 + layer / 100) for y in languages}
                    moved = {(i, y): at * (size[y] + (0.0 if control else own[i, y])) for i, y in base}
                    write(labels, {"id": content_id(labels), "placements": [placement]}, moved)
    return ledger


def _scores(difference: float) -> dict[str, float]:
    return {"logit_diff": difference, "p_match": 1 / (1 + math.exp(-difference))}


def shared_direction(size: float = 1.0, languages: Sequence[str] = LANGUAGES) -> Slopes:
    """Every language's vector is the same direction."""
    return {f"v_{x}": dict.fromkeys(languages, size) for x in languages}


def orthogonal_directions(size: float = 1.0, languages: Sequence[str] = LANGUAGES) -> Slopes:
    """Every language's vector works in that language alone."""
    return {f"v_{x}": {y: size if x == y else 0.0 for y in languages} for x in languages}


@functools.cache
def _curve(task: str, layer: int) -> Curve:
    return curve("v", layer, task)


def planted_tracks(
    slopes: Slopes,
    *,
    k: int = 20,
    n: int = 40,
    layers: Sequence[int] = (3,),
    spread: float = 0.1,
    null: float = 0.05,
    data: Mapping[str, Any] | None = None,
    missing: Mapping[str, Sequence[int]] | None = None,
    model: Mapping[str, Any] | None = None,
    clusters: int | None = None,
    seed: int = 0,
) -> list[Track]:
    """Return the tracks that a sweep of such slopes would leave, without a ledger; arguments as for a ledger."""
    chance = random.Random(seed)
    languages = sorted({language for row in slopes.values() for language in row})
    kept = {y: [i for i in range(n) if i not in (missing or {}).get(y, ())] for y in languages}
    items = {
        y: Items(
            tuple(f"test-{i:03d}" for i in own),
            tuple(f"test-{i:03d}" if clusters is None else f"game-{i * clusters // n:03d}" for i in own),
            np.asarray([0.5 + 0.2 * math.sin(i) for i in own]),
            np.asarray([math.sin(i) for i in own]),
            1e-3,
        )
        for y, own in kept.items()
    }
    adds = [chance.gauss(0, spread) for _ in range(n)]
    mean = math.fsum(adds) / n
    tracks = []
    for vector, row in slopes.items():
        named = {vector: (None, None), **{f"{vector}-random-{draw}": ("random", vector) for draw in range(k)}}
        for name, (control, of) in named.items():
            for y in languages if control else row:
                size = chance.gauss(0, null) if control else row[y]
                for layer in layers:
                    made = _curve(f"xl_joy_{y}", layer)
                    labels = {**made.labels, "vector": name, "control": control, "control_of": of}
                    said = (data or {}).get(vector, f"xl_joy_{vector.rpartition('_')[2]}")
                    about = {"id": content_id(name), "method": "mean_text", **({"data": said} if not control else {})}
                    made = dataclasses.replace(made, labels=labels, vector=about, model=model or made.model)
                    noise = [0.0 if control else adds[i] - mean + chance.gauss(0, spread / 10) for i in kept[y]]
                    own = np.asarray([size * (1 + layer / 100) + each for each in noise])
                    tracks.append(Track(made, Member("joy", "native", y), items[y], own))
    return tracks
