"""Sweeps from spec to ledger: lm-eval's numbers, resumed after a kill, the same bytes."""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lm_eval_steer.cli.main import main
from lm_eval_steer.evaluation import evaluate_plan, load_tasks, steered
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.run import run_sweep
from lm_eval_steer.sweep.spec import SweepSpec
from tests.conftest import random_vector
from tests.tiny_models import WIDTH, build, tiny_tokenizer

TASK = "control_positivity"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_vector(random_vector(WIDTH, 4, name="joy"), tmp_path / "joy.safetensors")
    return tmp_path


def spec(place: Path, **options: Any) -> SweepSpec:
    flags = {
        "vectors": str(place / "joy.safetensors"),
        "layers": "1,3",
        "multipliers": "-1,0,2",
        "scopes": "after_prompt;all",
    }
    return SweepSpec.from_dict({**flags, "tasks": TASK, "limit": 5, "batch_size": 4, "nulls": "random:2", **options})


def sweep(place: Path, ledger: str = "ledger", **options: Any) -> Any:
    return run_sweep(
        build("llama"), tiny_tokenizer(), spec(place, **options), Ledger.open(place / ledger), model_id="tiny"
    )


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every result of a ledger; timings and claims are compared with nothing."""
    rooms = ("cells", "blocks", "specs")
    files = [path for room in rooms for path in sorted((folder / room).rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "timing.json"}


def test_every_cell_is_what_lm_eval_says_of_the_same_plan(place: Path) -> None:
    swept = sweep(place)
    cells = spec(place).cells(4)
    # 2 scopes × 2 layers × 2 multipliers (λ = 0 is the unsteered cell), each with 2 random directions beside it
    assert len(swept.records) == len(cells) == 1 + 8 * 3
    tokenizer, model = tiny_tokenizer(), build("llama")
    for record, cell in zip(swept.records, cells, strict=True):
        with steered(model, tokenizer, cell.plan, batch_size=4) as lm:
            expected = evaluate_plan(lm, load_tasks([TASK], tokenizer), limit=5)["results"][TASK]
        for name, value in record.tasks[TASK]["metrics"].items():
            assert value == pytest.approx(expected[f"{name},none"], abs=1e-4), (cell.labels, name)


def test_a_second_run_computes_nothing_and_changes_nothing(place: Path) -> None:
    first = sweep(place)
    before = bytes_of(place / "ledger")
    again = sweep(place)
    assert first.computed_blocks > 0
    assert again.computed_blocks == 0
    assert again.records == first.records
    assert bytes_of(place / "ledger") == before


def test_samples_hold_every_item(place: Path) -> None:
    record = sweep(place).records[1]
    rows = Ledger.open(place / "ledger").read_samples(record.cell_id)
    assert [row["item_id"] for row in rows] == [f"test-{i:03d}" for i in range(1, 6)]
    mean = sum(row["logit_diff_tok"] for row in rows) / 5
    assert record.tasks[TASK]["metrics"]["logit_diff_tok"] == pytest.approx(mean, abs=1e-12)


def test_prompts_and_data_are_named_by_hash(place: Path) -> None:
    swept = sweep(place)
    assert len({json.dumps([r.tasks[TASK]["prompt_hash"], r.tasks[TASK]["data_hash"]]) for r in swept.records}) == 1


@pytest.mark.slow
def test_killed_at_seeded_points_it_ends_with_the_same_bytes(place: Path) -> None:
    sweep(place, "whole")
    chance = random.Random(0)
    # Forked from a process that has imported torch and lm-eval: eleven imports would take most of the time.
    children = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if sys.platform != "win32":
        children.set_forkserver_preload([__name__])
    finished: set[str] = set()
    for _ in range(10):
        child = children.Process(target=sweep, args=(place, "killed"))
        child.start()
        blocks = place / "killed" / "blocks"
        wanted, deadline = len(finished) + 1, time.monotonic() + 60
        while child.is_alive() and len(list(blocks.glob("[!.]*.npz"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        child.kill()
        child.join()
        now = {path.name for path in blocks.glob("[!.]*.npz")}
        assert finished <= now, "a finished block was lost"
        finished = now
    sweep(place, "killed")
    assert bytes_of(place / "killed") == bytes_of(place / "whole")


def test_the_command(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("llama").save_pretrained(place / "model")
    tiny_tokenizer().save_pretrained(place / "model")
    command = [
        "sweep",
        "--pretrained",
        str(place / "model"),
        "--vector",
        str(place / "joy.safetensors"),
        "--layers",
        "2",
    ]
    command += ["--multipliers=-1:1:1", "--tasks", TASK, "--limit", "3", "--ledger", str(place / "cli"), "--json"]
    assert main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr()
    planned = json.loads(shown.out)
    assert [cell["labels"]["multiplier"] for cell in planned["cells"]] == [0.0, -1.0, 1.0]
    assert planned["estimate"]["minutes"] > 0
    assert not (place / "cli").exists()
    assert main(command) == 0
    shown = capsys.readouterr()
    records = json.loads(shown.out)
    assert [record["labels"]["multiplier"] for record in records] == [0.0, -1.0, 1.0]
    assert "%|" not in shown.err  # no bars of lm-eval, datasets or transformers
    assert "joy, layer 2, λ 1, after_prompt" in shown.err
    assert main(["status", str(place / "cli")]) == 0
