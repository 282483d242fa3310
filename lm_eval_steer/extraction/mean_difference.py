"""``mean_difference``: the mean over pairs of h(pos) − h(neg)."""

from __future__ import annotations

from torch import Tensor

from lm_eval_steer.extraction.base import Estimator, PairActivations, mean_rows


class MeanDifference(Estimator):
    """The mean difference of paired activations.

    ``v_l = 1/n Σ_i [h_l(pos_i) − h_l(neg_i)]``, not normalised. Read at the letter of "(A)" it is Contrastive
    Activation Addition; read as the mean over the answer's tokens, its variant for full-text answers.

    Source: Panickssery et al. 2023 (CAA, arXiv 2312.06681), section 3; tokens of the whole answer as in Zou et al. 2023
    (arXiv 2310.01405), section 3.1.
    """

    name = "mean_difference"

    def estimate(self, activations: PairActivations) -> Tensor:
        """Return the mean difference of every hookpoint, ``[n_points, d_model]``."""
        return mean_rows(activations.differences)
