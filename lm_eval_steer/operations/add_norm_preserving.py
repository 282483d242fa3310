"""``add_norm_preserving``: add, then give each position its old norm back."""

from __future__ import annotations

import torch
from torch import Tensor

from lm_eval_steer.operations.base import Operation


class AddNormPreserving(Operation):
    """Add the vector and keep the norm: ``h' = (h + λv)·‖h‖ / ‖h + λv‖``.

    Source: repeng's ``normalize`` (vgel, representation engineering control vectors).
    """

    name = "add_norm_preserving"
    neutral_at_zero = True

    def edit(self, h: Tensor, vector: Tensor, multiplier: float | Tensor, origin: Tensor | None) -> Tensor:
        """Return ``h + λv`` rescaled to ‖h‖; a sum of exactly zero stays zero."""
        moved = h + multiplier * vector
        norm = torch.linalg.vector_norm(moved, dim=-1, keepdim=True)
        old = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
        return torch.where(norm > 0, moved * (old / norm.clamp_min(torch.finfo(h.dtype).tiny)), moved)
