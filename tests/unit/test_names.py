"""Names made harmless."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lm_eval_steer.names import csv_cell, html_text, markdown_cell, printable, slug

HOSTILE = [
    "../../etc/passwd",
    "a/b",
    "..",
    "x" * 300,
    "",
    "con",
    "=1+1",
    "<b>",
    "a\x1b[31mred",
    "a|b",
    "[x](y)",
    "\u202eabc",
]


@given(st.text(max_size=400))
def test_a_slug_is_a_plain_file_name(name: str) -> None:
    made = slug(name)
    assert made
    assert len(made) <= 80
    assert all(c.isascii() and (c.isalnum() or c in "._-") for c in made)
    assert made not in (".", "..")
    assert not made.startswith(".")


@given(st.text(max_size=60), st.text(max_size=60))
def test_two_names_never_share_a_slug(one: str, two: str) -> None:
    assert (slug(one) == slug(two)) == (one == two)


def test_a_good_name_stays() -> None:
    assert slug("smollm2-positivity_v1.2") == "smollm2-positivity_v1.2"


def test_hostile_names_come_out_harmless() -> None:
    for name in HOSTILE:
        assert "\x1b" not in printable(name)
        assert "<b>" not in html_text(name)
        assert "|" not in markdown_cell(name).replace("\\|", "")
        assert csv_cell(name)[:1] not in ("=", "+", "@")


def test_numbers_stay_numbers_in_csv() -> None:
    assert csv_cell(-1.5) == "-1.5"
    assert csv_cell("-x") == "'-x"
