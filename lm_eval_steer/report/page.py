"""Page: a report as one HTML file: no script, nothing from anywhere else, the same bytes for the same ledgers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from lm_eval_steer.names import printable
from lm_eval_steer.report.glossary import GLOSSARY
from lm_eval_steer.report.palette import css_variables
from lm_eval_steer.report.picture import Numbers, Picture
from lm_eval_steer.report.provenance import Provenance
from lm_eval_steer.report.scene import role_styles
from lm_eval_steer.report.verdict import Verdict

_LONG = 40  # characters of a cell that may be broken into lines
_GAPS = {"n/a", "-", "", "no null", "not run"}
_NUMBER = r"[-+−]?\d[\d.]*(e[-+]\d+)?( ?%)?"
_FIGURES = re.compile(rf"{_NUMBER}( \[{_NUMBER}, {_NUMBER}\]| → {_NUMBER}| of {_NUMBER})?( \(.*\))?=?")
_HYPHEN = re.compile(r"(?<![\w.])-(?=\d)")


@dataclass(frozen=True)
class Section:
    """One kind of picture.

    Attributes:
        id: unique on the page.
        title: its head.
        pictures: what it holds.
        notes: what it cannot hold, and why.
        tables: (title, table, notes), shown below the pictures.
    """

    id: str
    title: str
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...]
    tables: tuple[tuple[str, Numbers, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Ranking:
    """One table of rows that may be compared.

    Attributes:
        title: what they have in common.
        header: (head, what it is), one a column.
        rows: (kind, cells).
    """

    title: str
    header: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Group:
    """One part of a report: all of it, or the curves that share a value of ``--group-by``.

    Attributes:
        id: unique on the page.
        title: what it is of; "" where there is one part only.
        verdicts: what can be said.
        rankings: the comparison table.
        notes: why rankings were set apart.
        sections: the pictures.
    """

    id: str
    title: str
    verdicts: tuple[Verdict, ...]
    rankings: tuple[Ranking, ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Report:
    """All that a report holds.

    Attributes:
        title: one line.
        facts: (what, how many), the report at a glance.
        warnings: what is damaged or missing.
        groups: its parts.
        provenance: what the numbers were made of.
        across: families of tasks in several languages.
        inspected: what is inside the vectors, a section a file of ``lm-eval-steer inspect``.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    groups: tuple[Group, ...]
    provenance: Provenance
    across: tuple[Section, ...] = ()
    inspected: tuple[Section, ...] = ()

    @property
    def pictures(self) -> list[Picture]:
        """Every picture, in the order of the page."""
        sections = [*(section for group in self.groups for section in group.sections), *self.across, *self.inspected]
        return [picture for section in sections for picture in section.pictures]


def to_html(report: Report) -> str:
    """Return the report as an HTML file's text. Every name in it is text: no markup, no control characters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lm_eval_steer.report"),
        autoescape=True,
        finalize=_harmless,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        report=report,
        glossary=GLOSSARY,
        light=Markup(css_variables(dark=False)),
        dark=Markup(css_variables(dark=True)),
        roles=Markup(role_styles()),
        svg=lambda picture: Markup(picture.inline()),
        numeric=numeric,
        minus=_minus,
        long=lambda text: len(text) > _LONG,
    )


def _harmless(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def numeric(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Return which columns hold numbers, intervals and the like, and nothing else but gaps."""
    columns = [[text for text in column if text not in _GAPS] for column in zip(*rows, strict=True)]
    return [bool(column) and all(map(_FIGURES.fullmatch, column)) for column in columns]


def _minus(text: str) -> str:
    """Return a cell with typographic minus signs, if it is a number."""
    return _HYPHEN.sub("\N{MINUS SIGN}", text) if _FIGURES.fullmatch(text) else text
