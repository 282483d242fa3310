"""CellStore: the results of a sweep, a folder a cell, each there as a whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval_steer.errors import InputError, WriteError
from lm_eval_steer.files import atomic_write, sha256_bytes, write_json
from lm_eval_steer.sweep.aside import Aside
from lm_eval_steer.sweep.claims import this_process
from lm_eval_steer.sweep.records import CellRecord, dump_record, load_record
from lm_eval_steer.sweep.samples import dump_samples, load_samples

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class CellStore:
    """Cells by content id under ``cells``.

    Args:
        root: the ledger's folder.
        aside: where damaged cells go.
    """

    def __init__(self, root: Path, aside: Aside) -> None:
        self.folder = root / "cells"
        self._aside = aside

    def ids(self) -> list[str]:
        """Return the ids of the cells that are there, sorted."""
        paths = self.folder.iterdir() if self.folder.is_dir() else iter(())
        return sorted(path.name for path in paths if _ID.fullmatch(path.name))

    def path(self, cell_id: str) -> Path:
        """Return the folder of a cell.

        Raises:
            InputError: the id is no file name.
        """
        if not _ID.fullmatch(cell_id):
            raise InputError(f"cell {cell_id!r}: an id has 1 to 64 letters, digits, - and _.")
        return self.folder / cell_id

    def write(
        self,
        record: CellRecord,
        samples: Sequence[Mapping[str, Any]],
        *,
        timing: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> bool:
        """Write one cell; see :meth:`Ledger.write_cell`."""
        data = dump_samples(samples)
        facts = {"n": len(samples), "bytes": len(data), "sha256": sha256_bytes(data)}
        record = dataclasses.replace(record, samples=facts)
        present = self.read(record.cell_id)
        if present is not None:
            if present.same_result(record):
                return False
            if not force:
                raise _conflict(self.path(record.cell_id), present, record)
            record = dataclasses.replace(record, note=record.note or present.note)
        with self._hidden_folder(record.cell_id) as hidden:
            write_json(hidden / "record.json", dump_record(record))
            with atomic_write(hidden / "samples.parquet", "wb") as handle:
                handle.write(data)
            if timing is not None:
                write_json(hidden / "timing.json", dict(timing))
            return self._place(hidden, record, replace=present is not None)

    def write_note(self, record: CellRecord, note: str) -> CellRecord:
        """Write a record anew with another note and return it.

        Raises:
            WriteError: it cannot be written; the old record is whole.
        """
        record = dataclasses.replace(record, note=note)
        write_json(self.path(record.cell_id) / "record.json", dump_record(record))
        return record

    def read(self, cell_id: str) -> CellRecord | None:
        """Return one record; None where it is not there, or damaged and so moved aside."""
        folder = self.path(cell_id)
        try:
            record = load_record((folder / "record.json").read_text(encoding="utf-8"))
            _check_folder(record, folder)
        except (OSError, UnicodeDecodeError, InputError) as error:
            if folder.exists():  # else it is not there, or another process has just moved it
                self._aside.add(folder, f"record.json: {_why(error)}")
            return None
        return record

    def read_samples(self, cell_id: str) -> list[dict[str, Any]]:
        """Return a cell's items; see :meth:`Ledger.read_samples`."""
        record = self.read(cell_id)
        if record is None:
            raise InputError(f"{self.path(cell_id)} is not there, or damaged; run the sweep again.")
        try:
            data = (self.path(cell_id) / "samples.parquet").read_bytes()
            if sha256_bytes(data) != record.samples.get("sha256"):
                raise InputError("its sha256 is not the one that the record names")
            return load_samples(data)
        except (OSError, InputError) as error:
            problem = self._aside.add(self.path(cell_id), f"samples.parquet: {_why(error)}")
            raise InputError(f"{problem}. Run the sweep again to compute it anew.") from None

    def remove(self, cell_id: str) -> None:
        """Remove a cell: out of sight first, so that nobody sees a part of it.

        Raises:
            WriteError: it cannot be removed.
        """
        with self._hidden_folder(cell_id, make=False) as hidden, contextlib.suppress(FileNotFoundError):
            os.rename(self.path(cell_id), hidden)

    def _place(self, hidden: Path, record: CellRecord, *, replace: bool) -> bool:
        """Move a finished folder to its place; where another process was first, compare with what it wrote."""
        target = self.path(record.cell_id)
        old = hidden.with_name(f".old{hidden.name}")
        if replace:
            os.rename(target, old)
        try:
            os.rename(hidden, target)
        except OSError:
            if replace:
                os.rename(old, target)
                raise
            present = self.read(record.cell_id)
            if present is None:
                raise
            if not present.same_result(record):
                raise _conflict(target, present, record) from None
            return False
        shutil.rmtree(old, ignore_errors=True)
        return True

    @contextlib.contextmanager
    def _hidden_folder(self, cell_id: str, *, make: bool = True) -> Iterator[Path]:
        """Give a folder of this process' own beside the cells; whatever is in it at the end is removed."""
        hidden = self.folder / f".{cell_id}.{this_process().token()}.tmp"
        try:
            if make:
                self.folder.mkdir(parents=True, exist_ok=True)
                hidden.mkdir()
            yield hidden
        except WriteError:
            raise
        except OSError as error:
            raise WriteError(
                f"cannot write {self.path(cell_id)}: {error.strerror or error}. What was there before is unchanged; "
                "free some space or choose a folder you may write to."
            ) from error
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def _check_folder(record: CellRecord, folder: Path) -> None:
    if record.cell_id != folder.name:
        raise InputError(f"it is the record of cell {record.cell_id!r}")
    samples = folder / "samples.parquet"
    size = samples.stat().st_size if samples.is_file() else None
    if size != record.samples.get("bytes"):
        raise InputError(f"samples.parquet has {size} bytes, the record says {record.samples.get('bytes')}")


def _conflict(path: Path, present: CellRecord, record: CellRecord) -> InputError:
    names = ", ".join(present.differences(record))
    return InputError(
        f"{path} holds another result of the same cell (differs in: {names}). The same plan, model and tasks gave "
        "other numbers: keep the old one, or replace it with --force."
    )


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
