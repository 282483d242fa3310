"""Row 17: hostile names become safe file names and come out escaped in every output."""

from __future__ import annotations

import csv
import io

import pytest

from lm_eval_steer.names import slug
from lm_eval_steer.report.dose import DoseCurve, to_csv, to_markdown

NAMES = [
    "a|b",
    "<script>x</script>",
    "=cmd|' /C calc'!A0",
    "\x1b[31mred\x1b[0m",
    "`code` **bold** [l](http://x)",
    "a\nb",
    "../../x",
]


def curve(name: str) -> DoseCurve:
    return DoseCurve(name, None, 3, None, {-1.0: [0.0, 1.0], 1.0: [1.0, 2.0]})


@pytest.mark.parametrize("name", NAMES)
def test_markdown_keeps_its_shape(name: str) -> None:
    lines = to_markdown([curve(name), curve("plain")]).splitlines()
    assert len(lines) == 4
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "\x1b" not in "".join(lines)
    assert "<script>" not in "".join(lines)


@pytest.mark.parametrize("name", NAMES)
def test_csv_holds_no_formula_and_no_control_character(name: str) -> None:
    rows = list(csv.reader(io.StringIO(to_csv([curve(name)]))))
    assert {len(row) for row in rows} == {7}
    assert rows[1][0][0] not in "=+@"
    assert "\x1b" not in rows[1][0]


@pytest.mark.parametrize("name", [*NAMES, "x" * 300, "..", "con", ""])
def test_file_names(name: str) -> None:
    assert "/" not in slug(name)
    assert slug(name) not in ("", ".", "..")
    assert len(slug(name)) <= 80
