"""``ablate``: take a direction out of everything that is written to the residual stream."""

from __future__ import annotations

from torch import Tensor

from lm_eval_steer.hookpoint import Site
from lm_eval_steer.operations.base import Operation, along, unit


class Ablate(Operation):
    """Remove the direction: ``h' = h − λ(h·v̂)v̂``; λ = 1 removes all of it.

    Unless sites are given it acts on the input of every block and on what every attention and MLP writes, which
    equals orthogonalising the weights that write to the residual stream.

    Source: Arditi et al. 2024 (refusal direction), section 2.4.
    """

    name = "ablate"
    neutral_at_zero = True
    uses_norm = False
    default_sites = (Site.BLOCK_IN, Site.ATTN_OUT, Site.MLP_OUT)

    def edit(self, h: Tensor, vector: Tensor, multiplier: float | Tensor, origin: Tensor | None) -> Tensor:
        """Return ``h − λ(h·v̂)v̂``."""
        direction = unit(vector)
        return h - multiplier * along(h, direction) * direction
