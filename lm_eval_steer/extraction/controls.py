"""Null directions of a vector's own norm: what any direction, the same activations, or the answer's letter would do.

Each is ``[n_points, d_model]`` with the norm of the vector at every hookpoint, so that only the direction differs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lm_eval_steer.errors import ConfigError, VectorValueError
from lm_eval_steer.extraction.base import PairActivations, mean_rows
from lm_eval_steer.files import sha256_bytes
from lm_eval_steer.hookpoint import Hookpoint
from lm_eval_steer.suggest import choice_message

ControlKind = Literal["random", "shuffled", "letter", "zero"]
CONTROLS: tuple[ControlKind, ...] = get_args(ControlKind)


@dataclass(frozen=True)
class Control:
    """One control: its kind, and its number among those of its kind (``random-3``)."""

    kind: ControlKind
    number: int = 0
    numbered: bool = False

    def __str__(self) -> str:
        return f"{self.kind}-{self.number}" if self.numbered else self.kind


def parse_controls(text: str) -> tuple[Control, ...]:
    """Return the controls that ``text`` spells: ``random:20,shuffled,letter``; empty text gives none.

    ``random:K`` and ``shuffled:K`` are K draws; one draw has no number in its name.

    Raises:
        ConfigError: an unknown control, one given twice, or a count that is no whole number from 1 on.
    """
    controls: list[Control] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        kind, colon, count = word.partition(":")
        if kind not in CONTROLS:
            raise ConfigError(choice_message("control", kind, CONTROLS))
        if any(control.kind == kind for control in controls):
            raise ConfigError(f"control {kind!r} is given twice; write random:20 for twenty of them.")
        if colon and (kind not in ("random", "shuffled") or not re.fullmatch(r"[1-9]\d{0,3}", count)):
            raise ConfigError(
                f"control {word!r}: write random:K or shuffled:K with K from 1 to 9999; others take no number."
            )
        number = int(count) if colon else 1
        controls += [Control(kind, index, number > 1) for index in range(number)]
    return tuple(controls)


def random_direction(vector: Tensor, points: tuple[Hookpoint, ...], seed: int, number: int = 0) -> Tensor:
    """Return a Gaussian direction for each hookpoint, rescaled to ‖v‖.

    Every hookpoint has its own stream, so the direction at layer 20 is the same whichever layers are extracted.

    Args:
        vector: ``[n_points, d_model]``.
        points: its hookpoints.
        seed: of the draws.
        number: which draw.
    """
    rows = [torch.randn(vector.shape[-1], generator=stream(seed, f"random/{number}/{point}")) for point in points]
    return rescaled(torch.stack(rows), vector)


def shuffled_direction(activations: PairActivations, vector: Tensor, seed: int, number: int = 0) -> Tensor:
    """Return ``mean_i(s_i·d_i)`` with random signs, rescaled to ‖v‖: the same activations, no behaviour.

    Signs are drawn by item, half of them −1, so that a balanced set stays balanced and the null holds no letter.

    Args:
        activations: of the training pairs.
        vector: ``[n_points, d_model]``.
        seed: of the draws.
        number: which draw.
    """
    n_items = int(activations.items.max()) + 1
    order = torch.randperm(n_items, generator=stream(seed, f"shuffled/{number}"))
    signs = torch.where(order < n_items // 2, -1.0, 1.0)[activations.items]
    return rescaled(mean_rows(activations.differences * signs[:, None, None]), vector)


def letter_direction(activations: PairActivations, vector: Tensor | None = None) -> Tensor:
    """Return the "say A" direction, ``mean_i(y_i·d_i)``, y = +1 where the matching answer's letter is the first.

    That is the mean of h(first letter) − h(second letter), whatever the letters stand for.

    Args:
        activations: of pairs answered by letters.
        vector: ``[n_points, d_model]``, to whose norm it is rescaled; None keeps its own norm.

    Raises:
        ConfigError: the pairs are text.
    """
    if activations.first is None:
        raise ConfigError("the letter control needs pairs answered by letters.")
    direction = mean_rows(activations.differences * activations.first[:, None, None])
    return direction if vector is None else rescaled(direction, vector)


def rescaled(direction: Tensor, vector: Tensor) -> Tensor:
    """Return ``direction`` with the norm of ``vector`` in every row, both ``[n_points, d_model]``.

    Raises:
        VectorValueError: a row of ``direction`` is zero.
    """
    own = torch.linalg.vector_norm(direction.double(), dim=-1, keepdim=True)
    if bool((own == 0).any()):
        raise VectorValueError("a control has no direction at some layer: the differences cancel; use more pairs.")
    wanted = torch.linalg.vector_norm(vector.double(), dim=-1, keepdim=True)
    result: Tensor = (direction.double() * (wanted / own)).float()
    return result


def stream(seed: int, name: str) -> torch.Generator:
    """Return the random numbers of one named stream: equal for equal seed and name, on any machine."""
    generator = torch.Generator()
    generator.manual_seed(int(sha256_bytes(f"{seed}/{name}".encode())[:15], 16))
    return generator
