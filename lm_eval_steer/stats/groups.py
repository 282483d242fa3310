"""Groups: the cells of a ledger that make one curve, with the unsteered cell that they are measured against."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval_steer.errors import InputError
from lm_eval_steer.files import canonical_json, content_id
from lm_eval_steer.sweep.records import UNSTEERED, CellRecord, Label

_VECTOR = ("vector", "control", "control_of")
_PROMPT = ("prompt_hash", "system_prompt")
_RESULTS = ("metrics", "headline", "higher_is_better")
_SIZE = "parameters"  # follows from the fingerprint; older records lack it


@dataclass(frozen=True)
class Group:
    """One vector at one place on one task.

    Attributes:
        task: name of the lm-eval task.
        labels: the cells' labels without ``multiplier``.
        base: the unsteered cell.
        cells: multiplier → steered cell, ascending.
        setting: key of everything but the labels that has to be equal for two cells to be compared.
    """

    task: str
    labels: Mapping[str, Label]
    base: CellRecord
    cells: Mapping[float, CellRecord]
    setting: str

    @property
    def panel(self) -> tuple[str, str]:
        """Key of the groups that share an unsteered cell and so all items."""
        return self.task, self.base.cell_id

    @property
    def place(self) -> str:
        """Key of the groups that differ in nothing but the vector."""
        return canonical_json([self.setting, {k: v for k, v in self.labels.items() if k not in _VECTOR}])

    def only(self, cells: Iterable[str]) -> Group | None:
        """Return the group with these cells alone; None where it has none of them."""
        wanted = set(cells)
        kept = {at: record for at, record in self.cells.items() if record.cell_id in wanted}
        return dataclasses.replace(self, cells=kept) if kept else None

    def is_null_of(self, other: Group, kind: str) -> bool:
        """Whether this is the other's control of that kind, at the same place.

        Controls of a vector have its norm, so its random directions are those of its other controls too.
        """
        if self.labels.get("control") != kind or self.place != other.place or self.labels == other.labels:
            return False
        of, named = self.labels.get("control_of"), other.labels.get("vector")
        if of is None:
            return self.labels.get("vector") == f"{named}-{kind}"
        return of in (named, other.labels.get("control_of"))


def task_identity(record: CellRecord, task: str) -> dict[str, Any]:
    """Return what decides a task's numbers, without these numbers."""
    return {key: value for key, value in record.tasks[task].items() if key not in _RESULTS}


def group_cells(records: Sequence[CellRecord]) -> list[Group]:
    """Return the groups of a ledger's cells; their order and their cells do not depend on the order of records.

    An unsteered cell with a system prompt is a group too, with the prompt in the vector's place, at λ = 1. Where two
    cells have the same labels in the same setting, the one with the smaller id counts. A plan of several placements
    with different multipliers is one point, at λ = 1, and keeps its label ``multiplier``.

    Raises:
        InputError: a steered cell has no unsteered one to be measured against.
    """
    records = sorted(records, key=lambda record: record.cell_id)
    bases = _unsteered(records)
    cells: dict[str, dict[float, CellRecord]] = {}
    heads: dict[str, Group] = {}
    for record in records:
        for task, prompted in _members(record):
            setting = _setting(record, task, prompted=prompted)
            if setting not in bases:
                if prompted:
                    continue
                raise InputError(
                    f"cell {record.cell_id}: the ledger has no unsteered cell of {task} with the same items, model and "
                    "versions, so there is no effect to report. Run the sweep again; it adds what is missing."
                )
            at, labels = _labels(record, prompted)
            key = canonical_json([setting, labels])
            heads.setdefault(key, Group(task, labels, bases[setting], {}, setting))
            cells.setdefault(key, {}).setdefault(at, record)
    return [dataclasses.replace(heads[key], cells=dict(sorted(cells[key].items()))) for key in sorted(heads)]


def _unsteered(records: Sequence[CellRecord]) -> dict[str, CellRecord]:
    """Return the unsteered cell of each setting; those without a system prompt serve prompted cells too."""
    bases: dict[str, CellRecord] = {}
    for record in records:
        if record.plan_id == UNSTEERED:
            for task in record.tasks:
                bases.setdefault(_setting(record, task), record)
                if record.labels.get("system_prompt") is None:
                    bases.setdefault(_setting(record, task, prompted=True), record)
    return bases


def _members(record: CellRecord) -> Iterator[tuple[str, bool]]:
    """Give the tasks in which a cell belongs to a curve, and whether for its system prompt alone."""
    prompted = record.plan_id == UNSTEERED
    if prompted and record.labels.get("system_prompt") is None:
        return
    for task in sorted(record.tasks):
        yield task, prompted


def _labels(record: CellRecord, prompted: bool) -> tuple[float, dict[str, Label]]:
    labels = {"system_prompt": None, **record.labels}
    at = labels.pop("multiplier", None)
    if prompted:
        return 1.0, {**labels, "control": labels.get("control") or "prompt"}
    if isinstance(at, int | float) and not isinstance(at, bool):
        return float(at) + 0.0, labels
    return 1.0, {**labels, "multiplier": at}


def _setting(record: CellRecord, task: str, *, prompted: bool = False) -> str:
    """Return the key of what has to be equal; a system prompt as such changes the prompts and is named apart."""
    identity = task_identity(record, task)
    system = record.labels.get("system_prompt")
    if prompted:
        identity, system = {key: value for key, value in identity.items() if key not in _PROMPT}, None
    versions = {**record.versions, "lm_eval_steer": str(record.versions.get("lm_eval_steer")).rpartition(".")[0]}
    model = {key: value for key, value in record.model.items() if key != _SIZE}
    return content_id([task, identity, model, record.seeds, versions, system, prompted], 32)
