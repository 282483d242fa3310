"""Row 11: an edit lost in half precision is computed in float32, and the record says how much arrived."""

from __future__ import annotations

import pytest
import torch

from lm_eval_steer.edit import Edit
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.plan import Placement
from lm_eval_steer.positions import Chosen
from lm_eval_steer.vector import Provenance, SteeringVector

POINT = Hookpoint(Site.BLOCK_OUT, 0)


def edit_of(value: float, multiplier: float) -> Edit:
    vector = SteeringVector("small", {POINT: torch.full((4,), value)}, Provenance("made up"))
    return Edit(Placement(vector, POINT, POINT, multiplier=multiplier))


def every(n: int) -> Chosen:
    return Chosen(torch.arange(n), torch.zeros(n, dtype=torch.long), n)


def test_an_edit_below_the_spacing_is_reported_as_lost() -> None:
    edit = edit_of(0.5, 1.0)
    hidden = torch.full((1, 2, 4), 256.0, dtype=torch.bfloat16)
    assert torch.equal(edit.apply(hidden, every(2)), hidden)
    assert edit.report()["realised_over_nominal"] == 0.0


def test_the_product_is_taken_in_float32() -> None:
    edit = edit_of(1.0 / 3.0, 300.0)
    hidden = torch.zeros(1, 1, 4, dtype=torch.bfloat16)
    assert float(edit.apply(hidden, every(1))[0, 0, 0]) == 100.0


def test_float32_arrives_whole() -> None:
    edit = edit_of(0.5, 1.0)
    edit.apply(torch.full((1, 2, 4), 256.0), every(2))
    assert edit.report()["realised_over_nominal"] == pytest.approx(1.0, abs=1e-6)
