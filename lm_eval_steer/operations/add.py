"""``add``: h' = h + λv."""

from __future__ import annotations

from torch import Tensor

from lm_eval_steer.operations.base import Operation


class Add(Operation):
    """Add the vector: ``h' = h + λv``.

    Source: Turner et al. 2023 (ActAdd), section 3; Rimsky et al. 2024 (CAA), section 3.
    """

    name = "add"
    neutral_at_zero = True

    def edit(self, h: Tensor, vector: Tensor, multiplier: float | Tensor, origin: Tensor | None) -> Tensor:
        """Return ``h + λv``."""
        return h + multiplier * vector
