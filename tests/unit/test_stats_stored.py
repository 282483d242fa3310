"""Curves as JSON: read back they are equal, whatever is in them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_steer.files import canonical_json
from lm_eval_steer.stats.curve import Calibration, Curve, Estimate, NullTest, Point, Selection, SideMetric
from lm_eval_steer.stats.curve_json import curve_from_dict, curve_to_dict
from lm_eval_steer.stats.stored import load_curves, store_curves

numbers = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | numbers
names = st.text(max_size=8)
estimates = st.builds(
    Estimate,
    value=maybe,
    low=maybe,
    high=maybe,
    n=st.integers(0, 9),
    method=st.sampled_from(["percentile", "studentised", "basic", "none"]),
    why=names,
)
points = st.builds(
    Point,
    cell_id=names,
    multiplier=numbers,
    status=st.sampled_from(["ok", "non_finite"]),
    **dict.fromkeys(("score", "propensity", "effect", "effect_ld"), estimates),
    **dict.fromkeys(("p_permutation", "position_bias", "delta_position_bias", "flip_rate", "mass", "p_caa"), maybe),
    **dict.fromkeys(("relative_dose", "headroom_effect"), maybe),
    capability=st.dictionaries(names, estimates, max_size=2),
    perplexity_ratio=st.none() | estimates,
    kl=st.none() | estimates,
    calibration=st.none()
    | st.builds(Calibration, **dict.fromkeys(("brier", "brier_change", "ece", "ece_change"), estimates)),
    side_metrics=st.dictionaries(names, st.builds(SideMetric, level=estimates, change=estimates), max_size=2),
    flags=st.lists(names, max_size=2).map(tuple),
)
several = st.lists(names, max_size=3).map(tuple)
labels = st.dictionaries(names, st.none() | st.booleans() | st.integers() | numbers | names, max_size=3)
curves = st.builds(
    Curve,
    id=names,
    labels=labels,
    task=names,
    **dict.fromkeys(("task_identity", "model", "vector", "versions"), labels),
    metric=names,
    higher_is_better=st.booleans(),
    items=several,
    points=st.lists(points, max_size=3).map(tuple),
    **dict.fromkeys(("steerability", "steerability_dose", "range"), estimates),
    **dict.fromkeys(("anti_frac", "null_frac", "d_z", "spearman", "rising", "turns_at"), maybe),
    selection=st.none()
    | st.builds(Selection, multiplier=numbers, chosen_on=estimates, reported=estimates, selection_items=several),
    null=st.builds(
        NullTest,
        kind=st.just("random"),
        k=st.integers(0, 9),
        p=maybe,
        band=st.dictionaries(numbers, st.tuples(numbers, numbers), max_size=2),
        why=names,
    ),
    flags=several,
    slope_of=names,
    baseline=names,
    constant_items=st.integers(0, 9),
    left_out=several,
    item_effects=st.lists(numbers, max_size=3).map(tuple),
    item_sizes=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    draws=st.integers(100, 9999),
    seed=st.integers(0, 9),
)


def test_the_strategies_fill_every_field() -> None:
    """So that a field that is added is tried too."""
    for strategy, kind in ((curves, Curve), (points, Point), (estimates, Estimate)):
        assert {field.name for field in dataclasses.fields(kind)} == set(strategy.wrapped_strategy.kwargs)


@settings(max_examples=50, deadline=None)
@given(curves)
def test_a_curve_comes_back_from_a_dict(curve: Curve) -> None:
    assert curve_from_dict(curve_to_dict(curve)) == curve


@settings(max_examples=30, deadline=None)
@given(st.lists(curves, max_size=3))
def test_curves_come_back_from_a_file_with_the_same_bytes(tmp_path_factory: object, found: list[Curve]) -> None:
    folder = tmp_path_factory.mktemp("stats")  # type: ignore[attr-defined]
    assert store_curves(folder, "a", found)
    again = load_curves(folder, "a")
    assert again == found
    assert store_curves(folder, "b", again)
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert load_curves(tmp_path, "a") is None


def test_stored_statistics_are_read_without_arrays_and_resamples() -> None:
    code = (
        "import sys, lm_eval_steer.stats.analysis\n"
        "heavy = {'scipy', 'pyarrow', 'torch', 'lm_eval', 'lm_eval_steer.stats.compute'}\n"
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_dict_of_a_curve_is_json() -> None:
    none = Estimate(None)
    curve = Curve(
        *("id", {"layer": 3}, "t", {}, {}, {}, "p_match", True, ("a",), (), none, none),
        **dict.fromkeys(("anti_frac", "null_frac", "d_z", "spearman", "rising", "turns_at")),
        range=none,
        selection=None,
        null=NullTest("random", 1, 0.5, {1.0: (0.0, 0.5)}),
    )
    assert '"band":[[1.0,[0.0,0.5]]]' in canonical_json(curve_to_dict(curve))
