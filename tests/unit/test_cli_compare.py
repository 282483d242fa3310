"""``lm-eval-steer compare`` on small ledgers: from cells to a table, and what it says where there is none."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lm_eval_steer.cli import compare
from lm_eval_steer.cli import main as cli
from lm_eval_steer.stats.curve import Curve
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.table.columns import COLUMNS
from lm_eval_steer.table.keys import kind
from lm_eval_steer.table.read import read_curves
from lm_eval_steer.table.render import FORMATS
from tests.curve_tools import write_ledger
from tests.unit.test_imports import loaded_with
from tests.weight import HEAVY, weigh

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the subcommand: exit code, stdout, stderr."""
    monkeypatch.setattr(cli, "COMMANDS", ("compare",))

    def call(*argv: object) -> tuple[int, str, str]:
        code = cli.main(["compare", *map(str, argv)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two vectors, a letter control and 3 random directions each, at two layers, 40 items."""
    folder = tmp_path_factory.mktemp("ledgers") / "sweep"
    write_ledger(
        folder, {"joy": 0.8, "calm": 0.4, "joy-letter": 0.1}, layers=(1, 3), multipliers=(-1.0, 0.0, 1.0), k=3, n=40
    )
    return folder


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def curve_ids(curves: list[Curve]) -> set[tuple[object, object]]:
    return {(curve.labels["vector"], curve.labels["layer"]) for curve in curves if kind(curve) != "random"}


def test_a_table_of_a_ledger(run: Run, ledger: Path) -> None:
    code, out, err = run(ledger, "--format", "csv")
    assert (code, err) == (0, "")
    found = {(row["kind"], row["vector"]): row for row in rows(out)}
    assert list(found)[:2] == [("vector", "joy"), ("vector", "calm")]
    assert {kind for kind, _ in list(found)[2:]} == {"unsteered", "random", "letter"}
    joy = found["vector", "joy"]
    assert (joy["rank"], joy["layer"], joy["multiplier"], joy["n"], joy["k"]) == ("1", "3", "1.0", "20", "3")
    assert joy["p_null"] == "0.25"  # no direction of three reaches it at either layer
    assert float(joy["S"]) == pytest.approx(0.8 * 1.03, abs=0.01)
    assert float(joy["E"]) == pytest.approx(1 / (1 + 2.718281828 ** (-0.8 * 1.03)) - 0.5, abs=0.01)


def test_all_has_a_row_for_every_layer(run: Run, ledger: Path) -> None:
    found = rows(run(ledger, "--all", "--format", "csv", "--sort", "layer")[1])
    assert [row["layer"] for row in found if row["kind"] == "vector"] == ["1", "1", "3", "3"]
    assert {(row["vector"], row["layer"]) for row in found if row["kind"] == "letter"} == {
        ("joy-letter", "1"),
        ("joy-letter", "3"),
    }


@pytest.mark.parametrize("where", ["control=none", "vector=joy", "layer in 1-3, control != random, vector != 'calm'"])
def test_a_choice_of_vectors_keeps_their_random_directions(ledger: Path, where: str) -> None:
    opened = [Ledger.open(ledger, create=False, read_only=True)]
    curves = read_curves(opened, where)
    assert ("joy", 1) in curve_ids(curves)
    assert sum(kind(curve) == "random" and curve.labels["control_of"] == "joy" for curve in curves) == 6


def test_a_choice_of_places_holds_for_random_directions_too(ledger: Path) -> None:
    curves = read_curves([Ledger.open(ledger, create=False, read_only=True)], "control=none, layer=3, multiplier>0")
    assert {curve.labels["layer"] for curve in curves} == {3}
    assert {point.multiplier for curve in curves for point in curve.points} == {0.0, 1.0}


def test_groups_and_choices_on_the_command_line(run: Run, ledger: Path) -> None:
    found = rows(run(ledger, "--where", "vector=joy", "--group-by", "layer, scope", "--format", "csv")[1])
    assert [(r["group"], r["vector"], r["k"]) for r in found if r["kind"] == "vector"] == [
        ("layer=1, scope=all", "joy", "3"),
        ("layer=3, scope=all", "joy", "3"),
    ]


def test_ledgers_of_other_data_are_set_apart(run: Run, ledger: Path, tmp_path: Path) -> None:
    write_ledger(tmp_path / "new", {"sad": 0.9}, n=40, data_hash="d2")
    code, out, _ = run(ledger, tmp_path / "new", "--format", "json")
    first, apart = json.loads(out)["rankings"]
    assert (code, first["apart"], apart["apart"]) == (0, [], ["data hash d2 instead of d1"])
    assert [row["vector"] for row in apart["rows"] if row["kind"] == "vector"] == ["sad"]


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_bytes_again_in_another_order_and_in_a_file(run: Run, ledger: Path, tmp_path: Path, form: str) -> None:
    write_ledger(tmp_path / "other", {"sad": 0.9}, n=40)
    _, first, _ = run(ledger, tmp_path / "other", "--format", form)
    _, again, _ = run(tmp_path / "other", ledger, ledger, "--format", form)
    _, out, err = run(ledger, tmp_path / "other", "--format", form, "--out", tmp_path / "t" / "table")
    assert first == again == (tmp_path / "t" / "table").read_text(encoding="utf-8")
    assert (out, err) == ("", f"wrote {tmp_path / 't' / 'table'}\n")


def test_a_copy_of_a_ledger_gives_the_same_bytes(run: Run, ledger: Path, tmp_path: Path) -> None:
    shutil.copytree(ledger / "cells", tmp_path / "copy" / "cells")
    shutil.copy(ledger / "ledger.json", tmp_path / "copy")
    assert run(tmp_path / "copy", "--format", "md")[1] == run(ledger, "--format", "md")[1]


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--sort", "p_nul"], 2, "Did you mean 'p_null'"),
        (["--where", "leyer=1"], 2, "Did you mean 'layer'"),
        (["--where", "layer=1 or"], 2, "layer is a number"),
        (["--group-by", "scop"], 2, "Did you mean 'scope'"),
        (["--where", "control=random"], 3, "nothing to compare: no vector among the 18 curves"),
        (["--where", "layer=99"], 3, "nothing to compare"),
    ],
)
def test_what_is_wrong_is_said(run: Run, ledger: Path, argv: list[str], code: int, said: str) -> None:
    found, out, err = run(ledger, *argv)
    assert (found, out) == (code, "")
    assert said in err


def test_a_folder_that_is_no_ledger(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "none")[0] == 3
    assert not (tmp_path / "none").exists()


def test_a_damaged_cell_is_named_on_stderr_and_the_table_goes_on(run: Run, ledger: Path, tmp_path: Path) -> None:
    shutil.copytree(ledger, tmp_path / "copy")
    record = next(
        path for path in sorted((tmp_path / "copy" / "cells").glob("*/record.json")) if "calm" in path.read_text()
    )
    record.write_text(record.read_text().replace("calm", "clam"))
    code, out, err = run(tmp_path / "copy")
    assert code == 0
    assert "rank" in out
    assert err.startswith("damaged and left out: ")
    assert record.parent.name in err


def test_the_help_explains_every_column_and_the_formats_are_all_there(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    assert all(f"  {column.title} " in text and column.about in text for column in COLUMNS.values())
    assert tuple(FORMATS) == compare.FORMATS


def test_neither_the_command_nor_what_it_runs_loads_torch_or_lm_eval() -> None:
    light = {name.partition(".")[0] for name in loaded_with("lm_eval_steer.cli.compare")}
    assert not light & {"torch", "lm_eval", "numpy", "rich", "pyarrow"}
    for module in ("make", "read", "render"):
        assert not {name.partition(".")[0] for name in loaded_with(f"lm_eval_steer.table.{module}")} & {
            "torch",
            "lm_eval",
        }


@pytest.mark.slow
def test_two_hundred_cells_with_stored_statistics_open_no_samples_and_load_nothing_heavy(tmp_path: Path) -> None:
    """What makes a second table quick; ``benchmarks/commands.py`` says how quick."""
    write_ledger(tmp_path / "big", {"joy": 0.8, "calm": 0.4}, layers=(1, 2), k=12, n=50)  # 2 · 2 · 13 · 4 + 1 cells
    assert len(list((tmp_path / "big" / "cells").iterdir())) == 209
    first, again = (weigh(["compare", str(tmp_path / "big")]) for _ in range(2))
    assert first.samples_opened >= 209
    assert (again.samples_opened, again.modules & HEAVY) == (0, set())
    assert (first.code, again.code, again.stdout) == (0, 0, first.stdout)
