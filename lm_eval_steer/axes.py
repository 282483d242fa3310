"""Axes: lists of layers and multipliers as people write them on a command line, one setting at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from lm_eval_steer.errors import ConfigError, LayerError


def parse_layers(text: str, available: Sequence[int]) -> tuple[int, ...]:
    """Return the layers that ``all``, ``12``, ``10-14`` or ``4,10-14`` names, ascending.

    Args:
        text: what the user wrote.
        available: the layers there are.

    Raises:
        LayerError: it is spelt otherwise, or names a layer that is not there, or one twice.
    """
    if text.strip() == "all":
        return tuple(available)
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (_whole(first) and (_whole(last) and int(first) <= int(last) if dash else not last)):
            raise LayerError(
                f"--layers {text!r}: {part.strip()!r} is neither a layer nor a range; write all, 12 or 4,10-14."
            )
        layers.extend(range(int(first), int(last or first) + 1))
    missing = sorted(set(layers) - set(available))
    if missing or not layers:
        raise LayerError(f"--layers {text!r}: no layer {missing or text}; there are {available[0]} to {available[-1]}.")
    if len(set(layers)) != len(layers):
        raise LayerError(f"--layers {text!r} names a layer twice.")
    return tuple(sorted(layers))


def parse_multipliers(text: str) -> tuple[float, ...]:
    """Return the multipliers that ``-1,0,1`` or ``-2:2:0.5`` (first, last, step; both ends in) names, ascending.

    Steps are taken in decimal, so that 0 is exactly 0.

    Raises:
        ConfigError: not numbers, not finite, a step that does not lead from first to last, or one twice.
    """
    values: list[Decimal] = []
    for part in text.split(","):
        numbers = [_decimal(piece, text) for piece in part.split(":")]
        if len(numbers) == 1:
            values += numbers
        elif len(numbers) == 3 and numbers[2] > 0 and numbers[1] >= numbers[0]:
            count = int((numbers[1] - numbers[0]) / numbers[2])
            if numbers[0] + count * numbers[2] != numbers[1]:
                raise ConfigError(
                    f"--multipliers {text!r}: steps of {numbers[2]} do not lead from {numbers[0]} to {numbers[1]}."
                )
            values += [numbers[0] + i * numbers[2] for i in range(count + 1)]
        else:
            raise ConfigError(
                f"--multipliers {text!r}: write numbers (-1,0,1) or FIRST:LAST:STEP with a positive step."
            )
    if len(set(values)) != len(values):
        raise ConfigError(f"--multipliers {text!r} names a multiplier twice.")
    return tuple(float(value) + 0.0 for value in sorted(values))


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _decimal(piece: str, text: str) -> Decimal:
    try:
        value = Decimal(piece.strip())
    except InvalidOperation:
        raise ConfigError(f"--multipliers {text!r}: {piece.strip()!r} is no number.") from None
    if not value.is_finite() or not math.isfinite(float(value)):
        raise ConfigError(f"--multipliers {text!r}: {piece.strip()!r} is not finite.")
    return value
