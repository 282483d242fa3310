"""Ledger: the folder that a sweep fills and that every table is made from.

::

    ledger.json                        schema and tool version
    specs/<spec_id>.json               what was asked for, and the cells that it means
    cells/<cell_id>/record.json        one cell's result; says its own sha256
                    samples.parquet    its items
                    timing.json        how long it took; compared with nothing
    blocks/<block_id>.npz              arrays that several cells share, see blocks.py
    claims/                            which process works on which block, see claims.py
    aside/                             damaged records and blocks, each with the reason
    index.json                         the cells at a glance; written anew from the records, never read

A cell's folder appears whole or not at all. Two processes may write one ledger.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval_steer import __version__
from lm_eval_steer.errors import ConfigError, InputError
from lm_eval_steer.files import check_writable, write_json
from lm_eval_steer.names import slug
from lm_eval_steer.sweep.aside import Aside, Problem
from lm_eval_steer.sweep.blocks import BlockStore
from lm_eval_steer.sweep.cells import CellStore
from lm_eval_steer.sweep.claims import abandoned
from lm_eval_steer.sweep.records import CellRecord
from lm_eval_steer.sweep.status import LedgerStatus, Pruned, size_of
from lm_eval_steer.sweep.where import parse_where

SCHEMA_VERSION = 1
_TEMPORARY = re.compile(r"\..+\.(?P<token>[0-9a-f]+-\d+-\d+)\.tmp")


class Ledger:
    """A ledger's folder; made with :meth:`open`.

    Attributes:
        path: the folder.
        cells: its results.
        blocks: what cells share.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._aside = Aside(path, read_only=read_only)
        self.cells = CellStore(path, self._aside)
        self.blocks = BlockStore(path, self._aside)

    @classmethod
    def open(cls, path: Path | str, create: bool = True, *, read_only: bool = False) -> Ledger:
        """Return the ledger in a folder.

        Args:
            path: the folder.
            create: make it where it is missing or empty, and prove that it can be written.
            read_only: report what is damaged, move nothing.

        Raises:
            InputError: there is none, or it is of a newer version, or the folder holds something else.
            WriteError: it is to be made and cannot be written.
        """
        folder = Path(path).expanduser()
        head = folder / "ledger.json"
        if not head.exists():
            _check_new(folder, create and not read_only)
            write_json(head, {"schema": SCHEMA_VERSION, "tool": f"lm-eval-steer {__version__}"})
        _check_head(head)
        if create and not read_only:
            check_writable(folder)
        ledger = cls(folder, read_only=read_only)
        if not read_only:
            ledger._clear_leftovers()
        return ledger

    @property
    def problems(self) -> list[Problem]:
        """What is damaged: met now, or moved aside earlier and not computed again since."""
        return self._aside.problems

    def write_cell(
        self,
        record: CellRecord,
        samples: Sequence[Mapping[str, Any]],
        *,
        timing: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> bool:
        """Write one cell, all of it at once; return whether anything was written.

        The same result once more changes nothing.

        Args:
            record: the result; ``samples`` in it is filled in here.
            samples: its items, see ``samples.py``.
            timing: whatever took time; kept beside the record and compared with nothing.
            force: replace another result of the same cell; its note is kept.

        Raises:
            InputError: the cell is there with another result, and ``force`` is not given.
            WriteError: the ledger cannot be written; what was there is whole.
        """
        return self.cells.write(record, samples, timing=timing, force=force)

    def read_cells(self, where: str | None = None) -> list[CellRecord]:
        """Return the records for which ``where`` holds (see ``where.py``), the unsteered one first, then by labels.

        A damaged record is moved aside and named in :attr:`problems`.

        Raises:
            ConfigError: ``where`` cannot be read, or names a label that no record has.
        """
        wanted = parse_where(where)
        records = filter(None, map(self.cells.read, self.cells.ids()))
        return wanted.select(sorted(records, key=lambda record: record.sort_key))

    def read_cell(self, cell_id: str) -> CellRecord | None:
        """Return one record; None where it is not there, or damaged and so moved aside: to be computed."""
        return self.cells.read(cell_id)

    def read_samples(self, cell_id: str) -> list[dict[str, Any]]:
        """Return a cell's items.

        Raises:
            InputError: the cell is not there, or its samples are not those that the record names; it is then moved
                aside.
        """
        return self.cells.read_samples(cell_id)

    def write_spec(self, spec_id: str, spec: Mapping[str, Any], cell_ids: Sequence[str]) -> None:
        """Store what a sweep was asked for and the cells that it means.

        Raises:
            WriteError: it cannot be written.
        """
        write_json(self.path / "specs" / f"{slug(spec_id)}.json", {"spec": dict(spec), "cells": sorted(cell_ids)})

    def read_specs(self) -> dict[str, dict[str, Any]]:
        """Return the stored specs: id → ``{spec, cells}``. A damaged one is moved aside."""
        specs: dict[str, dict[str, Any]] = {}
        for path in sorted((self.path / "specs").glob("*.json")):
            try:
                data = json.loads(path.read_text(encoding="utf-8"))
                specs[path.stem] = {"spec": dict(data["spec"]), "cells": list(data["cells"])}
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._aside.add(path, f"it is no stored spec: {error}")
        return specs

    def write_index(self) -> None:
        """Write ``index.json`` anew from the records: id, labels and status of every cell.

        Raises:
            WriteError: it cannot be written.
        """
        records = self.read_cells()
        rows = [{"cell": record.cell_id, "labels": record.labels, "status": record.status} for record in records]
        write_json(self.path / "index.json", {"schema": SCHEMA_VERSION, "cells": rows})

    def status(self) -> LedgerStatus:
        """Return how far the ledger is; every record is read."""
        records = self.read_cells()
        specs = self.read_specs()
        expected = {cell for spec in specs.values() for cell in spec["cells"]}
        alive, dead = self.blocks.claims.count()
        return LedgerStatus(
            cells=len(records),
            expected=len(expected) if specs else None,
            missing=len(expected - {record.cell_id for record in records}),
            non_finite=sum(record.status == "non_finite" for record in records),
            blocks=len(self.blocks.ids()),
            claims_alive=alive,
            claims_dead=dead,
            problems=tuple(self.problems),
            bytes=size_of(self.path),
        )

    def prune(self, where: str | None = None, *, blocks: bool = False, dry_run: bool = False) -> Pruned:
        """Remove the cells for which ``where`` holds, and all blocks where asked; return what was, or would be.

        Records do not need their blocks; a sweep that is not finished computes them again.

        Args:
            where: which cells; None for none.
            blocks: remove all blocks, and the claims of processes that are gone.
            dry_run: remove nothing.

        Raises:
            ConfigError: neither is given, or ``where`` is blank or cannot be read.
            InputError: blocks are asked for while a process works on them.
            WriteError: something cannot be removed.
        """
        if where is not None and not where.strip():
            raise ConfigError("--where is blank and would mean every cell; say which.")
        if where is None and not blocks:
            raise ConfigError("nothing to prune: say which cells with --where, or --blocks.")
        alive = self.blocks.claims.count()[0]
        if blocks and alive:
            raise InputError(f"{self.path}: {alive} blocks are being computed; wait for that sweep, or stop it.")
        cells = [] if where is None else [record.cell_id for record in self.read_cells(where)]
        ids = self.blocks.ids() if blocks else []
        paths = [self.cells.path(cell) for cell in cells] + [self.blocks.folder / f"{block}.npz" for block in ids]
        pruned = Pruned(tuple(cells), tuple(ids), sum(map(size_of, paths)))
        if not dry_run:
            self._remove(pruned, blocks)
        return pruned

    def note(self, cell_prefix: str, text: str) -> CellRecord:
        """Put a note on the one cell whose id begins with ``cell_prefix``; return its record. "" takes it off.

        Raises:
            InputError: no cell, or several, begin so; or its record is damaged.
            WriteError: it cannot be written; the old record is whole.
        """
        found = [cell for cell in self.cells.ids() if cell.startswith(cell_prefix)]
        if len(found) != 1:
            which = f"{len(found)} cells ({', '.join(found[:5])} …)" if found else "no cell"
            raise InputError(f"{self.path}: {which} begin with {cell_prefix!r}; give more of the id, or another.")
        record = self.cells.read(found[0])
        if record is None:
            raise InputError(f"{self.path}: cell {found[0]} is damaged. {'; '.join(map(str, self.problems))}.")
        return self.cells.write_note(record, text)

    def _remove(self, pruned: Pruned, blocks: bool) -> None:
        for cell in pruned.cells:
            self.cells.remove(cell)
        for block in pruned.blocks:
            self.blocks.remove(block)
        if blocks:
            self.blocks.claims.clear_dead()
        if (self.path / "index.json").exists():
            self.write_index()

    def _clear_leftovers(self) -> None:
        """Remove what killed processes left half-written."""
        for folder in (self.path, self.cells.folder, self.blocks.folder):
            for path in folder.glob(".*.tmp"):
                match = _TEMPORARY.fullmatch(path.name)
                if abandoned(path, match["token"] if match else None):
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _check_new(folder: Path, create: bool) -> None:
    if not create:
        raise InputError(f"{folder} is no ledger: it has no ledger.json. A sweep makes one: lm-eval-steer sweep.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the ledger.")
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} holds something else (no ledger.json in it); name a new or empty folder.")


def _check_head(path: Path) -> None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        schema = int(data["schema"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{path} cannot be read ({error}). Its text is {{"schema": {SCHEMA_VERSION}}}; write that, and the cells '
            "are read again."
        ) from None
    if schema > SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema {schema}; this version of lm-eval-steer reads up to {SCHEMA_VERSION}. Install a newer one."
        )
