"""Axes of layers and multipliers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_steer.axes import parse_features, parse_layers, parse_multipliers
from lm_eval_steer.errors import ConfigError, LayerError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", (0, 1, 2, 3)),
        ("2", (2,)),
        ("1-3", (1, 2, 3)),
        ("0, 2-3", (0, 2, 3)),
        ("3,1", (1, 3)),
        ("3;0", (0, 3)),
    ],
)
def test_layers(text: str, expected: tuple[int, ...]) -> None:
    assert parse_layers(text, range(4)) == expected


MISSPELT = ["", "-1", "1-", "a", "1,1", "1-2,2", "1.0", "3-1", "3,2-1", "²", "01", "1,,2", "0-99999999", "9" * 5000]


@pytest.mark.parametrize("text", ["4", "2-9", *MISSPELT])
def test_layers_refused(text: str) -> None:
    with pytest.raises(LayerError):
        parse_layers(text, range(4))


@pytest.mark.parametrize("text", ["all", *MISSPELT])
def test_layers_refused_before_they_are_known(text: str) -> None:
    with pytest.raises(LayerError, match="--layer "):
        parse_layers(text, option="--layer")


@given(st.sets(st.integers(0, 99_999), min_size=1, max_size=20))
def test_layers_before_they_are_known(layers: set[int]) -> None:
    assert parse_layers(",".join(map(str, layers))) == tuple(sorted(layers))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-1,0,1", (-1, 0, 1)),
        ("-2:2:0.5", (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2)),
        ("0.3", (0.3,)),
        ("0:0.3:0.1", (0, 0.1, 0.2, 0.3)),
    ],
)
def test_multipliers(text: str, expected: tuple[float, ...]) -> None:
    assert parse_multipliers(text) == expected


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e400", "1:2", "2:1:1", "1:2:0", "1,1", "a", "-1:1:0.3", "0:1:3"])
def test_multipliers_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_multipliers(text)


def test_features_of_a_large_sae() -> None:
    assert parse_features("130000, 7") == (130000, 7)


@pytest.mark.parametrize("text", ["", "1,1", "01,1", "-1", "1-3", "1;2", "²", "a"])
def test_misspelt_features(text: str) -> None:
    with pytest.raises(ConfigError, match="--features"):
        parse_features(text)
