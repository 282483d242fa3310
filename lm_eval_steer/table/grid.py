"""Grid: a small table of texts with a title and notes, written for terminals, markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lm_eval_steer.names import markdown_cell, printable
from lm_eval_steer.table.latex import latex_text

_GAP = "   "


@dataclass(frozen=True)
class Grid:
    """One table of texts, nothing escaped.

    Attributes:
        title: what it is; "" for a part that holds notes only.
        header: one text a column.
        rows: one text a cell.
        notes: what has to be known to read it, a line each.
    """

    title: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Some grids under one heading.

    Attributes:
        title: the heading.
        notes: what holds for all of them.
        grids: the tables.
        id: a file name for it, unique.
    """

    title: str
    notes: tuple[str, ...]
    grids: tuple[Grid, ...]
    id: str = ""


def grids_to_text(parts: Sequence[Part]) -> str:
    """Return parts as plain text."""
    return "\n".join(_text_part(part) for part in parts)


def grids_to_markdown(parts: Sequence[Part]) -> str:
    """Return parts as markdown, a heading each."""
    return "\n".join(_markdown_part(part) for part in parts)


def grids_to_latex(parts: Sequence[Part]) -> str:
    """Return parts as LaTeX, a ``table`` environment a grid."""
    return "\n".join(_latex_part(part) for part in parts)


def _text_part(part: Part) -> str:
    blocks = ["\n".join(map(printable, (part.title, *part.notes))) + "\n"]
    for grid in part.grids:
        lines = [printable(grid.title), "", *_aligned([grid.header, *grid.rows]), ""] if grid.rows else []
        lines += map(printable, grid.notes)
        blocks.append("\n".join(lines).rstrip("\n") + "\n")
    return "\n".join(blocks)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    from rich.cells import cell_len

    clean = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*clean, strict=True)]
    lines = [
        _GAP.join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in clean
    ]
    return [lines[0], "─" * (sum(widths) + len(_GAP) * (len(widths) - 1)), *lines[1:]]


def _markdown_part(part: Part) -> str:
    blocks = [f"## {markdown_cell(part.title)}\n"]
    blocks += [f"{markdown_cell(note)}\n" for note in part.notes]
    for grid in part.grids:
        if grid.rows:
            lines = ["| " + " | ".join(map(markdown_cell, row)) + " |" for row in (grid.header, *grid.rows)]
            lines.insert(1, "|" + "---|" * len(grid.header))
            blocks.append(f"### {markdown_cell(grid.title)}\n\n" + "\n".join(lines) + "\n")
        blocks += ["".join(f"- {markdown_cell(note)}\n" for note in grid.notes)] if grid.notes else []
    return "\n".join(blocks)


def _latex_part(part: Part) -> str:
    blocks = [rf"\section*{{{latex_text(part.title)}}}" + "\n"]
    blocks += [f"\\noindent {latex_text(note)}\n" for note in part.notes]
    for grid in part.grids:
        if grid.rows:
            body = [" & ".join(map(latex_text, row)) + r" \\" for row in (grid.header, *grid.rows)]
            lines = [r"\begin{table}", rf"\caption{{{latex_text(grid.title)}.}}"]
            lines += [rf"\begin{{tabular}}{{{'l' * len(grid.header)}}}", r"\toprule", body[0], r"\midrule", *body[1:]]
            blocks.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n")
        blocks += [f"\\noindent {latex_text(note)}\n" for note in grid.notes]
    return "\n".join(blocks)
