"""Row 18: a killed process loses no finished block, leaves no half one, and the rest resumes to the same bytes.

This is the half of the row that needs no model; whole sweeps are killed in the tests of ``sweep``.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm_eval_steer.sweep.ledger import Ledger
from tests.ledger_tools import files, fill

ROOT = Path(__file__).parents[2]
BLOCKS = 40
WORKER = f"import sys; from tests.ledger_tools import fill; fill(sys.argv[1], {BLOCKS})"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "ledger"
    assert len(fill(folder, BLOCKS)) == BLOCKS
    return files(folder)


@pytest.mark.parametrize("seed", range(10))
def test_killed_and_resumed(tmp_path: Path, seed: int, undisturbed: dict[str, bytes]) -> None:
    generator = random.Random(seed)
    folder = tmp_path / "ledger"
    child = subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(generator.randrange(1, BLOCKS)):
        child.stdout.readline()
    time.sleep(generator.random() * 0.004)  # about as long as one block takes to write
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = Ledger.open(folder, create=False, read_only=True)
    done = kept.blocks.ids()
    assert all(kept.blocks.get(block) is not None for block in done)
    assert len(kept.read_cells()) == len(kept.cells.ids())
    assert kept.problems == []

    computed = fill(folder, BLOCKS)
    assert sorted([*done, *computed]) == sorted(f"b{i}" for i in range(BLOCKS))  # none lost, none repeated
    assert files(folder) == undisturbed
