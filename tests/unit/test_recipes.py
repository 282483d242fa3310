"""The recipes: spec files that load, commands that parse, files that are there, and data that keep their rules."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lm_eval_steer.cli.main import build_parser
from lm_eval_steer.extraction.pair_source import read_source
from lm_eval_steer.extraction.prompt_sets import read_prompt_sets
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.store import manifest
from lm_eval_steer.sweep.spec import SweepSpec
from tests.unit import test_docs as docs
from tests.unit.test_french import UTILS

FOLDER = docs.ROOT / "docs" / "recipes"
PAGES = sorted(FOLDER.glob("*.md"))
STUDIES = [page.stem for page in PAGES if page.stem != "index"]
BY_NAME = [pytest.param(page, id=page.stem) for page in PAGES]


def ours(page: Path) -> Iterator[list[str]]:
    """The commands of ``lm-eval-steer`` on a page, without the program's name."""
    return (words[1:] for words in docs.commands(page) if words[0] == "lm-eval-steer" and len(words) > 2)


def parsed(page: Path) -> list[argparse.Namespace]:
    return [build_parser().parse_args(words) for words in ours(page)]


def test_every_study_has_a_page_and_a_spec_and_is_in_the_index() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(STUDIES)
    assert set(docs.LINK.findall((FOLDER / "index.md").read_text(encoding="utf-8"))) >= {f"{s}.md" for s in STUDIES}
    assert "recipes/index.md" in docs.LINK.findall((docs.DOCS / "index.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", BY_NAME)
def test_links_and_pictures_are_there_and_no_place_of_a_machine(page: Path) -> None:
    docs.test_every_relative_link_resolves(page)
    docs.test_no_page_names_a_place_of_the_machine_it_was_written_on(page)
    docs.test_every_option_named_in_the_text_exists(page)


@pytest.mark.parametrize("page", BY_NAME)
def test_every_command_parses(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ours(page):
        try:
            build_parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{words}: {capsys.readouterr().err}")


@pytest.mark.parametrize("study", STUDIES)
def test_the_spec_loads_and_its_vectors_and_tasks_are_there(study: str) -> None:
    spec = SweepSpec.from_file(FOLDER / f"{study}.yaml")
    calls = parsed(FOLDER / f"{study}.md")
    assert any(getattr(call, "spec", None) == f"{study}.yaml" for call in calls)
    written = {str(call.out) for call in calls if getattr(call, "out", None) is not None}
    named = {*spec.vectors, *(plan["vector"] for plan in spec.placements if "vector" in plan)}
    assert named <= written | set(manifest())
    folders = [tasks_dir(), *([spec.own_tasks] if spec.own_tasks else [])]
    text = "\n".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.yaml"))
    assert set(spec.tasks) <= set(re.findall(r"^(?:task|group): (\w+)$", text, re.MULTILINE))
    assert spec.nulls.startswith("random:")


@pytest.mark.parametrize("study", STUDIES)
def test_a_page_has_its_numbers_a_picture_and_what_was_published(study: str) -> None:
    text = (FOLDER / f"{study}.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert heads[0] == "The study"
    assert "Here" in heads
    assert re.search(r"^!\[[^\]]+\]\(figures/[\w.]+\)$", text, re.MULTILINE)
    assert re.search(r"^\|.*random", text, re.MULTILINE | re.IGNORECASE)


# ------------------------------------------------------------------------------------------------ data


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / "data" / name).read_text(encoding="utf-8").splitlines()]


def test_the_french_pairs_are_french_and_english() -> None:
    pairs = rows("french.jsonl")
    assert len(read_source(str(FOLDER / "data" / "french.jsonl")).items) == len(pairs) == 24
    assert all(UTILS.french_share(pair["positive"])[0] >= 0.2 for pair in pairs)
    assert all(UTILS.french_share(pair["negative"])[0] == 0.0 for pair in pairs)


def test_beliefs_differ_between_the_halves_and_no_answer_begins_with_yes_or_no() -> None:
    train, test = rows("beliefs_train.jsonl"), rows("beliefs_test.jsonl")
    questions = [row["question"] for row in (*train, *test)]
    assert len(set(questions)) == len(questions) == 48
    for row in (*train, *test):
        assert row["positive"] != row["negative"]
        assert not row["positive"].startswith(("Yes,", "No,"))
        assert not row["negative"].startswith(("Yes,", "No,"))


def test_no_request_is_one_that_the_refusal_task_asks() -> None:
    sets = read_prompt_sets(FOLDER / "data" / "harmful.txt", FOLDER / "data" / "harmless.txt", None)
    ours = {*sets.positive, *sets.negative}
    assert len(ours) == 48
    asked = "\n".join(path.read_text(encoding="utf-8") for path in (tasks_dir() / "refusal" / "data").glob("*.jsonl"))
    assert not [text for text in ours if text in asked]
