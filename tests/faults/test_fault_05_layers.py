"""Row 5: a layer out of range, no whole number, or given twice: an exact message with the valid range."""

from __future__ import annotations

import pytest

from lm_eval_steer.attachment import attach
from lm_eval_steer.errors import EXIT_USAGE, LayerError
from lm_eval_steer.hookpoint import Hookpoint, Site, check_layer
from lm_eval_steer.plan import Placement, SteeringPlan
from tests.conftest import random_vector
from tests.steered import make_plan
from tests.tiny_models import WIDTH, build


@pytest.mark.parametrize("layer", [4, -5, 100])
def test_out_of_range(layer: int) -> None:
    with pytest.raises(LayerError, match=rf"layer {layer} is out of range; this model has layers 0 to 3"):
        check_layer(layer, 4)


@pytest.mark.parametrize("layer", [1.0, "1", True, None])
def test_no_whole_number(layer: object) -> None:
    with pytest.raises(LayerError, match="is no whole number"):
        check_layer(layer, 4)


def test_negative_counts_from_the_end_only_where_the_length_is_known() -> None:
    assert check_layer(-1, 4) == 3
    with pytest.raises(LayerError, match="negative"):
        check_layer(-1)


def test_attach_refuses_a_layer_the_model_lacks() -> None:
    with pytest.raises(LayerError, match="this model has layers 0 to 3") as caught:
        attach(build("llama"), make_plan(random_vector(WIDTH, 9), layer=8))
    assert caught.value.exit_code == EXIT_USAGE


def test_the_same_placement_twice_is_refused() -> None:
    point = Hookpoint(Site.BLOCK_OUT, 1)
    placement = Placement(random_vector(WIDTH, 4), point, point)
    with pytest.raises(LayerError, match="given twice"):
        SteeringPlan((placement, placement))
