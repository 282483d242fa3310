"""Items: from one row an option order to one number an item, with the order averaged out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lm_eval_steer.stats.arrays import Floats, Ints, run_means, run_spreads


@dataclass(frozen=True)
class ItemScores:
    """One task's items in one cell, ``[n]`` each, in the order of the layout; None where the task has no such number.

    Attributes:
        score: the headline, for example ``p_i``.
        propensity: ``ld_i``, in nats (nats per token for text tasks).
        bias: position bias.
        mass: probability on the option letters.
        p_caa: sigmoid of the logit difference in the original order.
        flips: 1 where the preferred option changes with the order, else 0.
        nll: negative log-likelihood of a neutral text, in nats, with ``tokens`` its length.
        tokens: its number of tokens.
        kl: KL(unsteered ‖ steered) summed over its positions, in nats.
        brier: Brier score of the choices' probabilities, where one of them is right.
        confidence: the highest of these probabilities.
        correct: 1 where it is the right choice's, else 0.
    """

    score: Floats
    propensity: Floats | None = None
    bias: Floats | None = None
    mass: Floats | None = None
    p_caa: Floats | None = None
    flips: Floats | None = None
    nll: Floats | None = None
    tokens: Floats | None = None
    kl: Floats | None = None
    brier: Floats | None = None
    confidence: Floats | None = None
    correct: Floats | None = None


def sigmoid(x: Floats) -> Floats:
    """Return ``1 / (1 + exp(−x))``, without overflow at either end."""
    growth = np.exp(-np.abs(x))
    result: Floats = np.where(x >= 0, 1.0, growth) / (1.0 + growth)
    return result


def propensity(logit_diff: Floats, starts: Ints) -> Floats:
    """Return ``ld_i``, the mean logit difference over an item's orders.

    Args:
        logit_diff: ``[rows]``, nats; the orders of an item in neighbouring rows.
        starts: ``[n]``, the first row of each item.
    """
    return run_means(logit_diff, starts)


def p_match(logit_diff: Floats, starts: Ints) -> Floats:
    """Return ``p_i = mean_o sigmoid(ld_io)``; arguments as for :func:`propensity`."""
    return run_means(sigmoid(logit_diff), starts)


def p_caa(logit_diff: Floats, order: Ints, starts: Ints) -> Floats:
    """Return the CAA paper's score of each item, ``sigmoid(ld_i,orig)``; NaN for an item without its original order.

    Args:
        logit_diff: ``[rows]``, nats.
        order: ``[rows]``, 0 is the original order.
        starts: ``[n]``, the first row of each item; rows of an item are sorted by order.

    Source: Panickssery et al. 2023, "Steering Llama 2 via Contrastive Activation Addition", section 4.1.
    """
    result: Floats = np.where(order[starts] == 0, sigmoid(logit_diff[starts]), np.nan)
    return result


def flips(match: Floats, starts: Ints) -> Floats:
    """Return 1 for items whose ``match`` differs between orders, else 0.

    ``match`` is 1 where the matching option is preferred, 0 where another is, 0.5 for a tie; with more than two options
    a change from one of the others to another of them is not seen.
    """
    changed: Floats = (run_spreads(match, starts) > 0).astype(np.float64)
    return changed
