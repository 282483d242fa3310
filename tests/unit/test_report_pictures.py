"""Pictures: scales and ticks, marks as SVG and PNG, colours that can be read in light and in dark."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import unicodedata
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_steer.report.heat_map import STRONGEST, Shade, grid_marks
from lm_eval_steer.report.labels import dose, number, short
from lm_eval_steer.report.page import numeric
from lm_eval_steer.report.palette import COLOURS, SERIES
from lm_eval_steer.report.panel import Panel, Span, legend, span
from lm_eval_steer.report.scene import Area, Box, Dot, Line, Mark, Scene, Shape, Text, fitted
from lm_eval_steer.report.strips import Strip
from lm_eval_steer.stats.curve import Estimate
from tests.curve_tools import curve

SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "diamond")
SVG = "{http://www.w3.org/2000/svg}"
values = st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6)
SCENE = Scene(
    120,
    60,
    (
        Area(((0, 0), (60, 0), (60, 60)), "band", 0.5),
        Line(((0, 30), (120, 30)), "rise", 2, dashed=True),
        Box(70, 10, 20, 20, "fall", 0.5, frame="ink"),
        *(
            Dot(20 * i + 10, 30, "third", 4, shape)
            for i, shape in enumerate(("circle", "square", "triangle", "diamond"))
        ),  # type: ignore[arg-type]
        Text(60, 50, "a<b & $x$", anchor="middle", bold=True),
        Text(10, 30, "up", upright=True),
    ),
)


@given(st.lists(values, min_size=1, max_size=5), st.integers(3, 9))
def test_a_span_holds_its_values_and_zero_and_few_round_ticks(data: list[float], most: int) -> None:
    scale = span(data, 100.0, 0.0)
    assert all(0 <= scale(value) <= 100 for value in [0.0, *data])
    ticks = scale.ticks(most)
    assert 2 <= len(ticks) <= most
    assert any(math.isclose(tick, 0, abs_tol=1e-9 * (scale.high - scale.low)) for tick in ticks)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps))


@pytest.mark.parametrize(
    ("high", "texts"),
    [
        (10.0, ["0", "2.5", "5.0", "7.5", "10.0"]),
        (1.0, ["0", "0.25", "0.50", "0.75", "1.00"]),
        (100.0, ["0", "25", "50"]),
    ],
)
def test_ticks_are_written_with_the_digits_of_their_step(high: float, texts: list[str]) -> None:
    axis = Panel(Span(0.0, high, 0, 100), Span(0.0, 1.0, 100, 0)).x_axis("x", 5)
    assert [mark.text for mark in axis if isinstance(mark, Text)][: len(texts)] == texts


def test_no_spread_still_gives_a_scale() -> None:
    assert span([], 0, 10).ticks(5)
    assert span([0.0, 0.0], 0, 10)(0.0) == 5


@given(st.text(max_size=400), st.integers(20, 400))
def test_a_fitted_name_is_one_short_line(name: str, width: int) -> None:
    line = fitted(name, width)
    assert len(line) <= max(4, width / (0.56 * 11.5))
    assert not [c for c in line if unicodedata.category(c)[0] == "C"]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(None, 3, "n/a"), (-0.0001, 3, "0.000"), (0.5, 1, "+0.5"), (-0.5, 1, "−0.5"), (0.0, 2, "0.00")],
)
def test_numbers_as_text(value: float | None, digits: int, text: str) -> None:
    assert number(value, digits, sign=True) == text


def test_other_texts() -> None:
    assert [dose(-0.5), dose(0.0), dose(2.0)] == ["−0.5", "0", "+2"]
    assert short("abcdefghij", 5) == "ab…ij"
    assert numeric([("a", "1", "n/a", "+0.1 [-0.2, +0.3]"), ("b", "x", "2 %", "0")]) == [False, False, True, True]


def test_svg_of_its_own_is_well_formed_and_says_what_it_is() -> None:
    root = ET.fromstring(SCENE.to_svg("p", "a <title>", "what it shows", alone=True))
    assert root.find(f"{SVG}title").text == "a <title>"  # type: ignore[union-attr]
    assert root.find(f"{SVG}desc").text == "what it shows"  # type: ignore[union-attr]
    assert [each.text for each in root.iter(f"{SVG}text")] == ["a<b & $x$", "up"]
    kinds = [each.tag.removeprefix(SVG) for each in root if each.get("class")]
    assert kinds == ["polygon", "polyline", "rect", "circle", "polygon", "polygon", "polygon", "text", "text"]


def test_png_shows_the_marks_and_never_differs() -> None:
    from PIL import Image

    from lm_eval_steer.report.png import to_png

    data = to_png(SCENE)
    assert data == to_png(SCENE)
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert picture.shape == (120, 240, 3)  # two dots a pixel
    assert tuple(picture[2, 200]) == (255, 255, 255)
    assert picture[10, 80].max() < 250  # in the area
    red, green, blue = picture[36, 150]
    assert red > green > blue  # in the orange box


def test_a_grid_shows_sign_by_colour_and_certainty_by_weight() -> None:
    cells = {(0, 0): Shade.of(Estimate(0.2, 0.1, 0.3)), (0, 1): Shade.of(Estimate(-0.1, -0.3, 0.1))}
    marks = grid_marks({**cells, (1, 0): Shade.of(Estimate(None))}, ["a", "b"], ["x", "y"], 0.2, (0, 0), (10, 10))
    boxes = [mark for mark in marks if isinstance(mark, Box)]
    assert [(box.role, box.alpha) for box in boxes] == [("rise", STRONGEST), ("fall", STRONGEST / 2)]
    assert [(m.text, m.bold) for m in marks if isinstance(m, Text) and m.anchor == "middle"] == [
        *[("+0.20", True), ("−0.10", False), ("×", False)]
    ]


def test_a_legend_breaks_into_lines() -> None:
    entries: list[tuple[list[Mark], str]] = [([Dot(0, 0, "ink")], "a long explanation")] * 4
    marks, height = legend(entries, 0, 0, 350)
    assert len({mark.y for mark in marks if isinstance(mark, Text)}) == 2
    assert height > 40


def test_strips_hold_the_items_that_the_multiplier_was_not_chosen_on() -> None:
    own = curve()
    strip = Strip.of("v", own)
    assert strip is not None
    assert sorted(item for _, item in strip.effects) == list(own.items[1::2])
    assert strip.values == sorted(strip.values)
    assert Strip.of("v", dataclasses.replace(own, selection=None)) is None


# ------------------------------------------------------------------------------------------------ colours


def luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """WCAG 2's contrast ratio."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def rgb(role: str, theme: int) -> tuple[float, ...]:
    return tuple(int(COLOURS[role][theme][i : i + 2], 16) / 255 for i in (1, 3, 5))


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("role", ["ink", "muted", *SERIES])
def test_text_can_be_read_on_paper_and_panels(role: str, theme: int) -> None:
    assert contrast(rgb(role, theme), rgb("paper", theme)) >= 4.5
    assert contrast(rgb(role, theme), rgb("panel", theme)) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("role", ["rise", "fall"])
def test_text_can_be_read_in_the_strongest_cell_of_a_heat_map(role: str, theme: int) -> None:
    pairs = zip(rgb(role, theme), rgb("paper", theme), strict=True)
    assert (
        contrast(rgb("ink", theme), tuple(STRONGEST * over + (1 - STRONGEST) * under for over, under in pairs)) >= 4.5
    )
