"""``clamp``: set the projection on a direction to a value."""

from __future__ import annotations

from torch import Tensor

from lm_eval_steer.operations.base import Operation, along, unit


class Clamp(Operation):
    """Set the projection: ``h' = h + (λ − (h − b)·v̂)v̂``, b the origin (zero unless the vector has one).

    Not neutral at λ = 0: it then sets the projection to zero.

    Source: Templeton et al. 2024 (Scaling Monosemanticity), feature steering; ``clamp`` of lm-eval's ``steered``.
    """

    name = "clamp"
    neutral_at_zero = False
    uses_norm = False

    def edit(self, h: Tensor, vector: Tensor, multiplier: float | Tensor, origin: Tensor | None) -> Tensor:
        """Return ``h + (λ − (h − b)·v̂)v̂``."""
        direction = unit(vector)
        centred = h if origin is None else h - origin
        return h + (multiplier - along(centred, direction)) * direction
