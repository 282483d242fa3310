"""Divergence: KL of next-token distributions, in float32."""

from __future__ import annotations

import torch
from torch import Tensor

_POSITIONS = 32  # whose distributions are held at a time


def float_log_probs(logits: Tensor) -> Tensor:
    """Return log-probabilities ``[positions, vocabulary]`` in float32 of logits, or of log-probabilities."""
    return torch.log_softmax(logits.float(), dim=-1)


def kl_sum(base: Tensor, steered: Tensor) -> float:
    """Return the sum over positions of KL(base ‖ steered), nats; exactly 0 for equal distributions.

    ``Σ_t Σ_k p_tk (log p_tk − log q_tk)``. A token that the base rules out counts nothing.

    Args:
        base: log-probabilities ``[positions, vocabulary]``, float32.
        steered: the same, of the steered model.
    """
    total = 0.0
    for first in range(0, len(base), _POSITIONS):
        p, q = base[first : first + _POSITIONS], steered[first : first + _POSITIONS]
        terms = torch.where(p == -torch.inf, 0.0, p.exp() * (p - q))
        total += float(terms.sum(dtype=torch.float64))
    return max(total, 0.0)
