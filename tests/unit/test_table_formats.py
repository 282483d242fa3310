"""Formats of the comparison table, read back by real parsers where there are some; and numbers as text."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.stats.curve import Curve, Estimate
from lm_eval_steer.table.columns import COLUMNS
from lm_eval_steer.table.digits import interval, number, percent, plain, short
from lm_eval_steer.table.fields import FIELDS
from lm_eval_steer.table.make import make_table
from lm_eval_steer.table.render import FORMATS, render
from lm_eval_steer.table.terminal import to_terminal
from tests.curve_tools import curve, with_nulls

GOLDEN = Path(__file__).parents[1] / "golden"


def small() -> list[Curve]:
    """Two vectors that can be told apart, one of them with nulls, a control, and a row that stands apart."""
    joy = [each for n, e in ((10, 0.2), (12, 0.15)) for each in with_nulls(curve("joy", n, effects=e), 40, scale=0.01)]
    controls = [curve("joy-letter", 10, effects=0.03, control="letter")]
    return [*joy, curve("calm", effects=0.1), *controls, curve("old", metric="acc")]


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Every table of a markdown text: rows of cells, as the text that a reader sees."""
    tables: list[list[list[str]]] = []
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for before, token in itertools.pairwise(tokens):
        if before.type == "table_open":
            tables.append([])
        if before.type == "tr_open":
            tables[-1].append([])
        if before.type in ("th_open", "td_open"):
            assert {child.type for child in token.children or []} <= {"text", "text_special"}
            tables[-1][-1].append("".join(child.content for child in token.children or []))
    return tables


# ------------------------------------------------------------------------------------------------ whole tables


@pytest.mark.parametrize(("form", "name"), [("md", "compare.md"), ("table", "compare.txt"), ("tex", "compare.tex")])
def test_a_small_table_is_the_one_that_was_looked_at(form: str, name: str) -> None:
    assert render(make_table(small()), form) == (GOLDEN / name).read_text(encoding="utf-8")


def test_every_format_ends_with_a_newline_and_another_is_refused() -> None:
    table = make_table(small())
    assert all(render(table, form).endswith("\n") for form in FORMATS)
    with pytest.raises(ConfigError, match="Did you mean 'json'"):
        render(table, "jsn")


def test_markdown_tables_hold_what_the_sheets_say() -> None:
    first, apart = markdown_tables(render(make_table(small()), "md"))
    assert {len(row) for row in first} == {len(first[0])}
    assert first[0][:3] == ["rank", "vector", "method"]
    assert [row[0] for row in first[1:]] == ["1", "2", "null", "null", "null"]
    assert apart[1][0] == "1"
    assert set(first[0]) <= {column.title for column in COLUMNS.values()}


def test_csv_and_json_hold_the_same_rows_in_full_precision() -> None:
    table = make_table(small())
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    content = json.loads(render(table, "json"))
    rows = [row for ranking in content["rankings"] for row in ranking["rows"]]
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert list(lines[0])[4:] == [name for name, field in FIELDS.items() if not field.optional]
    for line, row in zip(lines, rows, strict=True):
        for name in ("E", "E_low", "S", "p_null", "mass", "anti_frac"):
            assert line[name] == ("n/a" if row[name] is None else repr(row[name]))
    assert [len(ranking["apart"]) for ranking in content["rankings"]] == [0, 1]
    assert len(rows[0]["selection_items"]) == 20


def test_columns_are_said_once_where_all_rows_share_them_or_none_has_them() -> None:
    text = render(make_table(small()), "table")
    assert "model: tiny float32" in text
    header = next(line for line in text.splitlines() if line.startswith("rank "))
    assert "language" not in header
    assert "model" not in header
    two = [curve("a"), dataclasses.replace(curve("b"), vector={"id": "b", "method": "pca"})]
    assert "method" in next(line for line in render(make_table(two), "table").splitlines() if line.startswith("rank "))


def test_no_date_and_no_timing_is_in_a_table() -> None:
    assert not {name for name in FIELDS if "date" in name or "time" in name or "second" in name}


@pytest.mark.parametrize("width", [60, 100, 140, 400])
def test_the_terminal_leaves_out_what_does_not_fit_and_names_it(width: int) -> None:
    text = to_terminal(make_table(small()), width)
    header = next(line for line in text.splitlines() if line.startswith("rank "))
    whole = next(line for line in render(make_table(small()), "table").splitlines() if line.startswith("rank "))
    assert ("No room for: " in text) == (header != whole)
    if width >= 100:
        assert max(len(line) for line in text.splitlines() if line.startswith(("rank ", "1 ", "null "))) <= width
        assert "p_null" in header
    for column in ("rank", "vector", "E [95 %]"):
        assert column in header


# ------------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.12345, 0.1011, 0.1499, 40, "percentile"), "+0.123 [+0.101, +0.150]"),
        (Estimate(-12.3456, -15.0, -9.0, 40, "percentile"), "-12.3 [-15.0, -9.0]"),
        (Estimate(0.00012, 0.00001, 0.00022, 40, "percentile"), "+0.00012 [+0.00001, +0.00022]"),
        (Estimate(0.5, 0.5, 0.5, 40, "percentile"), "+0.500 [+0.500, +0.500]"),
        (Estimate(0.5, n=4, why="under 10 items"), "+0.500"),
        (Estimate(None, why="no items"), "n/a"),
        (Estimate(math.nan, math.nan, math.nan), "n/a"),
    ],
)
def test_intervals_have_two_digits_of_their_half_width(estimate: Estimate, text: str) -> None:
    assert interval(estimate) == text


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_there_is_never_a_number(missing: Any) -> None:
    assert number(missing) == plain(missing) == percent(missing if missing is None else math.nan)[:3] == "n/a"
    made = dataclasses.replace(curve(), steerability=Estimate(missing), anti_frac=None)
    table = make_table([made])
    line = next(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert (line["S"], line["S_low"], line["anti_frac"]) == ("n/a", "n/a", "n/a")
    assert json.loads(render(table, "json"))["rankings"][0]["rows"][0]["S"] is None


def test_no_minus_before_nothing() -> None:
    assert number(-0.0001) == "0.000"
    assert number(-0.0001, sign=True) == "+0.000"
    assert plain(-0.0) == "0"


@given(st.text(max_size=400))
def test_short_names_are_short_and_differ(name: str) -> None:
    assert len(short(name)) <= 48
    assert short(name) != short(name + "x")
