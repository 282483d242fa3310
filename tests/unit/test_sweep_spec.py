"""SweepSpec: what a sweep is asked for, and which cells that means."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_steer.errors import ConfigError, InputError, SteerError
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.model_args import parse_arguments
from lm_eval_steer.sweep.spec import SweepSpec
from tests.conftest import random_vector

LAYERS = 4


@pytest.fixture
def vectors(tmp_path: Path) -> dict[str, str]:
    paths = {}
    for seed, name in enumerate(("joy", "calm")):
        paths[name] = str(tmp_path / f"{name}.safetensors")
        save_vector(random_vector(8, LAYERS, seed=seed, name=name), Path(paths[name]))
    return paths


def spec(paths: dict[str, str], **more: Any) -> SweepSpec:
    return SweepSpec.from_dict({"vectors": [paths["joy"]], "tasks": ["t"], **more})


def test_the_grid_in_order(vectors: dict[str, str]) -> None:
    cells = spec(vectors, layers="1,3", multipliers="-1:1:1", scopes="after_prompt;all").cells(LAYERS)
    assert cells[0].plan.id == "unsteered"
    assert cells[0].labels["vector"] == "unsteered"
    points = [(c.labels["scope"], c.labels["layer"], c.labels["multiplier"]) for c in cells[1:]]
    assert points == [(s, layer, m) for s in ("after_prompt", "all") for layer in (1, 3) for m in (-1.0, 1.0)]
    assert [(a["scope"], a["layer"], a["multiplier"]) for a in cells[0].aliases] == [
        (s, layer, 0.0) for s in ("after_prompt", "all") for layer in (1, 3)
    ]
    assert len({cell.plan.id for cell in cells}) == len(cells)
    assert all(set(cell.labels) == set(cells[0].labels) for cell in cells)


def test_a_cell_is_the_plan_that_lm_eval_would_run(vectors: dict[str, str]) -> None:
    asked = {"vector": vectors["joy"], "layer": 2, "multiplier": 1.5, "scope": "all", "normalize": "unit"}
    plain = parse_arguments(asked).resolve(LAYERS)
    cells = spec(vectors, layers=2, multipliers=1.5, scopes=["all"], normalize="unit").cells(LAYERS)
    assert [cell.plan.id for cell in cells] == ["unsteered", plain.id]
    assert cells[1].plan.to_dict() == plain.to_dict()


def test_the_order_is_the_same_in_every_spelling(vectors: dict[str, str], tmp_path: Path) -> None:
    flags = spec(vectors, layers="1-3", multipliers="-2:2:2", operations="add,ablate")
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "vectors: [joy.safetensors]\nlayers: [1, 2-3]\nmultipliers: [2, -2, 0]\noperations: [add, ablate]\ntasks: t\n"
    )
    other = SweepSpec.from_file(file)
    assert [c.plan.id for c in flags.cells(LAYERS)] == [c.plan.id for c in other.cells(LAYERS)]
    again = SweepSpec.from_dict(json.loads(json.dumps(flags.to_dict())))
    assert (again, again.id) == (flags, flags.id)
    assert again.id != dataclasses.replace(flags, limit=3).id


def test_a_spec_file_does_not_reach_out_of_its_folder(vectors: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "sweep.json"
    file.write_text(json.dumps({"vectors": ["../joy.safetensors"], "tasks": ["t"]}))
    with pytest.raises(InputError, match="leaves the folder"):
        SweepSpec.from_file(file).cells(LAYERS)


def test_zero_of_an_operation_that_is_not_neutral_is_a_cell(vectors: dict[str, str]) -> None:
    cells = spec(vectors, layers=1, multipliers="0,1", operations="clamp").cells(LAYERS)
    assert [cell.labels["multiplier"] for cell in cells[1:]] == [0.0, 1.0]


def test_an_operation_that_edits_every_layer_is_named_by_its_directions(vectors: dict[str, str]) -> None:
    cells = spec(vectors, layers="1-2", operations="ablate").cells(LAYERS)
    assert [cell.labels["layer"] for cell in cells[1:]] == [1, 2]
    assert len(cells[1].plan.placements) == 3 * LAYERS


def test_equal_plans_are_one_cell(vectors: dict[str, str]) -> None:
    both = SweepSpec.from_dict(
        {"vectors": list(vectors.values()), "normalize": ["none", "set"], "layers": "1", "tasks": ["t"]}
    )
    cells = both.cells(LAYERS)
    assert [(c.labels["vector"], c.labels["normalize"]) for c in cells[1:]] == [
        (v, n) for v in ("joy", "calm") for n in ("none", "set")
    ]
    norms = [float(torch.linalg.vector_norm(cell.plan.placements[0].direction())) for cell in cells[1:]]
    assert norms[1] == pytest.approx(norms[3]) == pytest.approx((norms[0] + norms[2]) / 2)
    twins = SweepSpec.from_dict({"placements": [{"vector": vectors["joy"], "layer": 1}] * 2, "tasks": ["t"]})
    assert [len(cell.aliases) for cell in twins.cells(LAYERS)] == [0, 1]


def test_two_vectors_of_one_name_are_told_apart(vectors: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_vector(random_vector(8, LAYERS, seed=9, name="joy"), other)
    labels = [
        cell.labels["vector"]
        for cell in SweepSpec.from_dict({"vectors": [vectors["joy"], str(other)], "layers": "1", "tasks": ["t"]}).cells(
            LAYERS
        )
    ]
    assert len(set(labels)) == 3
    assert all(str(label).startswith("joy-") for label in labels[1:])


# ------------------------------------------------------------------------------------------------ nulls


def test_random_nulls_have_the_norm_and_another_direction(vectors: dict[str, str]) -> None:
    asked = {"layers": "1-2", "multipliers": "-1,0,1", "nulls": "random:3", "normalize": "unit"}
    cells = spec(vectors, **asked).cells(LAYERS)
    own = [cell for cell in cells[1:] if cell.labels["control"] is None]
    null = [cell for cell in cells if cell.labels["control"] == "random"]
    assert (len(own), len(null)) == (4, 12)
    assert {cell.labels["vector"] for cell in null} == {f"joy-random-{i}" for i in range(3)}
    assert {cell.labels["control_of"] for cell in null} == {"joy"}
    for cell in null:
        (placement,) = cell.plan.placements
        assert float(torch.linalg.vector_norm(placement.direction())) == pytest.approx(1.0, rel=1e-5)
        assert placement.vector.provenance.control == "random"
        assert placement.vector.name == cell.labels["vector"]
    assert [c.plan.id for c in spec(vectors, **asked).cells(LAYERS)] == [c.plan.id for c in cells]
    other = {cell.plan.id for cell in spec(vectors, **asked, seed=5).cells(LAYERS)}
    assert other & {cell.plan.id for cell in cells} == {"unsteered", *(cell.plan.id for cell in own)}


@pytest.mark.parametrize("nulls", ["letter", "random:2,shuffled", "zero"])
def test_nulls_that_need_the_training_pairs_are_refused(vectors: dict[str, str], nulls: str) -> None:
    with pytest.raises(ConfigError, match="one more --vector"):
        spec(vectors, nulls=nulls)


# ------------------------------------------------------------------------------------------------ plans


def test_explicit_plans(vectors: dict[str, str]) -> None:
    plans = [
        {"vector": vectors["joy"], "layer": "0-2", "multiplier": 2.0},
        {"placements": [{"vector": v, "layer": i} for i, v in enumerate(vectors.values())]},
    ]
    cells = SweepSpec.from_dict({"placements": plans, "tasks": ["t"], "nulls": "random"}).cells(LAYERS)
    assert [(c.labels["vector"], c.labels["layer"], c.labels["multiplier"]) for c in cells[1:]] == [
        ("joy", "0-2", 2.0),
        ("joy-random", "0-2", 2.0),
        ("joy+calm", "0-1", 1.0),
        ("joy+calm-random", "0-1", 1.0),
    ]
    assert cells[3].plan.id == parse_arguments({"spec": plans[1]}).resolve(LAYERS).id


# ------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vector": "x"}, "Did you mean 'vectors'"),
        ({"tasks": None}, "at least one task"),
        ({"vectors": None}, "at least one vector"),
        ({"vectors": ["a;b"]}, "use placements"),
        ({"vectors": ["a", "a"]}, "a twice"),
        ({"vectors": []}, "at least one vector"),
        ({"scopes": ["allways"]}, "Did you mean 'all'"),
        ({"operations": "ad"}, "Did you mean 'add'"),
        ({"normalize": "units"}, "Did you mean 'unit'"),
        ({"normalize": "set"}, "two or more"),
        ({"multipliers": [1, 1.0]}, "twice"),
        ({"multipliers": [float("nan")]}, "not finite"),
        ({"multipliers": "1:2"}, "FIRST:LAST:STEP"),
        ({"layers": 1.5}, "write all"),
        ({"site": "resid"}, "unknown site"),
        ({"limit": 0}, "limit is a whole number from 1"),
        ({"limit": True}, "limit is a whole number"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"chat": "yes"}, "chat is true or false"),
        ({"placements": [{"vector": "v"}]}, "both given"),
        ({"vectors": None, "placements": []}, "at least one vector"),
        ({"vectors": None, "placements": ["x"]}, "list of plans"),
        ({"vectors": None, "placements": [{"vector": object()}]}, "no text or number"),
        ({"nulls": "randon:3"}, "Did you mean 'random'"),
    ],
)
def test_refused_before_anything_is_loaded(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SweepSpec.from_dict({"vectors": ["v"], "tasks": ["t"], **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": ["nowhere"]}, "no such file"),
        ({"layers": "9"}, r"no layer \[9\]"),
        ({"layers": "all", "normalize": "dose"}, "residual norm"),
    ],
)
def test_refused_when_the_vector_is_known(vectors: dict[str, str], change: dict[str, Any], message: str) -> None:
    with pytest.raises(SteerError, match=message):
        spec(vectors, **change).cells(LAYERS)


@pytest.mark.parametrize("plan", [{"placements": []}, {"placements": ["x"]}, {"vector": "v", "lair": 1}])
def test_malformed_plans(plan: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="sweep: "):
        SweepSpec.from_dict({"placements": [plan], "tasks": ["t"]}).requests()


def test_a_vector_with_more_layers_than_the_model(vectors: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        spec(vectors).cells(2)
