"""Answers: what the log-probabilities of an item's choices say beside the metrics of its task."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from lm_eval_steer.stats.arrays import Floats

#: Metrics that say whether the likeliest choice is the right one.
MARKS = ("acc", "pool_top1")
#: What :func:`row_scores` returns; no metrics of the task's.
BRIER, CONFIDENCE, CORRECT = "calibration_brier", "calibration_confidence", "calibration_correct"

_ANSWER = re.compile(r"\((-?[^,()]+), (?:True|False)\)")


def row_scores(responses: Sequence[str], target: Floats, mark: Floats) -> dict[str, Floats] | None:
    """Return each row's Brier score, its confidence and whether it is right; None where these are not defined.

    With p the softmax of the choices' summed log-probabilities and y the right one: ``Σ_k (p_k − y_k)²``, between 0 and
    2; ``max_k p_k``; and ``mark``. They are defined where every row has one right choice among several and the mark is
    1 just where that one is the likeliest. A task that counts otherwise (several right answers, say) has none.

    Args:
        responses: the text of a row's answers, ``[[(log-probability, is_greedy)], …]``.
        target: the place of the right choice, ``[rows]``.
        mark: whether the task counts the row as right, ``[rows]``.

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    found = [_ANSWER.findall(text) for text in responses]
    counts = np.array([len(answers) for answers in found], dtype=np.int64)
    if not len(counts) or np.isnan([*target, *mark]).any() or (counts < 2).any() or (target >= counts).any():
        return None
    logprobs = np.array([answer for answers in found for answer in answers], dtype=np.float64)
    if np.isnan(logprobs).any():
        return None
    starts = np.cumsum(counts) - counts
    top: Floats = np.maximum.reduceat(logprobs, starts)
    shares = np.exp(logprobs - np.repeat(top, counts))
    total = np.add.reduceat(shares, starts)
    own = shares[starts + target.astype(np.int64)]
    # Where several share the first place, tasks differ in which of them they count.
    tied = np.add.reduceat((shares == 1.0).astype(np.float64), starts) > 1
    if not (mark == (own == 1.0))[~tied].all() or not (mark <= (own == 1.0))[tied].all():
        return None
    squares = np.add.reduceat(shares**2, starts) / total**2
    return {BRIER: squares - 2.0 * own / total + 1.0, CONFIDENCE: 1.0 / total, CORRECT: mark}
