"""Axes: lists of layers and multipliers as people write them on a command line, one setting at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from lm_eval_steer.errors import ConfigError, LayerError

_LAYERS = re.compile(r"(0|[1-9][0-9]{0,4})(?:-(0|[1-9][0-9]{0,4}))?")


def parse_layers(text: str, available: Sequence[int] | None = None, *, option: str = "--layers") -> tuple[int, ...]:
    """Return the layers that ``all``, ``12``, ``10-14`` or ``4,10-14`` names, ascending; ``;`` parts them like ``,``.

    Args:
        text: what the user wrote.
        available: the layers there are; where they are not known yet, ``all`` is refused and no layer is missing.
        option: where the user wrote it, for messages.

    Raises:
        LayerError: it is spelt otherwise, or names a layer that is not there, or one twice.
    """
    if available is not None and text.strip() == "all":
        return tuple(available)
    layers: list[int] = []
    for part in map(str.strip, text.replace(";", ",").split(",")):
        match = _LAYERS.fullmatch(part)
        if match is None:
            raise LayerError(
                f"{option} {text!r}: {part!r} is neither a layer nor a range; write whole numbers, as in 12 or 4,10-14."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise LayerError(f"{option} {text!r}: the range {part!r} runs backwards; write {last}-{first}.")
        layers += range(first, last + 1)
    missing = [] if available is None else sorted(set(layers) - set(available))
    if available is not None and missing:
        raise LayerError(f"{option} {text!r}: no layer {missing}; there are {available[0]} to {available[-1]}.")
    if len(set(layers)) != len(layers):
        raise LayerError(f"{option} {text!r} names a layer twice.")
    return tuple(sorted(layers))


def parse_features(text: str, *, option: str = "--features") -> tuple[int, ...]:
    """Return the numbers of an SAE's features that ``12,77`` names, in that order.

    Raises:
        ConfigError: not whole numbers from 0 on, or one twice.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words) or len(set(map(int, words))) != len(words):
        raise ConfigError(f"{option} {text!r}: write whole numbers from 0 on, each once: 12,77.")
    return tuple(map(int, words))


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


def _decimal(piece: str, text: str) -> Decimal:
    try:
        value = Decimal(piece.strip())
    except InvalidOperation:
        raise ConfigError(f"--multipliers {text!r}: {piece.strip()!r} is no number.") from None
    if not value.is_finite() or not math.isfinite(float(value)):
        raise ConfigError(f"--multipliers {text!r}: {piece.strip()!r} is not finite.")
    return value
