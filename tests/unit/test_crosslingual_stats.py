"""Agreement, variance shares, level gaps and scaling: equal to other packages, and what was planted is found."""

from __future__ import annotations

import math
import warnings

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from lm_eval_steer.stats.crosslingual.agreement import cohen_kappa, krippendorff_alpha, same_sign, spearman
from lm_eval_steer.stats.crosslingual.clusters import Clusters
from lm_eval_steer.stats.crosslingual.levels import level_gap
from lm_eval_steer.stats.crosslingual.scaling import NO_COMMON, TOO_FEW_MODELS, scaling
from lm_eval_steer.stats.crosslingual.variance import components

RANDOM = np.random.default_rng(0)


def items(n: int, draws: int = 200) -> Clusters:
    return Clusters.of([str(i) for i in range(n)], draws)


def column(values: list[float]) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def equal(value: float | None, other: float) -> None:
    assert (value is None and math.isnan(other)) or value == pytest.approx(other, abs=1e-9)


# ------------------------------------------------------------------------------------------------ other packages

KINDS = st.integers(-1, 1).map(float)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(KINDS, KINDS), min_size=2, max_size=9))
def test_kappa_is_scikit_learns(pairs: list[tuple[float, float]]) -> None:
    a, b = map(column, zip(*pairs, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        equal(cohen_kappa(a, b, items(len(a))).value, cohen_kappa_score(a, b))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=9))
def test_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = map(column, zip(*pairs, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        equal(spearman(a, b, items(len(a))).value, spearmanr(a, b).statistic)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(KINDS | st.just(math.nan), min_size=3, max_size=3), min_size=2, max_size=9),
    st.sampled_from(["nominal", "interval"]),
)
def test_alpha_is_that_of_the_krippendorff_package(rows: list[list[float]], scale: str) -> None:
    values = np.asarray(rows)
    paired = values[np.sum(~np.isnan(values), axis=1) > 1]
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        assert krippendorff_alpha(values, scale, items(len(rows))).value is None  # type: ignore[arg-type]
        return
    found = krippendorff_alpha(values, scale, items(len(rows))).value  # type: ignore[arg-type]
    equal(found, krippendorff.alpha(reliability_data=values.T, level_of_measurement=scale))


def test_intervals_hold_what_a_plain_bootstrap_of_scipys_finds() -> None:
    a = RANDOM.normal(size=40)
    b = a + RANDOM.normal(size=40)
    found = spearman(a, b, items(40, 2000))
    drawn = [spearmanr(a[at], b[at]).statistic for at in RANDOM.integers(0, 40, (1000, 40))]
    assert [found.low, found.high] == pytest.approx(list(np.quantile(drawn, [0.025, 0.975])), abs=0.04)


# ------------------------------------------------------------------------------------------------ planted values


def test_the_share_of_equal_signs_has_a_band_around_zero() -> None:
    found = same_sign(column([1, -1, 1e-4, 2]), column([2, 1, -1e-4, 3]), 1e-3, items(4))
    assert found.value == 0.75


@pytest.mark.parametrize("language", [0.0, 0.5])
def test_variance_parts_are_recovered(language: float) -> None:
    n, shifts = 400, np.asarray([-1.0, 0.0, 1.0]) * language
    values = shifts + RANDOM.normal(0, 1.0, (n, 1)) + RANDOM.normal(0, 0.5, (n, 3))
    found = components(values, items(n, 400))
    for part, planted in ((found.language, language**2), (found.item, 1.0), (found.residual, 0.25)):
        assert part.low is not None
        assert part.high is not None
        assert part.low <= planted <= part.high
        assert part.value == pytest.approx(planted, abs=0.2)
    shares = [found.language_share.value, found.item_share.value, found.residual_share.value]
    assert sum(share or 0.0 for share in shares) == pytest.approx(1.0)


def test_variance_parts_are_floored_and_need_two_of_each() -> None:
    opposed = np.column_stack([column([1, -1] * 20), column([-1, 1] * 20)])
    found = components(opposed, items(40))
    assert (found.item.value, found.language.value) == (0.0, 0.0)
    assert found.item.low == 0.0
    assert components(np.ones((1, 3)), items(1)).item.value is None
    assert components(np.ones((30, 1)), items(30)).language_share.value is None
    assert components(np.ones((30, 2)), items(30)).language_share.value is None  # nothing varies


@pytest.mark.parametrize(
    ("shift", "width", "equivalent"), [(0.0, 0.02, True), (0.2, 0.02, False), (0.0, 2.0, False), (0.049, 0.1, False)]
)
def test_a_level_is_equivalent_where_its_interval_lies_within_the_margin(
    shift: float, width: float, equivalent: bool
) -> None:
    base = RANDOM.normal(size=60)
    wobble = np.resize([-width, width], 60)
    found = level_gap(base + shift + wobble, base, items(60, 400), margin=0.05)
    assert found.equivalent is equivalent
    assert found.difference.value == pytest.approx(shift)


def test_a_ninety_percent_interval_is_narrower() -> None:
    values = RANDOM.normal(size=(50, 1))
    (wide,), (narrow,) = items(50, 2000).means(values), items(50, 2000).means(values, 0.9)
    assert wide.low < narrow.low < narrow.high < wide.high  # type: ignore[operator]


def test_clusters_are_drawn_whole() -> None:
    """Twenty games of five equal items are twenty observations, not a hundred."""
    each = RANDOM.normal(size=20)
    whole = Clusters.of([f"game-{i // 5}" for i in range(100)], 1000).means(np.repeat(each, 5)[:, None])[0]
    alone = items(20, 1000).means(each[:, None])[0]
    assert (whole.value, whole.low, whole.high, whole.n) == pytest.approx((alone.value, alone.low, alone.high, 20))


def test_the_slope_on_log_parameters_is_recovered() -> None:
    sizes = [1_000, 10_000, 100_000]
    own = RANDOM.normal(0, 0.2, (40, 1))
    slopes = np.column_stack([0.3 * np.log(size) + own[:, 0] for size in reversed(sizes)])
    found = scaling(list(reversed(sizes)), slopes, items(40))
    assert found.sizes == tuple(sizes)
    assert found.slope.value == pytest.approx(0.3)
    assert found.steerability == tuple(sorted(found.steerability))


@pytest.mark.parametrize("sizes", [[1_000], [1_000, 2_000], [1_000, 2_000, 2_000]])
def test_two_sizes_are_not_enough(sizes: list[int]) -> None:
    found = scaling(sizes, np.ones((40, len(sizes))), items(40))
    assert (found.slope.value, found.slope.why) == (None, TOO_FEW_MODELS)


# ------------------------------------------------------------------------------------------------ edges


def test_models_without_a_common_item_have_no_slope() -> None:
    found = scaling([1_000, 2_000, 3_000], np.zeros((0, 3)), items(0))
    assert (found.slope.value, found.slope.why, found.steerability) == (None, NO_COMMON, ())


def test_constant_answers_have_no_correlation_and_no_kappa() -> None:
    flat, other = np.ones(20), RANDOM.normal(size=20)
    assert spearman(flat, other, items(20)).value is None
    assert cohen_kappa(flat, flat, items(20)).value is None
    assert krippendorff_alpha(np.ones((20, 3)), "interval", items(20)).value is None


def test_under_ten_clusters_there_is_no_interval() -> None:
    found = spearman(RANDOM.normal(size=9), RANDOM.normal(size=9), items(9))
    assert found.value is not None
    assert found.low is None
    assert found.why


def test_a_number_that_most_resamples_lack_has_no_interval() -> None:
    one_differs = column([1.0] * 29 + [2.0])
    found = spearman(one_differs, one_differs, items(30, 400))
    assert found.value == pytest.approx(1.0)
    assert found.low is None
    assert "resamples" in found.why
