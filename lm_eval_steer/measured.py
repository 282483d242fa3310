"""Measured texts: answers of which a task wants the KL to the unsteered model too, and log-probabilities that carry it.

lm-eval's requests are pairs of texts and its answers are pairs of a number and a truth value. A task marks the text,
:class:`SteeredHF <lm_eval_steer.model.SteeredHF>` marks the number, and what lies between them sees text and number.
"""

from __future__ import annotations

import math
from typing import Any


class MeasuredText(str):
    """An answer to be scored whose positions are compared with the unsteered model's, too."""


class LogProb(float):
    """A log-probability in nats, with the KL at the positions that it is a sum over.

    Attributes:
        kl: sum over positions of KL(unsteered ‖ steered) of the next token, in nats.
    """

    kl: float

    def __new__(cls, value: float, kl: float) -> LogProb:
        """Return the number ``value`` that also knows ``kl``."""
        made = super().__new__(cls, value)
        made.kl = kl
        return made

    def __getnewargs__(self) -> tuple[float, float]:  # type: ignore[override]  # lm-eval's response cache pickles it
        """Return what makes it anew."""
        return float(self), self.kl


def is_measured(request: tuple[tuple[str, str] | None, Any, Any]) -> bool:
    """Whether a request of lm-eval (texts, context tokens, answer tokens) is of a measured text."""
    return request[0] is not None and isinstance(request[0][1], MeasuredText)


def kl_of(answer: float) -> float:
    """Return the KL that an answer carries; NaN where it carries none."""
    return float(getattr(answer, "kl", math.nan))
