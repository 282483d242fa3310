"""Reward against harm: which cells are on the front, what is drawn, and that n/a is never a number."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_steer.report.frontier import Cell, frontier, pareto_front
from lm_eval_steer.report.labels import Naming, by_task
from lm_eval_steer.report.picture import Picture
from lm_eval_steer.report.scene import Dot, Line, Text
from lm_eval_steer.stats.analysis import curves
from lm_eval_steer.stats.curve import Curve, Estimate, SideMetric
from lm_eval_steer.sweep.ledger import Ledger
from tests.curve_tools import curve, random_nulls
from tests.report_tools import page
from tests.stats_tools import Row, cell, fill

GAMES = 12
places = st.integers(0, 5).map(float)


def side(level: float, change: float, width: float = 0.05) -> SideMetric:
    return SideMetric(Estimate(level), Estimate(change, change - width, change + width))


def game_curve(reward: float, harm: float, name: str = "v", **more: Any) -> Curve:
    """A curve on which one unit of λ adds so much reward and harm to the random agent's 1."""
    made = curve(name, task="machiavelli_demo", **more)
    points = tuple(
        dataclasses.replace(
            point,
            side_metrics={
                "reward_rel": side(1 + reward * point.multiplier, reward * point.multiplier),
                "harm_rel": side(1 + harm * point.multiplier, harm * point.multiplier),
            },
        )
        for point in made.points
    )
    return dataclasses.replace(made, points=points)


def drawn(*made: Curve) -> Picture | None:
    (group,) = by_task(made)
    return frontier(group, Naming.of(made))


def picture(*made: Curve) -> Picture:
    found = drawn(*made)
    assert found is not None
    return found


@given(st.lists(st.tuples(places, places), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(found: list[tuple[float, float]]) -> None:
    nothing = Estimate(None)
    cells = [Cell("vector", "v", float(i), r, h, nothing, nothing) for i, (r, h) in enumerate(found)]
    front = pareto_front(cells)
    for each in cells:
        beaten = any(r >= each.reward and h <= each.harm and (r, h) != (each.reward, each.harm) for r, h in found)
        assert (each in front) != beaten
    assert [each.reward for each in front] == sorted(each.reward for each in front)
    assert [each.harm for each in front] == sorted(each.harm for each in front)


def test_more_reward_for_more_harm_is_all_front_and_less_reward_for_more_harm_is_none() -> None:
    traded = {row[1]: row[-1] for row in picture(game_curve(0.2, 0.1)).numbers.rows}
    assert set(traded.values()) == {"yes"}
    worse = {row[1]: row[-1] for row in picture(game_curve(0.2, -0.1)).numbers.rows}
    assert worse == {"0": "no", "−1": "no", "−0.5": "no", "+0.5": "no", "+1": "yes"}


def test_the_picture_marks_what_it_says() -> None:
    own = game_curve(0.2, 0.1)
    nulls = [
        dataclasses.replace(game_curve(0.01, 0.01, "n"), id=null.id, labels=null.labels)
        for null in random_nulls(own, k=3)
    ]
    found = picture(own, *nulls)
    marks = found.scene.marks
    dots = [mark for mark in marks if isinstance(mark, Dot)]
    assert sum(dot.role == "band" and bool(dot.about) for dot in dots) == 3 * 4
    assert [dot.about for dot in dots if dot.hollow] == ["unsteered", ""]  # on the plane, and in the legend
    assert {"λ −1", "λ +1"} <= {mark.text for mark in marks if isinstance(mark, Text)}
    assert sum(isinstance(mark, Line) and mark.dashed for mark in marks) == 2
    assert [row[0] for row in found.numbers.rows if row[-1] == "null"] == ["random of v · layer 12, mean of 3"] * 4
    assert found.numbers.rows[0][0] == "unsteered"


def test_a_bar_is_the_interval_of_the_change() -> None:
    bars = [m for m in picture(game_curve(0.2, 0.1)).scene.marks if isinstance(m, Line) and m.alpha == 0.4]
    wide = [bar for bar in bars if bar.points[0][1] == bar.points[1][1]]
    dots = [m for m in picture(game_curve(0.2, 0.1)).scene.marks if isinstance(m, Dot) and m.role == "rise" and m.about]
    assert len(wide) == len(dots) == 4
    for bar, dot in zip(wide, dots, strict=True):
        assert (bar.points[0][0] + bar.points[1][0]) / 2 == pytest.approx(dot.x)


def test_not_applicable_is_no_point() -> None:
    own = game_curve(0.2, 0.1)
    gone = dataclasses.replace(own.points[-1], side_metrics={"reward_rel": side(1.2, 0.2)})
    empty = dataclasses.replace(own.points[0], side_metrics={"reward_rel": side(1.2, 0.2), "harm_rel": NO_HARM})
    found = picture(dataclasses.replace(own, points=(empty, *own.points[1:-1], gone)))
    assert [row[1] for row in found.numbers.rows] == ["0", "−0.5", "+0.5"]


NO_HARM = SideMetric(Estimate(None, why="no item"), Estimate(None, why="no item"))


def test_other_tasks_have_no_such_section() -> None:
    assert drawn(curve()) is None
    assert "Reward and harm" not in page([curve()]).text
    assert "Reward and harm" in page([game_curve(0.2, 0.1)]).text


def test_many_curves_leave_room_for_those_on_the_front() -> None:
    good = game_curve(0.9, -0.9, "good")
    found = picture(good, *(game_curve(-0.4, 0.4 + i / 100, f"bad{i}") for i in range(7)))
    names = {mark.text for mark in found.scene.marks if isinstance(mark, Text)}
    assert "good · layer 12" in names
    assert "5 of 8 curves" in found.caption


# ------------------------------------------------------------------------------------------------ from samples


def scenes(shift: float) -> list[Row]:
    """Three scenes a game: one with both scores, one without reward, one without the headline."""
    rows = []
    for game in range(GAMES):
        for scene in range(3):
            harm = 1 + 0.1 * scene + shift * (1 + game / 10)
            rows.append(
                {
                    **{"task": "machiavelli_demo", "item_id": f"{game}/{scene}", "order": 0, "filter": "none"},
                    **{"cluster": f"game {game:02d}", "lo_unethical": None if scene == 2 else shift, "harm_rel": harm},
                    "reward_rel": None if scene == 1 else 1 + game / 10 - shift,
                }
            )
    return rows


def test_means_are_over_the_items_that_have_the_score_and_clustered_by_game(tmp_path: Path) -> None:
    cells = [(cell(at, tasks=("machiavelli_demo",)), scenes((at or 0.0) / 4)) for at in (None, 1.0)]
    (found,) = curves([fill(Ledger.open(tmp_path), cells)])
    point = found.at(1.0)
    assert point is not None
    reward, harm = point.side_metrics["reward_rel"], point.side_metrics["harm_rel"]
    expected = [row["harm_rel"] for row in scenes(0.25)]
    assert harm.level.value == pytest.approx(math.fsum(expected) / len(expected))
    rewards = [row["reward_rel"] for row in scenes(0.25) if row["reward_rel"] is not None]
    assert reward.level.value == pytest.approx(float(np.mean(rewards)))
    assert reward.change.value == pytest.approx(-0.25)
    assert (harm.change.n, harm.change.method) == (GAMES, "studentised")
    assert len(found.items) == GAMES
    assert found.metric == "lo_unethical"
    assert len(page([found]).find("figure", id="frontier-machiavelli_demo")) == 1


def test_a_task_without_both_has_none(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "reward_rel"} for row in scenes(0.0)]
    cells = [(cell(at, tasks=("machiavelli_demo",)), rows) for at in (None, 1.0)]
    (found,) = curves([fill(Ledger.open(tmp_path), cells)])
    assert all(not point.side_metrics for point in found.points)
