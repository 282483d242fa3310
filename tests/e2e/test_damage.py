"""Damage in a sweep: its columns, and the perplexity ratio that other tasks' curves show; then texts to a judge."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lm_eval_steer.cli.main import main
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.stats.analysis import curves
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.run import run_sweep
from lm_eval_steer.sweep.spec import SweepSpec
from tests.conftest import random_vector
from tests.tiny_models import WIDTH, build, tiny_tokenizer

pytestmark = pytest.mark.slow

N = 12


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A sweep of two multipliers of one vector over a score, neutral text and a generation."""
    folder = tmp_path_factory.mktemp("sweep")
    save_vector(random_vector(WIDTH, 4, name="joy"), folder / "joy.safetensors")
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 2048
    spec = SweepSpec.from_dict(
        {
            "vectors": str(folder / "joy.safetensors"),
            "layers": "2",
            "multipliers": "-1,1",
            "tasks": ["control_positivity", "control_positivity_open", "damage"],
            "limit": N,
            "batch_size": 4,
        }
    )
    made = Ledger.open(folder / "ledger")
    run_sweep(build("llama", max_position_embeddings=2048), tokenizer, spec, made, model_id="tiny")
    return made


def texts(ledger: Ledger) -> dict[float, dict[str, dict[str, Any]]]:
    """The rows of damage, by multiplier and item."""
    found = {}
    for record in ledger.read_cells():
        rows = [row for row in ledger.read_samples(record.cell_id) if row["task"] == "damage"]
        found[float(record.labels.get("multiplier") or 0.0)] = {row["item_id"]: row for row in rows}
    return found


def test_a_row_has_what_the_statistics_read(ledger: Ledger) -> None:
    by_multiplier = texts(ledger)
    assert set(by_multiplier) == {-1.0, 0.0, 1.0}
    for rows in by_multiplier.values():
        assert sorted(rows) == [f"damage-{i:03d}" for i in range(1, N + 1)]
        assert all(row["nll"] > 0 and row["tokens"] > 60 for row in rows.values())
        assert {i: row["tokens"] for i, row in rows.items()} == {i: r["tokens"] for i, r in by_multiplier[0.0].items()}


def test_the_record_has_the_perplexity_of_all_texts(ledger: Ledger) -> None:
    for record in ledger.read_cells():
        rows = [row for row in ledger.read_samples(record.cell_id) if row["task"] == "damage"]
        expected = math.exp(sum(row["nll"] for row in rows) / sum(row["tokens"] for row in rows))
        assert record.tasks["damage"]["metrics"]["token_perplexity"] == pytest.approx(expected)


def test_other_curves_show_the_ratio_of_perplexities(ledger: Ledger) -> None:
    by_multiplier = texts(ledger)
    tokens = sum(row["tokens"] for row in by_multiplier[0.0].values())
    checked = 0
    for curve in curves([ledger]):
        if curve.task == "control_positivity_open":
            continue
        for point in curve.points:
            if point.multiplier == 0.0:
                continue
            rise = sum(by_multiplier[point.multiplier][i]["nll"] - r["nll"] for i, r in by_multiplier[0.0].items())
            assert point.perplexity_ratio is not None
            assert point.perplexity_ratio.value == pytest.approx(math.exp(rise / tokens), rel=1e-9)
            assert point.perplexity_ratio.value != pytest.approx(1.0, abs=1e-4)
            kl = sum(row["kl"] for row in by_multiplier[point.multiplier].values())
            assert point.kl is not None
            assert point.kl.value == pytest.approx(kl / tokens, rel=1e-9)
            assert (point.kl.value or 0.0) > 0
            checked += 1
    assert checked == 4


def test_the_unsteered_cell_has_exactly_no_kl_and_the_record_the_mean(ledger: Ledger) -> None:
    by_multiplier = texts(ledger)
    assert {row["kl"] for row in by_multiplier[0.0].values()} == {0.0}
    for record in ledger.read_cells():
        rows = by_multiplier[float(record.labels.get("multiplier") or 0.0)].values()
        expected = sum(row["kl"] for row in rows) / sum(row["tokens"] for row in rows)
        assert record.tasks["damage"]["metrics"]["token_kl"] == pytest.approx(expected)


def test_the_table_has_the_ratio_and_the_kl(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(ledger.path), "--format", "md"]) == 0
    told = capsys.readouterr().out
    assert "ppl ratio" in told
    assert "| KL |" in told


def test_texts_go_to_a_judge_and_come_back(ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, scores, judged = tmp_path / "texts.jsonl", tmp_path / "scores.jsonl", tmp_path / "judged"
    task = ["--task", "control_positivity_open"]
    assert main(["judge", "export", str(ledger.path), *task, "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert N < len(rows) <= 3 * N
    assert all(row["prompt"].endswith("\nAnswer:") for row in rows)
    answers = [{"id": row["id"], "score": f"Score: {len(row['response']) % 11}"} for row in rows]
    spoiled = next(row for row in rows if row["item"] == "test-003")
    answers = [row | {"score": "unsure"} if row["id"] == spoiled["id"] else row for row in answers]
    scores.write_text("".join(json.dumps(row) + "\n" for row in answers), encoding="utf-8")
    capsys.readouterr()
    rest = ["--scores", str(scores), "--judge", "length", "--out", str(judged), "--json"]
    assert main(["judge", "import", str(ledger.path), *task, *rest]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["cells"], told["items"], told["unparseable"], told["missing"]) == (3, N - 1, 1, 0)
    assert told["left_out"] == ["test-003"]
    (curve,) = curves([Ledger.open(judged, create=False)])
    assert (curve.metric, len(curve.items)) == ("judge_score", N - 1)
    assert main(["compare", str(judged)]) == 0
    assert main(["judge", "import", str(ledger.path), *task, *rest]) == 2


@pytest.mark.parametrize(
    "options",
    [
        ["export", "--scores", "x"],
        ["import", "--where", "layer=1"],
        ["import", "--judge", "a"],
        ["import", "--scores", "x", "--judge", "a", "--scale", "ten"],
    ],
)
def test_options_of_the_other_step_are_refused(options: list[str], ledger: Ledger, tmp_path: Path) -> None:
    step, *rest = options
    command = ["judge", step, str(ledger.path), "--task", "control_positivity_open", "--out", str(tmp_path / "o")]
    assert main([*command, *rest]) == 2
