"""Row 19: a full disk or a read-only folder is an error; what was there stays whole and nothing half is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm_eval_steer.cli.main import main
from lm_eval_steer.errors import SteerError, WriteError
from lm_eval_steer.sweep.ledger import Ledger
from tests.ledger_tools import files, record, samples

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger.open(tmp_path / "ledger")
    ledger.write_cell(record(), samples())
    ledger.blocks.put("b", {"x": np.zeros(3)})
    ledger.write_index()
    return ledger


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


WRITES = {
    "a new cell": lambda ledger: ledger.write_cell(record(layer=7), samples()),
    "a cell again": lambda ledger: ledger.write_cell(record(accuracy=0.9), samples(), force=True),
    "a note": lambda ledger: ledger.note(record().cell_id, "x"),
    "a block": lambda ledger: ledger.blocks.put("b", {"x": np.ones(3)}),
    "a spec": lambda ledger: ledger.write_spec("s", {}, []),
    "the index": lambda ledger: ledger.write_index(),
}


CALLS = [(what, call) for what in WRITES for call in ("fsync", "replace")]
CALLS += [(what, call) for what in ("a new cell", "a cell again") for call in ("rename", "mkdir")]


@pytest.mark.parametrize(("what", "call"), CALLS)
def test_a_full_disk_leaves_everything_as_it_was(
    ledger: Ledger, what: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(ledger.path)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(WriteError, match="No space left"):
            WRITES[what](ledger)
    assert files(ledger.path) == before
    assert ledger.problems == []
    WRITES[what](ledger)


def test_a_rename_that_fails_half_way_puts_the_old_cell_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(ledger.path)
    rename, calls = os.rename, []

    def second_fails(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:
            full()
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(WriteError):
        ledger.write_cell(record(accuracy=0.9), samples(), force=True)
    assert files(ledger.path) == before
    assert len(list(ledger.cells.folder.iterdir())) == 1


def test_a_file_size_limit_stands_for_a_full_disk(ledger: Ledger) -> None:
    code = """
import resource, sys
import numpy as np
from lm_eval_steer.errors import WriteError
from lm_eval_steer.sweep.ledger import Ledger
from tests.ledger_tools import record, samples
ledger = Ledger.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
for write in (
    lambda: ledger.write_cell(record(layer=7), samples()),
    lambda: ledger.write_cell(record(accuracy=0.9), samples(), force=True),
    lambda: ledger.blocks.put("b", {"x": np.ones(1000)}),
):
    try:
        write()
    except WriteError as error:
        print("File too large" in str(error))
"""
    before = files(ledger.path)
    done = subprocess.run(
        [sys.executable, "-c", code, str(ledger.path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"] * 3
    assert files(ledger.path) == before


@pytest.mark.parametrize("room", ["cells", "blocks", "claims", "specs"])
def test_a_folder_that_cannot_be_written(tmp_path: Path, room: str) -> None:
    # A file where the folder should be refuses root too, which read-only modes do not.
    ledger = Ledger.open(tmp_path / "ledger")
    (ledger.path / room).write_text("in the way")
    write = {
        "cells": lambda: ledger.write_cell(record(), samples()),
        "blocks": lambda: ledger.blocks.put("b", {"x": np.zeros(1)}),
        "claims": lambda: ledger.blocks.claim("b"),
        "specs": lambda: ledger.write_spec("s", {}, []),
    }[room]
    with pytest.raises(WriteError):
        write()
    assert sorted(files(ledger.path)) == sorted([room, "ledger.json"])


def test_it_is_known_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SteerError):
        Ledger.open(tmp_path / "file" / "ledger")
    with pytest.raises(SteerError):
        Ledger.open(tmp_path / "file")
    assert main(["status", str(tmp_path / "file")]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_reading_a_damaged_ledger_that_cannot_be_written(ledger: Ledger) -> None:
    (ledger.cells.path(record().cell_id) / "record.json").write_text("{")
    (ledger.path / "aside").write_text("in the way")
    before = files(ledger.path)
    for again in (Ledger.open(ledger.path), Ledger.open(ledger.path, create=False, read_only=True)):
        assert again.read_cells() == []
        (problem,) = again.problems
        assert problem.moved_to is None
        assert "left in its place" in str(problem)
    assert files(ledger.path) == before
