"""What records say of languages: the data of a vector, pooled ones too, and nothing that changes a cell's id."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.inspection.combine import combine
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.stats.crosslingual.analysis import analyse
from lm_eval_steer.stats.crosslingual.family import extracted_in
from lm_eval_steer.stats.groups import group_cells
from lm_eval_steer.vector import Provenance, SteeringVector
from tests.crosslingual_tools import planted_tracks, shared_direction, write_family

POINT = Hookpoint(Site.BLOCK_OUT, 1)


def vector(data: Any, seed: int = 0) -> SteeringVector:
    row = torch.randn(8, generator=torch.Generator().manual_seed(seed))
    return SteeringVector("v", {POINT: row}, Provenance("caa", notes={} if data is None else {"data": data}))


def plan(made: SteeringVector) -> SteeringPlan:
    return SteeringPlan((Placement(made, POINT, POINT),))


def test_a_plan_names_the_data_of_its_vector_and_keeps_its_id() -> None:
    named, nameless = plan(vector("xl_joy_fr")), plan(vector(None))
    assert named.id == nameless.id
    assert named.to_dict()["placements"][0]["data"] == "xl_joy_fr"
    assert "data" not in nameless.to_dict()["placements"][0]


@pytest.mark.parametrize(
    ("data", "languages"),
    [
        (("xl_joy_fr", "xl_joy_en"), ("joy", ("en", "fr"))),
        (("xl_joy_fr", "xl_joy_fr"), ("joy", ("fr",))),  # as where a letter direction of the same data is taken out
        (("xl_joy_fr", None), None),
    ],
)
def test_a_combined_vector_names_the_data_of_all_its_parents(data: tuple[Any, Any], languages: Any) -> None:
    pooled = combine("average", [vector(each, seed) for seed, each in enumerate(data)], "pooled")
    again = combine("average", [pooled, vector(data[0], 7)], "again")
    for made in (pooled, again):
        (placement,) = plan(made).to_dict()["placements"]
        assert extracted_in(placement, ["en", "fr"]) == languages


def test_cells_of_before_and_after_the_number_of_parameters_belong_together(tmp_path: Path) -> None:
    records = write_family(tmp_path / "l", shared_direction(languages=("en", "fr")), n=3).read_cells()
    old = {name: value for name, value in records[0].model.items() if name != "parameters"}
    mixed = [dataclasses.replace(r, model=old) if r.plan_id == "unsteered" else r for r in records]
    assert len(group_cells(mixed)) == len(group_cells(records)) == 4


def test_random_directions_of_another_norm_are_no_nulls() -> None:
    """Two vectors of one name have random directions of one name."""
    tracks = planted_tracks(shared_direction(languages=("en", "fr")), k=19)
    norms = [
        dataclasses.replace(t, curve=dataclasses.replace(t.curve, vector={**t.curve.vector, "norm": norm}))
        for t in tracks
        for norm in [3.0 if t.curve.labels["vector"] == "v_en-random-0" else 2.0]
    ]
    found = {
        effect.vector: effect.nulls["en"]
        for effect in analyse(norms, draws=100).families[0].places[0].layers[0].vectors
    }
    assert found == {"v_en": 18, "v_fr": 19}
