"""Cross-lingual: transfer matrices and steerability by language as pictures, with the tables of ``compare`` below."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_steer.names import slug
from lm_eval_steer.report.heat_map import Shade, grid_marks
from lm_eval_steer.report.labels import number, short
from lm_eval_steer.report.page import Section
from lm_eval_steer.report.panel import SMALL, WIDTH
from lm_eval_steer.report.picture import Numbers, Picture
from lm_eval_steer.report.scene import Area, Mark, Scene, Text, fitted, text_width
from lm_eval_steer.stats.crosslingual.alignment import THRESHOLD, UNKNOWN
from lm_eval_steer.stats.crosslingual.result import CrossLingual, Family, Transfer, TransferCell
from lm_eval_steer.table.cross_lingual import family_id, parts, transfer_text
from lm_eval_steer.table.grid import Part

_CELL, _TOP, _LONGEST, _MARK = 30, 24, 260, 10  # pixels
_CAPTION = (
    "T = S of the vector made in the row's language, tested in the column's, divided by S of the column's own vector. "
    "1 is as good as its own. Blue as its own, orange against it. Bold: the interval excludes 0, and T is outside the "
    "band of 95 % of the random directions of the row's norm. Framed: the own vector. n/a: the own vector's interval "
    "includes 0, or it does not beat random directions, so there is nothing to divide by."
)
_UNKNOWN = (
    f" A dark corner: the {UNKNOWN} (it finds under {THRESHOLD:g} of the items in the other one, at its best layer), "
    "so that no transfer is no finding."
)


def cross_lingual_sections(found: CrossLingual) -> tuple[Section, ...]:
    """Return a section for each family on each model; none where no family has two languages."""
    told = parts(found)
    sections = [_section(part, _pictures(family)) for family, part in zip(found.families, told, strict=False)]
    return (*sections, *(_section(part, ()) for part in told[len(found.families) :]))


def _section(part: Part, pictures: Sequence[Picture]) -> Section:
    tables = tuple((grid.title, Numbers(grid.header, grid.rows), grid.notes) for grid in part.grids)
    return Section(f"languages-{part.id}", part.title, tuple(pictures), part.notes, tables)


def _pictures(family: Family) -> tuple[Picture, ...]:
    made = []
    for place in family.places:
        here = place.layers[place.shown]
        labels = ", ".join(f"{name} {value}" for name, value in place.labels.items() if value is not None)
        for each in here.transfers:
            key = slug(f"{family_id(family)}-{labels}-{each.concept}")
            title = f"Transfer of {short(each.concept, 40)} between languages, layer {here.layer} ({labels})"
            made.append(transfer_picture(each, f"languages-{key}", title))
    return tuple(made)


def transfer_picture(found: Transfer, name: str, title: str) -> Picture:
    """Return a transfer matrix as a picture.

    Args:
        found: the matrix.
        name: beginning of its ids and files.
        title: its head.
    """
    rows = [f"{source} · {short(vector, 30)}" for source, vector in zip(found.sources, found.vectors, strict=True)]
    unknown = any(cell.known is False for cell in found.cells.values())
    body = tuple(
        (row, *(transfer_text(found.cells[at, language]) for language in found.languages))
        for at, row in enumerate(rows)
    )
    return Picture(
        name=name,
        title=title,
        caption=_CAPTION + (_UNKNOWN if unknown else ""),
        alt=f"{len(rows)} vectors by {len(found.languages)} languages; the table below holds every number.",
        scene=_scene(found, rows),
        numbers=Numbers(("made in", *(f"tested in {language}" for language in found.languages)), body),
    )


def _scene(found: Transfer, rows: Sequence[str]) -> Scene:
    names = [fitted(row, _LONGEST) for row in rows]
    left = 16 + max(map(text_width, names))
    wide = min(110.0, (WIDTH - left) / len(found.languages))
    cells = {(at, found.languages.index(language)): cell for (at, language), cell in found.cells.items()}
    shades = {key: _shade(cell) for key, cell in cells.items()}
    strongest = max((abs(shade.value) for shade in shades.values() if shade.value is not None), default=0.0)
    marks: list[Mark] = grid_marks(shades, names, found.languages, strongest, (left, _TOP), (wide, _CELL))
    for column, language in enumerate(found.languages):
        head = fitted(language, wide - 6, SMALL)
        marks.append(Text(left + (column + 0.5) * wide, 15, head, SMALL, "muted", "middle"))
    for (at, column), cell in cells.items():
        if cell.known is False:
            x, y = left + column * wide, float(_TOP + at * _CELL)
            corner = ((x + wide - 1 - _MARK, y + 1.0), (x + wide - 1, y + 1.0), (x + wide - 1, y + 1 + _MARK))
            marks.append(Area(corner, "muted"))
    return Scene(left + wide * len(found.languages), _TOP + 6 + _CELL * len(rows), tuple(marks))


def _shade(cell: TransferCell) -> Shade:
    value = cell.ratio.value
    return Shade(
        value,
        number(value, 2, sign=True),
        bool(cell.beyond_null) and cell.ratio.excludes_zero and not cell.own,
        cell.own,
    )
