"""JSON: a table for programs, with every field, what rows have in common, and which items λ* was chosen on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lm_eval_steer.table.fields import names_of, value_of
from lm_eval_steer.table.make import Table
from lm_eval_steer.table.ranking import Ranking
from lm_eval_steer.table.row import Row

SCHEMA_VERSION = 1


def to_json(table: Table) -> str:
    """Return the table as indented JSON in ASCII; what is not there is null."""
    names = names_of(row for ranking in table.rankings for row in ranking.rows)
    content = {
        "schema": SCHEMA_VERSION,
        "sort": table.sort,
        "per": table.per,
        "rankings": [_ranking(ranking, names) for ranking in table.rankings],
    }
    return json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def _ranking(ranking: Ranking, names: Sequence[str]) -> dict[str, Any]:
    return {
        "task": ranking.task,
        "group": dict(ranking.group),
        "identity": dict(ranking.identity),
        "apart": list(ranking.apart),
        "rows": [_row(row, names) for row in ranking.rows],
    }


def _row(row: Row, names: Sequence[str]) -> dict[str, Any]:
    fields = {name: value_of(row, name) for name in names}
    return {**fields, "flags": list(row.flags), "place": dict(row.place), "selection_items": list(row.selection_items)}
