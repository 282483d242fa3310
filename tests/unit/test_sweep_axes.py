"""Gates and orders of the blocks as axes of a sweep: the cells that placements would spell, with their nulls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lm_eval_steer.errors import ConfigError, LayerError
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.scope import assistant_marker
from lm_eval_steer.sweep.spec import SweepSpec
from tests.conftest import random_vector
from tests.tiny_models import tiny_tokenizer

LAYERS = 6


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    paths = {}
    for seed, name in enumerate(("joy", "calm", "harmful")):
        paths[name] = str(tmp_path / f"{name}.safetensors")
        save_vector(random_vector(8, LAYERS, seed=seed, name=name), Path(paths[name]))
    return paths


def spec(**more: Any) -> SweepSpec:
    return SweepSpec.from_dict({"tasks": ["t"], **more})


def shown(made: SweepSpec) -> list[tuple[str, dict[str, Any]]]:
    return [(cell.plan.id, dict(cell.labels)) for cell in made.cells(LAYERS)]


def test_an_order_is_the_cell_of_its_placement_with_its_nulls() -> None:
    orders = ["skip:0", "first:4", "run:0-2+4-3+5"]
    axis = spec(orders=orders, nulls="random:2")
    assert shown(axis) == shown(spec(placements=[{"order": order} for order in orders], nulls="random:2"))
    assert len(shown(axis)) == 1 + 3 * (1 + 2)
    assert SweepSpec.from_dict(json.loads(json.dumps(axis.to_dict()))) == axis
    assert spec(orders="skip:0,first:4").orders == ("skip:0", "first:4")


def test_orders_stand_beside_vectors(files: dict[str, str]) -> None:
    axes = {"vectors": [files["joy"]], "layers": 2, "multipliers": [-1, 1]}
    both = shown(spec(**axes, orders=["skip:1"]))
    assert both == shown(spec(**axes)) + shown(spec(orders=["skip:1"]))[1:]


def test_a_gate_is_the_cell_of_its_placement(files: dict[str, str]) -> None:
    gate = {"gate": files["harmful"], "gate_layer": 1, "gate_threshold": 0.2}
    axis = spec(vectors=[files["joy"], files["calm"]], layers="2-3", multipliers=[0, 2], gates=["none", gate])
    plans = [
        {"vector": files[name], "layer": layer, "multiplier": 2, **more}
        for name in ("joy", "calm")
        for more in ({}, gate)
        for layer in (2, 3)
    ]
    assert shown(axis) == shown(spec(placements=plans))
    again = SweepSpec.from_dict(json.loads(json.dumps(axis.to_dict())))
    assert (again, again.id) == (axis, axis.id)


def test_the_null_of_a_gated_vector_is_gated_alike(files: dict[str, str]) -> None:
    gate = {"gate": files["harmful"], "gate_layer": 1, "gate_threshold": 0.2, "gate_below": True}
    cells = spec(vectors=[files["joy"]], layers=2, gates=gate, nulls="random:2").cells(LAYERS)[1:]
    assert [cell.labels["control"] for cell in cells] == [None, "random", "random"]
    assert len({cell.labels["scope"] for cell in cells}) == 1
    conditions = [cell.plan.placements[0].scope.condition for cell in cells]
    assert conditions[0] is not None
    assert conditions[0].below
    assert all(condition == conditions[0] for condition in conditions)


def test_without_them_a_spec_has_the_id_that_it_always_had(files: dict[str, str]) -> None:
    values = spec(vectors=[files["joy"]]).to_dict()
    assert "gates" not in values
    assert "orders" not in values


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"orders": ["skip:0"], "placements": [{"order": "skip:0"}]}, "both given"),
        ({"orders": ["skip:0"], "layers": 3}, "layers are of vectors"),
        ({"orders": ["skip:0", "skip:0"]}, "twice"),
        ({"orders": ["skp:0"]}, "Did you mean 'skip'"),
        ({"orders": []}, "at least one vector"),
        ({"vectors": ["v"], "gates": []}, "gates is empty"),
        ({"vectors": ["v"], "gates": [{}]}, "neither none nor an object"),
        ({"vectors": ["v"], "gates": ["harmful"]}, "neither none nor an object"),
        ({"vectors": ["v"], "gates": [{"gat": "x"}]}, "Did you mean 'gate'"),
        ({"vectors": ["v"], "gates": [{"gate": "x"}]}, "gate_threshold"),
    ],
)
def test_refused_before_anything_is_read(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        spec(**asked)


def test_a_bare_marker_is_the_one_of_the_chat_template(files: dict[str, str]) -> None:
    tokenizer = tiny_tokenizer(chat=True)
    asked = spec(vectors=[files["joy"]], layers=2, scopes=["from_marker", "from_marker:fox"], nulls="random:1")
    markers = [cell.plan.placements[0].scope.marker for cell in asked.cells(LAYERS, tokenizer)[1:]]
    assert markers == [assistant_marker(tokenizer), "fox"] * 2
    assert [cell.labels for cell in asked.cells(LAYERS, tokenizer)] == [cell.labels for cell in asked.cells(LAYERS)]


def test_a_block_that_the_model_lacks() -> None:
    with pytest.raises(LayerError, match=f"layer {LAYERS}"):
        spec(orders=[f"skip:{LAYERS}"]).cells(LAYERS)
