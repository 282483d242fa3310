"""lm-eval's own TruthfulQA, MMLU and ethics tasks under steering, their YAML as it stands with stub rows for data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from lm_eval_steer.evaluation import evaluate_plan, steered
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.plan import SteeringPlan
from tests.steer_tools import direction, placement, plan
from tests.tiny_models import WIDTH, build, tiny_tokenizer

UPSTREAM = Path(lm_eval.__file__).parent / "tasks"
N = 4

TRUTHFUL = [
    {
        "question": f"What happens if one counts to {i}?",
        "mc1_targets": {"choices": ["Nothing in particular", "The lights go out"], "labels": [1, 0]},
        "mc2_targets": {"choices": ["Nothing", "One has counted", "The lights go out"], "labels": [1, 1, 0]},
    }
    for i in range(N)
]
MMLU = [{"question": f"What is {i} + 1?", "choices": [str(i + j) for j in range(4)], "answer": 1} for i in range(N)]
ETHICS = [
    {
        "input": f"I returned the {i} coins that I had found.",
        "scenario": f"I owe you {i} coins.",
        "excuse": "But I paid you yesterday. ",
        "trait": "honest",
        "activity": f"I found {i} coins.",
        "baseline": f"I lost {i} coins.",
        "label": i % 2,
    }
    for i in range(N)
]

#: Task, its file upstream, its splits, its rows.
TASKS: list[tuple[str, str, tuple[str, ...], list[dict[str, Any]]]] = [
    ("truthfulqa_mc1", "truthfulqa/truthfulqa_mc1.yaml", ("validation",), TRUTHFUL),
    ("truthfulqa_mc2", "truthfulqa/truthfulqa_mc2.yaml", ("validation",), TRUTHFUL),
    ("mmlu_anatomy", "mmlu/default/mmlu_anatomy.yaml", ("test", "dev"), MMLU),
    ("ethics_cm", "hendrycks_ethics/commonsense.yaml", ("train", "test"), ETHICS),
    ("ethics_justice", "hendrycks_ethics/justice.yaml", ("train", "test"), ETHICS),
    ("ethics_deontology", "hendrycks_ethics/deontology.yaml", ("train", "test"), ETHICS),
    ("ethics_virtue", "hendrycks_ethics/virtue.yaml", ("train", "test"), ETHICS),
    ("ethics_utilitarianism", "hendrycks_ethics/utilitarianism.yaml", ("train", "test"), ETHICS),
]


@pytest.fixture(scope="module")
def model() -> tuple[Any, Any]:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 2048
    return build("llama", max_position_embeddings=2048), tokenizer


def load(folder: Path, name: str, file: str, splits: tuple[str, ...], rows: list[dict[str, Any]]) -> Any:
    """Load a task of lm-eval's with its own YAML, the data set alone replaced."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    override = {
        "include": str(UPSTREAM / file),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: str(folder / "rows.jsonl") for split in splits},
            "cache_dir": str(folder / "cache"),
        },
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(override))
    loaded = TaskManager(include_path=str(folder), include_defaults=False).load([name])
    loaded["tasks"][name].set_config(key="num_fewshot", value=1 if name.startswith("mmlu") else 0)
    return loaded


def answers(lm: Any, tasks: Any, name: str) -> tuple[list[float], float]:
    """All log-probabilities of a run, and the task's accuracy."""
    results = evaluate_plan(lm, tasks)
    values = [float(answer[0][0]) for row in results["samples"][name] for answer in row["resps"]]
    assert len(results["samples"][name]) == N
    return values, results["results"][name]["acc,none"]


def assert_steers(tasks: Any, name: str, model: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsteered is plain ``hf`` to the last bit; steered is another model with numbers; unsteered again is the same."""
    point = Hookpoint(Site.BLOCK_OUT, 1)
    wanted = plan(placement(point, direction(3, norm=8.0, width=WIDTH), scope="after_prompt"))
    plain = HFLM(model[0], tokenizer=model[1], batch_size=8)
    monkeypatch.setattr(plain, "steering", _Nothing(), raising=False)
    expected = answers(plain, tasks, name)
    found = {}
    for label, each in (("before", SteeringPlan()), ("steered", wanted), ("after", SteeringPlan())):
        with steered(*model, each) as lm:
            found[label] = answers(lm, tasks, name)
    assert found["before"] == found["after"] == expected
    moved = [abs(a - b) for a, b in zip(found["steered"][0], expected[0], strict=True)]
    assert min(moved) > 1e-4
    assert all(math.isfinite(value) for value in found["steered"][0])
    assert 0.0 <= found["steered"][1] <= 1.0


@pytest.mark.parametrize(("name", "file", "splits", "rows"), TASKS, ids=[task[0] for task in TASKS])
def test_a_task_of_lm_evals_runs_steered_and_unsteered(
    name: str,
    file: str,
    splits: tuple[str, ...],
    rows: list[dict[str, Any]],
    model: tuple[Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert_steers(load(tmp_path, name, file, splits, rows), name, model, monkeypatch)


class _Nothing:
    """Stands for the handle of plain ``hf``, which has none."""

    def check_touched(self) -> None:
        """Nothing to check."""
