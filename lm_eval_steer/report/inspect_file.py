"""Inspect file: what ``lm-eval-steer inspect --json`` printed, read without the model and without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_steer.errors import InputError
from lm_eval_steer.files import sha256_bytes

Scored = tuple[str, float]


@dataclass(frozen=True)
class Words:
    """The tokens at the top for one direction.

    Attributes:
        name: how they were found and for which sign: ``E·v``, ``E·N(v)``.
        tokens: with scores, the highest first.
    """

    name: str
    tokens: tuple[Scored, ...]


@dataclass(frozen=True)
class Component:
    """A singular direction of the pairs' differences.

    Attributes:
        name: its number, and whether the rows were centred.
        share: of the sum of squared singular values.
        cosine: of the vector with it.
        plus: its words.
        minus: those of its negative.
    """

    name: str
    share: float
    cosine: float
    plus: tuple[Scored, ...]
    minus: tuple[Scored, ...]


@dataclass(frozen=True)
class Features:
    """A vector as a sum of SAE decoder rows.

    Attributes:
        sae: name of the SAE.
        rows: (number of the row, coefficient, cosine of the sum so far with the vector).
        effects: change of log p(pos) − log p(neg) in nats a token, of the sum and of the vector; None without pairs.
    """

    sae: str
    rows: tuple[tuple[int, float, float], ...]
    effects: tuple[float | None, float | None]


@dataclass(frozen=True)
class View:
    """What one vector holds at one hookpoint."""

    name: str
    id: str
    point: str
    words: tuple[Words, ...]
    leaks: tuple[Scored, ...]
    components: tuple[Component, ...]
    features: Features | None


@dataclass(frozen=True)
class Norm:
    """The size of one vector at one hookpoint; None where nobody measured it."""

    vector: str
    point: str
    norm: float
    stream_norm: float | None
    relative_dose: float | None
    split_half: float | None
    cos_letter: float | None
    cos_yes: float | None

    @property
    def site(self) -> str:
        """The hookpoint without its layer."""
        return self.point.rpartition(".")[0]

    @property
    def layer(self) -> int:
        """The layer of the hookpoint."""
        return int(self.point.rpartition(".")[2])


@dataclass(frozen=True)
class Lens:
    """The logit lens at one layer."""

    layer: int
    likely: tuple[Scored, ...]
    kl: float
    rank: int


@dataclass(frozen=True)
class InspectFile:
    """An inspection.

    Attributes:
        name: of the file.
        sha256: of its bytes.
        prompt: of the lens.
        views: one a vector.
        norms: of every vector at every hookpoint.
        labels: of the rows and columns of the cosine matrix.
        cosines: ``[n][n]``.
        reliability: recorded split-half cosine of each; None where unknown.
        lens: by layer.
    """

    name: str
    sha256: str
    prompt: str
    views: tuple[View, ...]
    norms: tuple[Norm, ...]
    labels: tuple[str, ...]
    cosines: tuple[tuple[float, ...], ...]
    reliability: tuple[float | None, ...]
    lens: tuple[Lens, ...]


def read_inspect_file(path: Path | str) -> InspectFile:
    """Return the inspection in a file.

    Raises:
        InputError: it cannot be read, or is not what ``lm-eval-steer inspect --json`` prints.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        content = json.loads(data.decode("utf-8"))
        return _inspection(path.name, sha256_bytes(data), content)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path} is not what lm-eval-steer inspect --json prints ({type(error).__name__}: {error}). Make it with "
            f"lm-eval-steer inspect VECTOR --pretrained MODEL --json > {path.name}"
        ) from None


def _inspection(name: str, sha256: str, content: Mapping[str, Any]) -> InspectFile:
    cosines = content["cosines"]
    labels = tuple(map(str, cosines["labels"]))
    values = tuple(tuple(map(_finite, row)) for row in cosines["values"])
    reliability = tuple(map(_maybe, cosines["reliability"]))
    if {len(values), *map(len, values), len(reliability)} != {len(labels)}:
        raise ValueError("its cosine matrix is not square")
    return InspectFile(
        name,
        sha256,
        str(content["prompt"]),
        tuple(map(_view, content["vectors"])),
        tuple(map(_norm, content["norms"])),
        labels,
        values,
        reliability,
        tuple(map(_lens, content["lens"])),
    )


def _view(data: Mapping[str, Any]) -> View:
    return View(
        str(data["name"]),
        str(data["id"]),
        str(data["point"]),
        tuple(Words(_direction(each["way"], each["sign"]), _scored(each["tokens"])) for each in data["decoded"]),
        tuple((str(leak["token"]), float(leak["z"])) for leak in data["leaks"]),
        tuple(component for found in data["singular"] for component in _components(found)),
        None if data["features"] is None else _features(data["features"]),
    )


def _direction(way: str, sign: str) -> str:
    return way if sign == "+" else way.replace("·v", "·(\N{MINUS SIGN}v)").replace("(v)", "(\N{MINUS SIGN}v)")


def _components(found: Mapping[str, Any]) -> list[Component]:
    how = f"of {int(found['rows'])} rows, {'centred' if found['centred'] else 'not centred'}"
    return [
        Component(
            f"{number} {how}",
            float(each["share"]),
            float(each["cosine"]),
            _scored(each["plus"]),
            _scored(each["minus"]),
        )
        for number, each in enumerate(found["components"], 1)
    ]


def _features(data: Mapping[str, Any]) -> Features:
    pairs = zip(data["features"], data["cosines"], strict=True)
    rows = tuple((int(number), float(coefficient), float(cosine)) for (number, coefficient), cosine in pairs)
    return Features(str(data["sae"]), rows, (_maybe(data["reconstruction_effect"]), _maybe(data["vector_effect"])))


def _norm(data: Mapping[str, Any]) -> Norm:
    names = ("stream_norm", "relative_dose", "split_half", "cos_letter", "cos_yes")
    made = Norm(str(data["vector"]), str(data["point"]), _finite(data["norm"]), *(_maybe(data[name]) for name in names))
    if made.layer < 0:
        raise ValueError(f"hookpoint {made.point!r} has no layer")
    return made


def _lens(data: Mapping[str, Any]) -> Lens:
    likely = tuple((str(t), float(p)) for t, p in zip(data["tokens"], data["probabilities"], strict=True))
    return Lens(int(data["layer"]), likely, float(data["kl"]), int(data["final_rank"]))


def _scored(tokens: list[Mapping[str, Any]]) -> tuple[Scored, ...]:
    return tuple((str(each["token"]), float(each["score"])) for each in tokens)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} where a number is needed")
    return number


def _maybe(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)
