"""The samples of a sweep's evaluations against those that lm-eval logs itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lm_eval_steer.evaluation import evaluate_plan, load_tasks, steered
from lm_eval_steer.sample_log import SampleLog
from lm_eval_steer.sweep.requests import reuse_requests
from tests.conftest import random_vector
from tests.steered import make_plan
from tests.tiny_models import WIDTH, build, tiny_tokenizer
from tests.toy_tasks import CODE

COMMON = """
custom_dataset: !function toy.load
test_split: test
fewshot_split: train
doc_to_text: "{{question}}"
metadata: {version: 1.0}
"""
TASKS = {
    "log_choice": "output_type: multiple_choice\ndoc_to_choice: [yes indeed, 'no']\ndoc_to_target: label\n"
    "metric_list: [{metric: acc}, {metric: acc_norm}]\n",
    "log_rolling": "output_type: loglikelihood_rolling\ndoc_to_target: '{{question}}'\n"
    "metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]\n",
    "log_text": "output_type: generate_until\ndoc_to_target: 'x'\n"
    "generation_kwargs: {until: ['zzz'], max_gen_toks: 4}\n"
    "filter_list:\n  - {name: whole, filter: [{function: take_first}]}\n"
    "  - {name: lower, filter: [{function: lowercase}, {function: take_first}]}\n"
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
    "log_changes": "output_type: multiple_choice\ndoc_to_choice: ['a', 'b']\ndoc_to_target: label\n"
    "process_results: !function toy.change\nmetric_list: [{metric: seen, aggregation: mean, higher_is_better: true}]\n",
}
CHANGE = """
told = {}

def change(doc, results):
    doc["seen"] = doc.get("seen", 0) + 1
    doc["label"] = 1
    told["seen"] = doc["seen"]
    return told
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy.py").write_text(CODE + CHANGE)
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\n{text}{COMMON}")
    return tmp_path


def loaded(folder: Path, names: list[str], *, reuse: bool) -> Any:
    tasks = load_tasks(names, tiny_tokenizer(), include_path=folder)
    for task in tasks["tasks"].values():
        if reuse:
            reuse_requests(task)
    return tasks


@pytest.mark.parametrize(
    "options", [{}, {"limit": 3}, {"samples": {name: [7, 2, 5] for name in TASKS}}], ids=["all", "limit", "samples"]
)
def test_samples_are_those_of_lm_eval(folder: Path, options: dict[str, Any]) -> None:
    names = list(TASKS)
    again, fresh = loaded(folder, names, reuse=True), loaded(folder, names, reuse=False)
    assert all(isinstance(task.sample_log, SampleLog) for task in again["tasks"].values())
    for multiplier in (0.0, 2.0, -3.0):  # the first makes what the others take over
        plan = make_plan(random_vector(WIDTH, 4), 1, scope="all", multiplier=multiplier)
        with steered(build("llama"), tiny_tokenizer(), plan) as lm:
            ours, theirs = (evaluate_plan(lm, tasks, **options) for tasks in (again, fresh))
        assert ours["samples"] == theirs["samples"]
        assert [sorted(row) for row in ours["samples"]["log_text"]] == [
            sorted(row) for row in theirs["samples"]["log_text"]
        ]
        assert ours["results"] == theirs["results"]
        assert {row["filter"] for row in ours["samples"]["log_text"]} == {"whole", "lower"}


def test_the_draw_the_chat_template_and_a_part_of_the_tasks_make_other_samples(folder: Path) -> None:
    words = tiny_tokenizer(chat=True)
    again, fresh = (load_tasks(["log_choice", "log_text"], words, include_path=folder, num_fewshot=2) for _ in "ab")
    for task in again["tasks"].values():
        reuse_requests(task)
    with steered(build("llama"), words, make_plan(random_vector(WIDTH, 4), 1)) as lm:
        for options in ({"seed": 1}, {"seed": 2}, {"chat": True}, {"seed": 1}, {"samples": {"log_choice": [3]}}):
            ours, theirs = (evaluate_plan(lm, tasks, **{"limit": None, **options}) for tasks in (again, fresh))
            assert ours["samples"] == theirs["samples"], options


def test_where_one_task_has_a_bypass_metric_lm_eval_logs_all(folder: Path) -> None:
    (folder / "log_bypass.yaml").write_text(
        "task: log_bypass\noutput_type: multiple_choice\ndoc_to_choice: ['a', 'b']\ndoc_to_target: label\n"
        f"metric_list: [{{metric: bypass}}]\n{COMMON}"
    )
    names = ["log_choice", "log_bypass"]
    tasks = loaded(folder, names, reuse=True)
    with steered(build("llama"), tiny_tokenizer(), make_plan(random_vector(WIDTH, 4), 1)) as lm:
        evaluate_plan(lm, tasks, limit=2)
        ours, theirs = (evaluate_plan(lm, each, limit=2) for each in (tasks, loaded(folder, names, reuse=False)))
    assert ours["samples"] == theirs["samples"]
    assert [len(task.sample_log._scored) for task in tasks["tasks"].values()] == [2, 2], "notes of an earlier cell"
