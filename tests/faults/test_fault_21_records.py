"""Row 21: a corrupt, newer or hand-edited record is named and set aside; never overwritten, never passed over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lm_eval_steer.cli.main import main
from lm_eval_steer.errors import InputError
from lm_eval_steer.files import canonical_json, sha256_bytes
from lm_eval_steer.sweep.ledger import Ledger
from tests.ledger_tools import files, record, samples

CELL = record().cell_id


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger.open(tmp_path / "ledger")
    ledger.write_cell(record(), samples())
    ledger.write_cell(record(layer=2), samples())
    return ledger


def edited(change: Callable[[dict[str, object]], object], *, hashed: bool = False) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        data = json.loads((folder / "record.json").read_text())
        change(data)
        if hashed:
            del data["content_sha256"]
            data["content_sha256"] = sha256_bytes(canonical_json(data).encode())
        (folder / "record.json").write_text(json.dumps(data))

    return damage


def text(content: str | bytes) -> Callable[[Path], object]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / "record.json").write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (text(""), "no JSON"),
    "cut": (lambda f: (f / "record.json").write_bytes((f / "record.json").read_bytes()[:100]), "no JSON"),
    "binary": (text(b"\xff\xfe\x00"), "record.json"),
    "a list": (text("[]"), "no JSON object"),
    "deep": (text("[" * 100_000), "no JSON"),
    "newer": (edited(lambda d: d.update(schema=2), hashed=True), "its schema is 2"),
    "edited": (edited(lambda d: d["tasks"]["t"]["metrics"].update({"acc,none": 0.99})), "edited by hand"),  # type: ignore[index]
    "edited note": (edited(lambda d: d.update(note="sneaky")), "edited by hand"),
    "no hash": (edited(lambda d: d.pop("content_sha256")), "edited by hand"),
    "not a number": (edited(lambda d: d.update(counts={"x": float("nan")})), "NaN"),
    "a field less": (edited(lambda d: d.pop("counts"), hashed=True), "counts"),
    "a field more": (edited(lambda d: d.update(extra=1), hashed=True), "extra"),
    "odd status": (edited(lambda d: d.update(status="fine"), hashed=True), "status 'fine'"),
    "odd labels": (edited(lambda d: d.update(labels=[]), hashed=True), "labels"),
    "odd tasks": (edited(lambda d: d.update(tasks={"t": 3}), hashed=True), "metrics"),
    "odd schema": (edited(lambda d: d.update(schema="1"), hashed=True), "schema '1'"),
    "another cell": (edited(lambda d: d.update(cell_id="other"), hashed=True), "record of cell 'other'"),
    "no record": (lambda f: (f / "record.json").unlink(), "No such file"),
    "a folder": (lambda f: ((f / "record.json").unlink(), (f / "record.json").mkdir()), "directory"),
    "no samples": (lambda f: (f / "samples.parquet").unlink(), "samples.parquet has None bytes"),
    "cut samples": (lambda f: (f / "samples.parquet").write_bytes(b"PAR1"), "samples.parquet has 4 bytes"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_it_is_named_and_set_aside(ledger: Ledger, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(ledger.cells.path(CELL))
    before = {name: data for name, data in files(ledger.path).items() if CELL in name}
    assert [each.labels["layer"] for each in ledger.read_cells()] == [2]
    (problem,) = ledger.problems
    assert (problem.what, problem.moved_to) == (f"cells/{CELL}", f"aside/cells/{CELL}")
    assert message in problem.reason
    after = files(ledger.path)
    assert {name: after[f"aside/{name}"] for name in before} == before
    assert f"aside/cells/{CELL}.reason.json" in after


def test_it_stays_named_until_it_is_computed_again(ledger: Ledger) -> None:
    DAMAGE["edited"][0](ledger.cells.path(CELL))
    ledger.read_cells()
    again = Ledger.open(ledger.path, create=False, read_only=True)
    assert len(again.read_cells()) == 1
    assert [problem.what for problem in again.problems] == [f"cells/{CELL}"]
    ledger.write_cell(record(), samples())
    assert len(again.read_cells()) == 2
    assert again.problems == []


def test_writing_over_it_sets_it_aside_first_and_a_second_one_beside(ledger: Ledger) -> None:
    for number in range(3):
        (ledger.cells.path(CELL) / "record.json").write_text(f"damage {number}")
        assert ledger.write_cell(record(), samples())
    aside = ledger.path / "aside" / "cells"
    assert [(aside / f"{CELL}{end}" / "record.json").read_text() for end in ("", ".1", ".2")] == [
        f"damage {number}" for number in range(3)
    ]
    assert ledger.problems == []


def test_samples_of_the_same_length_but_other_content(ledger: Ledger) -> None:
    file = ledger.cells.path(CELL) / "samples.parquet"
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match="sha256"):
        ledger.read_samples(CELL)
    assert [problem.what for problem in ledger.problems] == [f"cells/{CELL}"]
    with pytest.raises(InputError, match="not there"):
        ledger.read_samples(CELL)


def test_reading_only_moves_nothing(ledger: Ledger) -> None:
    DAMAGE["cut"][0](ledger.cells.path(CELL))
    before = files(ledger.path)
    only = Ledger.open(ledger.path, create=False, read_only=True)
    assert len(only.read_cells()) == 1
    assert [problem.moved_to for problem in only.problems] == [None]
    assert files(ledger.path) == before


def test_the_status_says_so(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGE["newer"][0](ledger.cells.path(CELL))
    assert main(["status", str(ledger.path)]) == 3
    assert "its schema is 2" in capsys.readouterr().out


@pytest.mark.parametrize(("head", "message"), [('{"schema": 2}', "newer"), ("", "cannot be read"), ("[1]", "cannot")])
def test_a_newer_or_damaged_ledger_is_not_touched(ledger: Ledger, head: str, message: str) -> None:
    (ledger.path / "ledger.json").write_text(head)
    before = files(ledger.path)
    with pytest.raises(InputError, match=message):
        Ledger.open(ledger.path)
    assert files(ledger.path) == before


def test_a_damaged_spec_and_a_damaged_reason_are_named(ledger: Ledger) -> None:
    ledger.write_spec("s", {}, [])
    (ledger.path / "specs" / "s.json").write_text("[]")
    assert ledger.read_specs() == {}
    assert [problem.what for problem in ledger.problems] == ["specs/s.json"]
    (ledger.path / "aside" / "specs" / "s.json.reason.json").write_text("{")
    (problem,) = Ledger.open(ledger.path).problems
    assert "reason file" in problem.reason
