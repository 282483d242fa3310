"""Columns: a cell's samples as arrays, a task at a time, without a Python object a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lm_eval_steer.errors import InputError
from lm_eval_steer.files import sha256_bytes
from lm_eval_steer.stats.answers import BRIER, CONFIDENCE, CORRECT, MARKS, row_scores
from lm_eval_steer.stats.arrays import Floats, Ints

if TYPE_CHECKING:
    from lm_eval_steer.sweep.ledger import Ledger
    from lm_eval_steer.sweep.records import CellRecord

_NEEDED = ("task", "item_id")
_HASHES = ("doc_hash", "prompt_hash")
_ANSWERS, _TARGET = "responses", "target"
_KEYS = ("cluster", "item_id", "order")
#: Columns that say which row it is or what is right, not how it scored.
NO_METRICS = frozenset({*_KEYS, "task", "doc_id", "filter", "n_orders", _TARGET, BRIER, CONFIDENCE, CORRECT})


@dataclass(frozen=True)
class Rows:
    """One task's rows of one cell, sorted by cluster, item and order.

    Attributes:
        keys: a pyarrow table of ``cluster``, ``item_id`` and ``order``, both names as text.
        values: every numeric column, ``[rows]``; NaN where a row has none. Where the task says which choice is right,
            those of ``answers.row_scores`` too.
    """

    keys: Any
    values: Mapping[str, Floats]

    def names(self, key: str) -> list[str]:
        """Return the clusters' or the items' names, one a row."""
        names: list[str] = self.keys[key].to_pylist()
        return names

    def order(self) -> Ints:
        """Return the option order of each row, ``[rows]``."""
        return np.asarray(self.keys["order"].to_numpy(), dtype=np.int64)


def read_rows(ledger: Ledger, record: CellRecord) -> dict[str, Rows]:
    """Return a cell's rows by task.

    Of a task with several filters the first by name counts.

    Raises:
        InputError: the samples are missing, not those that the record names, or lack a column that says which item a
            row is.
    """
    import pyarrow as pa  # type: ignore[import-untyped]  # half a second; stored statistics do without
    import pyarrow.compute as pc  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    path = ledger.cells.path(record.cell_id) / "samples.parquet"
    try:
        data = path.read_bytes()
        if sha256_bytes(data) != record.samples.get("sha256"):
            raise InputError(f"{path}: its sha256 is not the one that the record names")
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        unread = {*_HASHES, *(() if _TARGET in names else (_ANSWERS,))}
        table = file.read(columns=[name for name in names if name not in unread])
    except (OSError, InputError, pa.ArrowException):
        ledger.read_samples(record.cell_id)  # says what is wrong and moves the cell aside
        raise
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing and len(table):
        raise InputError(f"{path} has no column {' and '.join(missing)}; write the cell anew with lm-eval-steer sweep.")
    if not len(table):
        return {}
    return {
        task: _rows(table.filter(pc.equal(table["task"], task)), path) for task in pc.unique(table["task"]).to_pylist()
    }


def _rows(table: Any, path: object) -> Rows:
    import pyarrow as pa
    import pyarrow.compute as pc

    names = table.column_names
    if "filter" in names:
        table = table.filter(pc.equal(table["filter"], pc.min(table["filter"])))
    items = table["item_id"].cast(pa.string())
    clusters = pc.coalesce(table["cluster"].cast(pa.string()), items) if "cluster" in names else items
    order = (
        pc.fill_null(table["order"], 0).cast(pa.int64()) if "order" in names else pa.array(np.zeros(len(table), int))
    )
    keys = pa.table({"cluster": clusters, "item_id": items, "order": order})
    place = pc.sort_indices(keys, sort_keys=[(key, "ascending") for key in _KEYS])
    keys = keys.take(place).combine_chunks()
    if len(keys.group_by(list(_KEYS)).aggregate([])) != len(keys):
        raise InputError(f"{path}: an item occurs twice in one option order; samples of two runs were mixed.")
    at = place.to_numpy()
    values = {field.name: _numbers(table[field.name])[at] for field in table.schema if _is_number(field.type)}
    return Rows(keys, {**values, **_answers(table, values, at)})


def _answers(table: Any, values: Mapping[str, Floats], at: Ints) -> dict[str, Floats]:
    """Return what the choices' log-probabilities say, where the task knows which of them is right."""
    mark = next((name for name in MARKS if name in values and not np.isnan(values[name]).any()), None)
    if mark is None or not {_TARGET, _ANSWERS} <= set(table.column_names) or np.isnan(values[_TARGET]).any():
        return {}
    return row_scores(table[_ANSWERS].take(at).to_pylist(), values[_TARGET], values[mark]) or {}


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _numbers(column: Any) -> Floats:
    import pyarrow as pa

    numbers = (
        column.cast(pa.float64()) if not pa.types.is_boolean(column.type) else column.cast(pa.int8()).cast("double")
    )
    return np.asarray(numbers.to_numpy(), dtype=np.float64)
