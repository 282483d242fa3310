"""The ledger: cells as a whole, records that know their hash, choosing, notes, pruning."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from lm_eval_steer.cli.main import main
from lm_eval_steer.errors import ConfigError, InputError
from lm_eval_steer.sweep.claims import this_process
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.records import CellRecord, cell_id, dump_record, load_record
from lm_eval_steer.sweep.samples import dump_samples, load_samples
from lm_eval_steer.sweep.where import group, parse_where
from tests.ledger_tools import files, record, samples

GRID = [record(layer=layer, multiplier=m) for layer in (9, 10, 11) for m in (-1.0, 0.5, 2.0)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "ledger")


# ------------------------------------------------------------------------------------------------ cells


def test_a_cell_comes_back(ledger: Ledger) -> None:
    assert ledger.write_cell(record(), samples(), timing={"seconds": 1.0})
    (back,) = ledger.read_cells()
    assert dataclasses.replace(back, samples={}) == record()
    assert back.samples["n"] == 2
    assert ledger.read_samples(back.cell_id) == samples()
    assert sorted(files(ledger.cells.path(back.cell_id))) == ["record.json", "samples.parquet", "timing.json"]


def test_the_same_once_more_changes_nothing(ledger: Ledger) -> None:
    ledger.write_cell(record(), samples())
    before = files(ledger.path)
    assert not ledger.write_cell(record(), samples(), timing={"seconds": 9.0})
    assert files(ledger.path) == before


@pytest.mark.parametrize(("other", "rows"), [(record(accuracy=0.6), samples()), (record(), samples(1.0))])
def test_another_result_is_refused_unless_forced(ledger: Ledger, other: CellRecord, rows: list[object]) -> None:
    ledger.write_cell(record(), samples())
    ledger.note(record().cell_id, "mine")
    before = files(ledger.path)
    with pytest.raises(InputError, match="another result of the same cell"):
        ledger.write_cell(other, rows)  # type: ignore[arg-type]
    assert files(ledger.path) == before
    assert ledger.write_cell(other, rows, force=True)  # type: ignore[arg-type]
    (back,) = ledger.read_cells()
    assert (back.tasks, back.note) == (other.tasks, "mine")
    assert {path.name for path in ledger.cells.folder.iterdir()} == {back.cell_id}


def test_the_bytes_depend_on_nothing_but_the_results(tmp_path: Path) -> None:
    one, two = Ledger.open(tmp_path / "one"), Ledger.open(tmp_path / "two")
    for ledger, order in ((one, GRID), (two, random.Random(3).sample(GRID, len(GRID)))):
        for each in order:
            ledger.write_cell(each, samples())
        ledger.write_index()
    assert files(one.path) == files(two.path)


def test_records_are_in_one_order(ledger: Ledger) -> None:
    unsteered = dataclasses.replace(record("zz"), plan={"id": "unsteered", "placements": []})
    for each in [*reversed(GRID), unsteered]:
        ledger.write_cell(each, [])
    read = ledger.read_cells()
    assert read[0].cell_id == "zz"
    assert [(r.labels["layer"], r.labels["multiplier"]) for r in read[1:]] == [
        (r.labels["layer"], r.labels["multiplier"]) for r in GRID
    ]


def test_a_record_refuses_what_is_no_result() -> None:
    with pytest.raises(ValueError, match="JSON"):
        record(accuracy=math.nan)
    with pytest.raises(InputError, match="non_finite cell has metrics"):
        dataclasses.replace(record(), status="non_finite")
    with pytest.raises(InputError, match="metrics"):
        dataclasses.replace(record(), tasks={"t": {}})
    with pytest.raises(InputError, match="label"):
        dataclasses.replace(record(), labels={"layer": [1]})  # type: ignore[dict-item]


def test_a_record_is_itself_after_json() -> None:
    assert load_record(json.dumps(dump_record(record()))) == record()


def test_the_cell_id_moves_with_everything_that_decides_numbers() -> None:
    base = {
        "model": {"fingerprint": "f", "dtype": "float32"},
        "tasks": {"t": {"version": 1, "data_hash": "d"}},
        "limit": None,
        "seeds": {"fewshot": 1},
        "chat": False,
        "versions": {"lm_eval": "0.4.13"},
    }
    other = {
        "model": {"fingerprint": "f", "dtype": "bfloat16"},
        "tasks": {"t": {"version": 2, "data_hash": "d"}},
        "limit": 10,
        "seeds": {"fewshot": 2},
        "chat": True,
        "versions": {"lm_eval": "0.4.14"},
    }
    first = cell_id("p", **base)  # type: ignore[arg-type]
    assert first == cell_id("p", **base)  # type: ignore[arg-type]
    ids = {cell_id("p", **{**base, key: value}) for key, value in other.items()}  # type: ignore[arg-type]
    ids |= {cell_id("q", **base), cell_id("p", **base, system_prompt="Be kind."), first}  # type: ignore[arg-type]
    assert len(ids) == len(other) + 3


# ------------------------------------------------------------------------------------------------ samples


def test_samples_keep_every_kind_of_value() -> None:
    rows = [
        {"b": True, "i": 1, "f": 1.0, "s": "é\n", "li": [1, 2], "lf": [1.0, 2], "ls": ["a"], "lb": [True], "n": None},
        {"b": False, "i": -(1 << 63), "f": float("inf"), "s": "", "li": [], "lf": [], "ls": [], "lb": []},
    ]
    odd = [
        {"mixed": 1, "big": 1 << 70, "nested": {"b": [1, {"c": None}], "a": "x"}, "surrogate": "\ud800"},
        {"mixed": "one", "big": 0, "nested": [1], "surrogate": "ok"},
    ]
    rows = [{**one, **two} for one, two in zip(rows, odd, strict=True)]
    back = load_samples(dump_samples(rows))
    assert back == [{"n": None, **row} for row in rows]
    assert load_samples(dump_samples([{"x": {"y": float("nan")}}])) == [{"x": {"y": None}}]
    assert load_samples(dump_samples([])) == []


def test_samples_have_the_same_bytes_in_another_process() -> None:
    code = "import sys; from tests.ledger_tools import samples; from lm_eval_steer.sweep.samples import dump_samples; "
    code += "sys.stdout.buffer.write(dump_samples(samples()))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert done.stdout == dump_samples(samples())


# ------------------------------------------------------------------------------------------------ where


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (None, 10),
        ("layer=10", 3),
        ("layer!=10", 7),
        ("multiplier>0", 6),
        ("multiplier >= 0.5 and layer<11", 4),
        ("layer in 10-11, multiplier=2.0", 2),
        ("layer in 9;11", 6),
        ("control=none", 9),
        ("control!=none", 1),
        ("vector = 'a, and b'", 1),
        ('vector!="a, and b" and control=none', 9),
        ("status=ok", 10),
        (f"cell={GRID[0].cell_id}", 1),
        ("layer=none", 1),
        ("vector!=rock-and-roll", 10),
        ("  ", 10),
    ],
)
def test_where(ledger: Ledger, where: str | None, count: int) -> None:
    for each in [*GRID, record(vector="a, and b", control="random", layer=None, multiplier=None)]:
        ledger.write_cell(each, [])
    assert len(ledger.read_cells(where)) == count


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("layer", "cannot read 'layer'"),
        ("layer=", "cannot read"),
        ("layer=10,", "cannot read ''"),
        ("layer=10 vector=v", "quotes"),
        ("layer>ten", "no number"),
        ("layer>'10'", "no number"),
        ("layer in 11-10", "backwards"),
        ("layr=10", "Did you mean 'layer'"),
        ("vector>3", "vector is text"),
        ("layer==10", "quotes"),
        ("layer=10-11", "layer is a number"),
        ("multiplier!=high", "multiplier is a number"),
        ("=3", "cannot read"),
        ("layer in", "cannot read"),
        ("layer=10 and", "cannot read"),
        ("layer=10,,layer=11", "cannot read"),
    ],
)
def test_where_refused(where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_where(where).select(GRID)


def test_where_on_nothing_is_nothing() -> None:
    assert parse_where("whatever=1").select([]) == []


def test_groups() -> None:
    groups = group(GRID, ["layer"])
    assert list(groups) == [(9,), (10,), (11,)]
    assert [len(members) for members in groups.values()] == [3, 3, 3]
    with pytest.raises(ConfigError, match="multiplier"):
        group(GRID, ["multplier"])


# ------------------------------------------------------------------------------------------------ the folder


def test_only_a_ledger_is_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ledger"):
        Ledger.open(tmp_path / "none", create=False)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="something else"):
        Ledger.open(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        Ledger.open(tmp_path / "thesis.tex")


def test_leftovers_of_killed_processes_go(ledger: Ledger) -> None:
    ledger.write_cell(record(), [])
    owner = this_process()
    dead = ledger.cells.folder / f".x.{dataclasses.replace(owner, start='1').token()}.tmp"
    mine = ledger.cells.folder / f".y.{owner.token()}.tmp"
    old, new = ledger.path / ".index.json.abc.tmp", ledger.path / ".index.json.def.tmp"
    for folder in (dead, mine):
        folder.mkdir()
    for file in (old, new):
        file.write_text("")
    os.utime(old, (1, 1))
    assert len(Ledger.open(ledger.path).read_cells()) == 1
    assert (dead.exists(), mine.exists(), old.exists(), new.exists()) == (False, True, False, True)


def test_status_counts(ledger: Ledger) -> None:
    assert ledger.status().expected is None
    ledger.write_spec("s1", {"layers": "all"}, [GRID[0].cell_id, "missing"])
    ledger.write_spec("s2", {"layers": "1"}, [GRID[0].cell_id, GRID[1].cell_id])
    ledger.write_cell(GRID[0], samples())
    ledger.write_cell(record(layer=30, accuracy=None), [])
    status = ledger.status()
    assert (status.cells, status.expected, status.missing, status.non_finite) == (2, 3, 2, 1)
    assert (status.blocks, status.claims_alive, status.claims_dead, status.problems) == (0, 0, 0, ())
    assert status.bytes == sum(map(len, files(ledger.path).values()))
    assert ledger.read_specs()["s1"]["spec"] == {"layers": "all"}


def test_notes(ledger: Ledger) -> None:
    for each in (record("abc1"), record("abd2")):
        ledger.write_cell(each, samples())
    assert ledger.note("abc", "look\nhere").note == "look\nhere"
    assert [each.note for each in Ledger.open(ledger.path).read_cells()] == ["look\nhere", ""]
    with pytest.raises(InputError, match="2 cells"):
        ledger.note("ab", "x")
    with pytest.raises(InputError, match="no cell"):
        ledger.note("f", "x")
    assert not ledger.write_cell(record("abc1"), samples())  # a note does not make it another result


def test_prune(ledger: Ledger) -> None:
    import numpy as np

    for each in GRID:
        ledger.write_cell(each, samples())
    ledger.blocks.put("b1", {"x": np.zeros(3)})
    ledger.write_index()
    before = files(ledger.path)
    planned = ledger.prune("layer=10", blocks=True, dry_run=True)
    assert files(ledger.path) == before
    assert ledger.prune("layer=10", blocks=True) == planned
    assert (len(planned.cells), planned.blocks) == (3, ("b1",))
    assert sum(map(len, before.values())) - planned.bytes >= sum(map(len, files(ledger.path / "cells").values()))
    assert {each.labels["layer"] for each in ledger.read_cells()} == {9, 11}
    assert len(json.loads((ledger.path / "index.json").read_text())["cells"]) == 6
    with pytest.raises(ConfigError, match="nothing to prune"):
        ledger.prune()
    with pytest.raises(ConfigError, match="blank"):
        ledger.prune("  ")


def test_blocks_in_work_are_not_pruned(ledger: Ledger) -> None:
    assert ledger.blocks.claim("b1")
    with pytest.raises(InputError, match="1 blocks are being computed"):
        ledger.prune(blocks=True)
    ledger.blocks.release("b1")
    ledger.prune(blocks=True)


# ------------------------------------------------------------------------------------------------ the commands


def test_the_commands(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(ledger.path)
    ledger.write_spec("s1", {}, [each.cell_id for each in GRID])
    ledger.write_cell(GRID[0], samples())
    assert main(["status", folder]) == 4
    assert "8 of 9 expected missing" in capsys.readouterr().out
    assert main(["note", folder, GRID[0].cell_id[:6], "hello"]) == 0
    assert capsys.readouterr().out.strip() == GRID[0].cell_id
    assert main(["prune", folder, "--where", "layer=9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] is False
    assert len(ledger.read_cells()) == 1
    assert main(["prune", folder, "--where", "layer=9", "--yes"]) == 0
    assert "removed 1 cells" in capsys.readouterr().out
    assert main(["status", folder, "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["missing"] == 9
    assert main(["status", folder + "x"]) == 3
    assert main(["prune", folder]) == 2
