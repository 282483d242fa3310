"""CSV: one line a row with every field in full precision, all rankings in one file; no cell is a formula."""

from __future__ import annotations

import csv
import io

from lm_eval_steer.names import csv_cell
from lm_eval_steer.table.digits import NA
from lm_eval_steer.table.fields import names_of, value_of
from lm_eval_steer.table.make import Table


def to_csv(table: Table) -> str:
    """Return the table as CSV; ``ranking`` counts from 1, rows of different rankings are not comparable."""
    names = names_of(row for ranking in table.rankings for row in ranking.rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["ranking", "task", "group", "apart", *names])
    for number, ranking in enumerate(table.rankings, 1):
        group = ", ".join(f"{name}={value}" for name, value in ranking.group.items())
        for row in ranking.rows:
            cells = [number, ranking.task, group, "; ".join(ranking.apart)]
            cells += [value_of(row, name) for name in names]
            writer.writerow([NA if cell is None else csv_cell(cell) for cell in cells])
    return out.getvalue()
