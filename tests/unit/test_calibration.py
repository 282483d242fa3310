"""Calibration columns: equal to scikit-learn and to loops, only where one choice is right, from samples to tables."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss  # type: ignore[import-untyped]

from lm_eval_steer.stats.analysis import curves
from lm_eval_steer.stats.answers import BRIER, CONFIDENCE, CORRECT, row_scores
from lm_eval_steer.stats.calibration import BINS, bins
from lm_eval_steer.stats.curve import Curve
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.results import item_rows
from lm_eval_steer.table.make import make_table
from lm_eval_steer.table.render import render
from tests import toy_tasks as toys
from tests.stats_tools import Row, cell, fill

N, CHOICES = 200, 4
logprobs = st.lists(st.floats(-30, 0).map(lambda x: round(x, 3)), min_size=CHOICES, max_size=CHOICES, unique=True)


def responses(values: list[float]) -> str:
    return str([[(value, False)] for value in values])


def best(values: list[float]) -> int:
    return values.index(max(values))


def softmax(values: list[float]) -> list[float]:
    total = math.fsum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def drawn(seed: int, sharpness: float = 1.0, n: int = N) -> tuple[list[list[float]], list[int]]:
    """Log-probabilities of choices, the first item's the same for every sharpness, and the right choices."""
    random = np.random.default_rng(seed)
    scores = random.normal(0, 1, (n, CHOICES))
    targets = [int(random.choice(CHOICES, p=np.exp(row) / np.exp(row).sum())) for row in scores]
    return (sharpness * scores - 3).tolist(), targets


def answer_rows(values: list[list[float]], targets: list[int], **more: Any) -> list[Row]:
    return [
        {
            **{"task": "quiz", "item_id": f"{item:03d}", "order": 0, "filter": "none", "target": target},
            **{"acc": float(best(row) == target), "responses": responses(row)},
            **{name: given[item] for name, given in more.items()},
        }
        for item, (row, target) in enumerate(zip(values, targets, strict=True))
    ]


def quiz(folder: Path, sharpness: float = 4.0, n: int = N, **more: Any) -> Curve:
    base, targets = drawn(0, n=n)
    steered, _ = drawn(0, sharpness, n)
    cells = [(cell(at, tasks=("quiz",)), answer_rows(v, targets, **more)) for at, v in ((None, base), (1.0, steered))]
    (found,) = curves([fill(Ledger.open(folder), cells)])
    return found


def ece(values: list[list[float]], targets: list[int]) -> float:
    """The definition, one bin after the other."""
    order = sorted((max(softmax(row)), float(best(row) == target)) for row, target in zip(values, targets, strict=True))
    size = len(order) // BINS
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return math.fsum(abs(math.fsum(sure - right for sure, right in part)) for part in parts) / len(order)


@given(st.lists(st.tuples(logprobs, st.integers(0, CHOICES - 1)), min_size=2, max_size=9))
def test_brier_is_that_of_scikit_learn(rows: list[tuple[list[float], int]]) -> None:
    values, targets = [row for row, _ in rows], np.array([target for _, target in rows])
    right = np.array([best(row) == target for row, target in rows], dtype=float)
    found = row_scores([responses(row) for row in values], targets.astype(float), right)
    assert found is not None
    shares = np.array([softmax(row) for row in values])
    theirs = brier_score_loss(targets, shares, labels=range(CHOICES), scale_by_half=False)
    assert found[BRIER].mean() == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    assert found[CONFIDENCE] == pytest.approx(shares.max(axis=1))
    assert found[CORRECT].tolist() == right.tolist()


def test_choices_may_differ_in_number() -> None:
    found = row_scores([responses([0.0, 0.0]), responses([-1.0, -1.0, -1.0])], np.zeros(2), np.ones(2))
    assert found is not None
    assert found[BRIER] == pytest.approx([0.5, 2 / 3])


@pytest.mark.parametrize(
    ("values", "target", "mark"),
    [
        ([-1.0, -2.0], 1, 1.0),  # counted otherwise than by the sum of log-probabilities
        ([-1.0, -2.0], 0, 0.7),  # a share of several right answers
        ([-1.0, -2.0], 2, 0.0),  # no such choice
        ([-1.0], 0, 1.0),  # no choice at all
        ([-1.0, math.nan], 0, 1.0),
    ],
)
def test_without_one_right_choice_nothing_is_said(values: list[float], target: int, mark: float) -> None:
    assert row_scores([responses(values)], np.array([float(target)]), np.array([mark])) is None


@given(st.lists(st.sampled_from([0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1), min_size=1, max_size=80))
def test_bins_keep_equal_confidences_together_and_their_order(values: list[float]) -> None:
    found = bins(np.array(values))
    assert ((found >= 0) & (found < BINS)).all()
    places = sorted(zip(values, found.tolist(), strict=True))
    assert [place for _, place in places] == sorted(place for _, place in places)
    assert len(dict(places)) == len(set(places))


def test_a_ledger_tells_an_overconfident_cell_from_a_calibrated_one(tmp_path: Path) -> None:
    point = quiz(tmp_path).at(1.0)
    assert point is not None
    found = point.calibration
    assert found is not None
    base, targets = drawn(0)
    steered, _ = drawn(0, 4.0)
    assert found.ece.value == pytest.approx(ece(steered, targets))
    assert found.ece_change.value == pytest.approx(ece(steered, targets) - ece(base, targets))
    assert found.brier_change.excludes_zero
    assert found.ece_change.excludes_zero
    assert (found.brier.method, found.ece.method, found.ece.n) == ("percentile", "basic", N)


def test_intervals_are_over_clusters_and_few_have_none(tmp_path: Path) -> None:
    games = [f"game {item % 12}" for item in range(N)]
    point = quiz(tmp_path, cluster=games).at(1.0)
    assert point is not None
    found = point.calibration
    assert found is not None
    assert (found.brier.n, found.brier.method) == (12, "studentised")
    assert (found.ece.low, found.ece.why) == (None, "under 30 clusters")


def test_the_unsteered_model_changes_by_nothing(tmp_path: Path) -> None:
    point = quiz(tmp_path).at(0.0)
    assert point is not None
    assert point.calibration is not None
    for change in (point.calibration.brier_change, point.calibration.ece_change):
        assert (change.value, change.low, change.high) == (0.0, 0.0, 0.0)


def test_tables_have_the_columns_where_a_task_has_the_numbers(tmp_path: Path) -> None:
    curve = quiz(tmp_path)
    table = make_table([curve])
    assert "ΔBrier" in render(table, "md")
    (row,) = [r for r in json.loads(render(table, "json"))["rankings"][0]["rows"] if r["kind"] == "vector"]
    point = curve.at(curve.multiplier or 0.0)
    assert point is not None
    assert point.calibration is not None
    assert (row["brier"], row["delta_ece_high"]) == (point.calibration.brier.value, point.calibration.ece_change.high)
    assert "brier" in (next(csv.reader(io.StringIO(render(table, "csv")))))


def test_samples_say_which_choice_is_right_where_the_task_does() -> None:
    def sample(target: object, metrics: dict[str, float], answers: int = 2) -> dict[str, Any]:
        facts = {"doc_id": 0, "doc": {}, "filter": "none", "doc_hash": "d", "prompt_hash": "p", "target": target}
        return {**facts, "metrics": list(metrics), **metrics, "resps": [[(-1.0, False)]] * answers}

    given = [(1, {"acc": 1.0}), ("1", {"acc": 1.0}), ("B", {"acc": 1.0}), (2, {"acc": 0.0}), (1, {"p_match": 0.5})]
    found = [item_rows({"t": [sample(*each)]})[0].get("target") for each in given]
    assert found == [1, 1, None, None, None]


def test_a_swept_lm_eval_task_has_brier_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lm-eval itself passes on, targets and answers, is enough."""
    place = toys.install(tmp_path, monkeypatch)
    toys.sweep(place, toys.spec(place, tasks=["toy_text"], layers="1", multipliers="2"))
    ledger = Ledger.open(place / "ledger")
    (steered,) = (record for record in ledger.read_cells() if record.plan["placements"])
    (found,) = curves([ledger])
    point = found.at(2.0)
    assert point is not None
    assert point.calibration is not None
    shares = [softmax(toys.numbers(row["responses"]))[row["target"]] for row in ledger.read_samples(steered.cell_id)]
    assert point.calibration.brier.value == pytest.approx(math.fsum(2 * (1 - p) ** 2 for p in shares) / len(shares))
