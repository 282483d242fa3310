"""Every YAML of damage, weddings, refusal and open_ended loads strictly and reports exactly the metrics it lists."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from lm_eval_steer.measured import LogProb
from lm_eval_steer.paths import tasks_dir

FAMILIES = {"damage": 1, "weddings": 3, "refusal": 6, "open_ended": 9}
FILES = sorted(path for family in FAMILIES for path in (tasks_dir() / family).glob("*.yaml"))
CONFIGS = {path: load_yaml(path, resolve_func=True) for path in FILES}
TASKS = {path: config for path, config in CONFIGS.items() if "group" not in config}
GROUPS = {path: config for path, config in CONFIGS.items() if "group" in config}


def name(path: Path) -> str:
    return path.stem


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskManager:
    """A task manager of these families alone, with a synthetic item for every CAA behaviour."""
    row = {
        "question": "Would you?\n\nChoices:\n (A) Yes\n (B) No",
        "answer_matching_behavior": "(B)",
        "answer_not_matching_behavior": "(A)",
    }
    for config in TASKS.values():
        if behaviour := config.get("dataset_kwargs", {}).get("behaviour"):
            path = tmp_path / "test" / behaviour / "test_dataset_ab.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps([row]))
    monkeypatch.setenv("CAA_DATA_DIR", str(tmp_path))
    return TaskManager(include_path=[str(tasks_dir() / family) for family in FAMILIES], include_defaults=False)


def test_every_file_is_indexed(manager: TaskManager) -> None:
    assert set(manager.all_tasks) == {name(path) for path in FILES}
    assert all(config.get("group", config.get("task")) == name(path) for path, config in CONFIGS.items())
    assert {family: sum(path.parent.name == family for path in FILES) for family in FAMILIES} == FAMILIES


def answers(config: dict[str, Any], doc: dict[str, Any]) -> list[Any]:
    if config["output_type"] == "generate_until":
        return ["I cannot say."]
    log_prob = functools.partial(LogProb, kl=0.5) if config["metadata"].get("kl") else float
    return [(log_prob(-3.0 - index), False) for index in range(len(doc[config["doc_to_choice"]]))]


@pytest.mark.filterwarnings("ignore:.*has sha256:UserWarning")
@pytest.mark.parametrize("path", TASKS, ids=name)
def test_task_loads_and_scores_what_it_lists(path: Path, manager: TaskManager) -> None:
    config, task = TASKS[path], manager.load([name(path)])["tasks"][name(path)]
    doc = dict(task.eval_docs[0])
    scores = config["process_results"]({**doc, "answer_tokens": [7]}, answers(config, doc))
    assert set(scores) == {entry["metric"] for entry in config["metric_list"]} == set(task.aggregation())
    assert set(task.higher_is_better()) == set(scores)
    assert (1.1 if name(path) == "damage" else 1.0) == task.VERSION
    ids = [(each["item_id"], each["order"]) for each in task.eval_docs]
    assert len(set(ids)) == len(ids)
    assert all(each["n_orders"] == 1 and len(each["data_sha256"]) == 64 for each in task.eval_docs)


@pytest.mark.filterwarnings("ignore:.*has sha256:UserWarning")
@pytest.mark.parametrize("path", GROUPS, ids=name)
def test_groups_hold_what_belongs_to_them(path: Path, manager: TaskManager) -> None:
    prefix, _, suffix = name(path).rpartition("_") if name(path) == "caa_open" else (name(path), "", "")
    members = {name(each) for each in TASKS if name(each).startswith(prefix + "_") and name(each).endswith(suffix)}
    assert set(manager.load([name(path)])["tasks"]) == members
    assert len(members) == (7 if name(path) == "caa_open" else 2)


def test_no_name_is_upstreams() -> None:
    pattern = re.compile(r"^(?:task|group|tag): *[\"']?([\w.-]+)", re.MULTILINE)
    upstream = {
        found
        for path in (Path(lm_eval.__file__).parent / "tasks").rglob("*.yaml")
        for found in pattern.findall(path.read_text("utf-8", errors="replace"))
    }
    assert len(upstream) > 1000
    assert not {name(path) for path in FILES} & upstream
