"""french_share: which words count as French, what the prompts are, and that the task loads."""

from __future__ import annotations

import importlib.util
import json
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.tasks import TaskManager

from lm_eval_steer.errors import DataError
from lm_eval_steer.paths import tasks_dir

FOLDER = tasks_dir() / "french"
PROMPTS = [json.loads(line) for line in (FOLDER / "data" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("french_utils", FOLDER / "utils.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


UTILS = load()


@pytest.mark.parametrize(
    ("text", "french", "words"),
    [
        ("Le chat dort dans la maison.", 3, 6),
        ("L'eau est froide, et qu'il pleuve !", 4 + 1, 8),
        ("l’école", 1, 2),
        ("Aujourd'hui", 1, 1),
        ("I don't know; it's he'd we'll I'm o'clock", 0, 8),
        ("The UN met on a plane; an AI car plus pour comment", 0, 12),
        ("1, 2, 3 ... _", 0, 0),
        ("", 0, 0),
    ],
)
def test_what_counts(text: str, french: int, words: int) -> None:
    assert UTILS.french_share(text) == (french / words if words else 0.0, words)


@given(st.text())
def test_the_share_is_a_share(text: str) -> None:
    share, words = UTILS.french_share(text)
    assert 0.0 <= share <= 1.0
    assert words >= 0


def test_the_prompts_are_english_and_differ() -> None:
    assert [row["id"] for row in PROMPTS] == [f"prompt-{n:02d}" for n in range(1, 21)]
    assert len({row["question"] for row in PROMPTS}) == 20
    assert all(row["question"].isascii() and UTILS.french_share(row["question"])[0] == 0.0 for row in PROMPTS)


def test_the_task_loads_and_scores() -> None:
    manager = TaskManager(include_path=str(FOLDER), include_defaults=False)
    task: Any = manager.load(["french_share"])["tasks"]["french_share"]
    doc = list(task.eval_docs)[2]
    assert task.doc_to_text(doc) == PROMPTS[2]["question"]
    assert task.process_results(doc, ["Je ne sais pas."]) == {"french_share": 0.75, "words": 4.0}
    with pytest.raises(DataError, match="one text"):
        task.process_results(doc, [])
