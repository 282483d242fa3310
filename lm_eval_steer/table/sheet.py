"""Sheet: a ranking as text for people; what all rows share and what none has stands above the table, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lm_eval_steer.table.columns import COLUMNS, Column
from lm_eval_steer.table.digits import NA, short
from lm_eval_steer.table.make import Table
from lm_eval_steer.table.ranking import Ranking
from lm_eval_steer.table.row import Row

LEGEND = (
    "rank: by E. Rows that share a rank (=) cannot be told apart from the first of them: the 95 % interval of their "
    "paired difference holds 0.",
    "E: on the items that λ* and the layer were not chosen on; E sel.: on those that they were chosen on. "
    "random: mean and 95 % band over the K directions.",
    "p_null: only a row that says “beats random” does so, under Holm over all ranked rows of this table.",
)

_WITHOUT_VECTOR = ("unsteered", "random", "prompt")


@dataclass(frozen=True)
class Sheet:
    """One ranking as text, nothing escaped.

    Attributes:
        title: the task, and the group if there is one.
        notes: what sets it apart, what all rows share, what none has.
        columns: those that are left.
        body: a cell for each of them, row by row.
    """

    title: str
    notes: tuple[str, ...]
    columns: tuple[Column, ...]
    body: tuple[tuple[str, ...], ...]


def sheets(table: Table) -> list[Sheet]:
    """Return a table's rankings as text."""
    return [_sheet(ranking) for ranking in table.rankings]


def _sheet(ranking: Ranking) -> Sheet:
    title = short(ranking.task)
    if ranking.group:
        named = ", ".join(
            f"{short(name)}={'none' if value is None else short(str(value))}" for name, value in ranking.group.items()
        )
        title = f"{title} ({named})"
    shared, missing, columns = [], [], []
    for column in COLUMNS.values():
        if column.weight and all(column.text(row) == NA for row in ranking.rows):
            missing += [] if column.optional else [column.title]
        elif column.fold and (value := _shared(column, ranking.rows)) is not None:
            shared.append(f"{column.title}: {value}")
        else:
            columns.append(column)
    notes = (
        [f"Set apart, not comparable with the first ranking of this task: {'; '.join(ranking.apart)}."]
        if ranking.apart
        else []
    )
    notes += [f"In all rows: {'; '.join(shared)}."] if shared else []
    notes += [f"In no row: {', '.join(missing)}."] if missing else []
    body = tuple(tuple(column.text(row) for column in columns) for row in ranking.rows)
    return Sheet(title, tuple(notes), tuple(columns), body)


def _shared(column: Column, rows: Sequence[Row]) -> str | None:
    """Return the one text of a column; rows that show no vector may have none."""
    of_vectors = {column.text(row) for row in rows if row.kind not in _WITHOUT_VECTOR}
    of_others = {column.text(row) for row in rows if row.kind in _WITHOUT_VECTOR}
    if len(of_vectors) != 1 or not of_others <= of_vectors | {NA}:
        return None
    return of_vectors.pop()
