"""What a sceptical reading of calibration, frontier and inspect files found, kept from coming back."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from lm_eval_steer.errors import InputError
from lm_eval_steer.report.inspect_file import read_inspect_file
from lm_eval_steer.report.inspection import inspection_sections
from lm_eval_steer.stats.curve import Estimate, SideMetric
from lm_eval_steer.sweep.results import item_rows
from tests.unit.test_report_frontier import game_curve, picture


def test_answers_without_their_context_are_no_choices() -> None:
    """``acc_mutual_info`` asks every choice twice, the second time after nothing."""
    sample = {"doc_id": 0, "doc": {}, "filter": "none", "doc_hash": "d", "prompt_hash": "p", "target": 1}
    metrics = {"acc": 1.0, "acc_mutual_info": 1.0}
    resps = [[(value, False)] for value in (-2.0, -1.0, -8.0, -9.0)]
    found = item_rows({"t": [{**sample, "metrics": list(metrics), **metrics, "resps": resps}]})
    assert "target" not in found[0]


def test_a_cell_that_is_steered_at_zero_is_on_the_picture() -> None:
    made = game_curve(0.2, 0.1)
    change = Estimate(-0.3, -0.35, -0.25)
    at_zero = {"reward_rel": SideMetric(Estimate(0.7), change), "harm_rel": SideMetric(Estimate(0.7), change)}
    points = tuple(
        dataclasses.replace(point, side_metrics=at_zero) if point.multiplier == 0 else point for point in made.points
    )
    rows = picture(dataclasses.replace(made, points=points)).numbers.rows
    assert [(row[2], row[6]) for row in rows if row[1] == "0"] == [("1.0000", "1.0000"), ("0.7000", "0.7000")]


def test_each_model_has_its_own_unsteered_point() -> None:
    """Levels are drawn, not changes: a curve through another model's point would show what nobody measured."""
    one, other = (dataclasses.replace(game_curve(0.2, 0.1), id=name, model={"id": name}) for name in ("a", "b"))
    points = tuple(
        dataclasses.replace(
            point,
            side_metrics={
                name: SideMetric(Estimate((found.level.value or 0.0) + 5), found.change)
                for name, found in point.side_metrics.items()
            },
        )
        for point in other.points
    )
    rows = picture(one, dataclasses.replace(other, points=points)).numbers.rows
    unsteered = [(row[0], row[2]) for row in rows if row[0].startswith("unsteered")]
    assert unsteered == [("unsteered · a", "1.0000"), ("unsteered · b", "6.0000")]


def inspection(**more: Any) -> dict[str, Any]:
    norm = {"vector": "v", "point": "block_out.2", "norm": 1.0, "stream_norm": 2.0, "relative_dose": 0.5}
    norm |= {"split_half": None, "cos_letter": None, "cos_yes": None}
    lens = {"layer": 0, "tokens": ["a"], "probabilities": [1.0], "kl": 0.5, "final_rank": 1}
    cosines = {"labels": ["v"], "values": [[1.0]], "reliability": [None]}
    return {
        **{"prompt": "p", "vectors": [], "cosines": cosines},
        "norms": [{**norm, **more.get("norm", {})}],
        "lens": [{**lens, **more.get("lens", {})}],
    }


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("part", "name"), [("norm", "norm"), ("lens", "layer")])
def test_a_size_that_is_no_number_is_refused(tmp_path: Path, value: float, part: str, name: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps(inspection(**{part: {name: value}})))
    with pytest.raises(InputError):
        read_inspect_file(tmp_path / "x.json")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_dose_that_is_no_number_is_not_there(tmp_path: Path, value: float) -> None:
    (tmp_path / "x.json").write_text(json.dumps(inspection(norm={"relative_dose": value}, lens={"kl": value})))
    (section,) = inspection_sections([read_inspect_file(tmp_path / "x.json")])
    assert section.pictures[0].numbers.rows[0][4] == "n/a"
