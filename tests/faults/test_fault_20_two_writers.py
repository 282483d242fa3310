"""Row 20: two processes on one ledger compute and write each thing once; a dead one's work is taken over."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from lm_eval_steer.sweep.ledger import Ledger
from tests.ledger_tools import files, record

ROOT = Path(__file__).parents[2]
WORKER = """
import sys, time
import numpy as np
from lm_eval_steer.sweep.ledger import Ledger
from tests.ledger_tools import record, samples
ledger = Ledger.open(sys.argv[1])
order = range(12) if sys.argv[2] == "up" else range(11, -1, -1)
for number in order:
    with ledger.blocks.computing(f"b{number}") as mine:
        if mine:
            print(f"b{number}", flush=True)
            if sys.argv[2] == "stuck":
                time.sleep(600)
            time.sleep(0.02)
            ledger.blocks.put(f"b{number}", {"x": np.full(10, number)})
for number in range(12):
    if ledger.write_cell(record(layer=number), samples(number)):
        print(f"c{number}", flush=True)
ledger.write_index()
"""


def start(folder: Path, order: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), order], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_each_once_and_the_same_bytes_as_alone(tmp_path: Path) -> None:
    together = [start(tmp_path / "two", order) for order in ("up", "down")]
    done = [child.communicate(timeout=120)[0].split() for child in together]
    assert [child.returncode for child in together] == [0, 0]
    expected = sorted([f"{kind}{number}" for kind in "bc" for number in range(12)])
    assert sorted(done[0] + done[1]) == expected
    alone = start(tmp_path / "one", "up")
    assert sorted(alone.communicate(timeout=120)[0].split()) == expected
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_killed_one_is_taken_over_while_others_wait(tmp_path: Path) -> None:
    stuck = start(tmp_path / "ledger", "stuck")
    assert stuck.stdout is not None
    assert stuck.stdout.readline().strip() == "b11"
    others = [start(tmp_path / "ledger", order) for order in ("up", "down")]
    assert Ledger.open(tmp_path / "ledger").status().claims_alive >= 1
    stuck.send_signal(signal.SIGKILL)
    done = [child.communicate(timeout=120)[0].split() for child in others]
    stuck.wait()
    assert [child.returncode for child in others] == [0, 0]
    assert [line for line in done[0] + done[1] if line == "b11"] == ["b11"]
    ledger = Ledger.open(tmp_path / "ledger")
    assert len(ledger.read_cells()) == 12
    assert ledger.status().claims_alive == ledger.status().claims_dead == 0


def test_another_result_of_the_same_cell_by_the_other_is_named(tmp_path: Path) -> None:
    one, two = Ledger.open(tmp_path / "l"), Ledger.open(tmp_path / "l")
    assert one.write_cell(record(), [])
    assert not two.write_cell(record(), [])
    assert len(two.read_cells()) == 1
