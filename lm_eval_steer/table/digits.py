"""Digits: numbers as text, as precise as they are and no more; what is not there is ``n/a``."""

from __future__ import annotations

import math

from lm_eval_steer.files import sha256_bytes
from lm_eval_steer.stats.curve import Estimate

NA = "n/a"
_LONGEST = 48


def number(value: float | None, decimals: int = 3, *, sign: bool = False) -> str:
    """Return a number with fixed decimals; ``n/a`` where it is None, NaN or infinite."""
    if value is None or not math.isfinite(value):
        return NA
    text = f"{value:{'+' if sign else ''}.{decimals}f}"
    return text if float(text) else text.replace("-", "+" if sign else "", 1)  # no minus before a rounded 0


def plain(value: float | None) -> str:
    """Return a number as it was given, up to 4 significant digits: multipliers, doses, p-values."""
    return NA if value is None or not math.isfinite(value) else f"{value + 0.0:.4g}"


def percent(value: float | None) -> str:
    """Return a share as a whole percentage."""
    return NA if value is None else f"{number(100 * value, 0)} %"


def interval(estimate: Estimate, *, sign: bool = True) -> str:
    """Return ``value [low, high]`` with two significant digits of the interval's half width."""
    if estimate.value is None or not math.isfinite(estimate.value):
        return NA
    if estimate.low is None or estimate.high is None:
        return number(estimate.value, sign=sign)
    half = (estimate.high - estimate.low) / 2
    decimals = min(6, max(0, 1 - math.floor(math.log10(half)))) if half > 0 and math.isfinite(half) else 3
    low, high = (number(end, decimals, sign=sign) for end in (estimate.low, estimate.high))
    return f"{number(estimate.value, decimals, sign=sign)} [{low}, {high}]"


def optional(value: object) -> str:
    """Return a name as text, shortened; ``n/a`` for None."""
    return NA if value is None else short(str(value))


def short(name: str, longest: int = _LONGEST) -> str:
    """Return a name of at most ``longest`` characters: its beginning, then … and eight digits of its hash."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - 9]}…{sha256_bytes(name.encode('utf-8', 'surrogatepass'))[:8]}"
