"""lm-eval's own tasks in several languages under steering, their YAML as it stands with stub rows for data."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_lm_eval_tasks import N, assert_steers, load, model

__all__ = ["model"]

MORAL = {
    "en": ("it is good to give back what one found.", "Ana found a purse.", "Ana wants to buy bread."),
    "fr": ("il est bon de rendre ce que l'on trouve.", "Ana a trouvé une bourse.", "Ana veut acheter du pain."),
}
ACTIONS = {
    "en": ("Ana brings the {} coins back.", "Ana keeps the {} coins."),
    "fr": ("Ana rapporte les {} pièces.", "Ana garde les {} pièces."),
}


def moral(lang: str) -> list[dict[str, Any]]:
    norm, situation, intention = MORAL[lang]
    good, bad = ACTIONS[lang]
    return [
        {
            "norm": norm,
            "situation": situation,
            "intention": intention,
            "moral_action": good.format(i),
            "immoral_action": bad.format(i),
        }
        for i in range(N)
    ]


def truthful(lang: str) -> list[dict[str, Any]]:
    question = {"en": "What happens if one counts to {}?", "es": "¿Qué pasa si se cuenta hasta {}?"}[lang]
    nothing, dark = {"en": ("Nothing", "The lights go out"), "es": ("Nada", "Se apagan las luces")}[lang]
    return [
        {
            "lang": lang,
            "question": question.format(i),
            "mc1_targets": {"choices": [nothing, dark], "labels": [1, 0]},
            "mc2_targets": {"choices": [nothing, f"{nothing}.", dark], "labels": [1, 1, 0]},
        }
        for i in range(N)
    ]


def entailment(premise: str, hypothesis: str) -> list[dict[str, Any]]:
    return [{"premise": premise.format(i), "hypothesis": hypothesis.format(i), "label": i % 3} for i in range(N)]


def reading(passage: str, question: str) -> list[dict[str, Any]]:
    options = {f"mc_answer{place}": f"{place + 1}" for place in range(1, 5)}
    return [
        {"flores_passage": passage.format(i), "question": question, "correct_answer_num": str(i % 4 + 1), **options}
        for i in range(N)
    ]


#: Task, its file upstream, its splits, its rows.
TASKS: list[tuple[str, str, tuple[str, ...], list[dict[str, Any]]]] = [
    ("moral_stories", "moral_stories/moral_stories.yaml", ("train",), moral("en")),
    ("histoires_morales", "histoires_morales/histoires_morales.yaml", ("train",), moral("fr")),
    (
        "truthfulqa-multi_mc1_es",
        "truthfulqa-multi/truthfulqa-multi_mc1_es.yaml",
        ("train", "validation"),
        truthful("es"),
    ),
    (
        "truthfulqa-multi_mc2_es",
        "truthfulqa-multi/truthfulqa-multi_mc2_es.yaml",
        ("train", "validation"),
        truthful("es"),
    ),
    ("xnli_zh", "xnli/xnli_zh.yaml", ("train", "validation"), entailment("桌上有{}个苹果", "有{}个苹果。")),
    (
        "belebele_fra_Latn",
        "belebele/belebele_fra_Latn.yaml",
        ("test",),
        reading("Il y a {} pommes sur la table.", "Combien de pommes y a-t-il ? "),
    ),
]


@pytest.mark.parametrize(
    ("name", "file", "splits", "rows"),
    [pytest.param(*task, id=task[0], marks=[pytest.mark.slow] * ("mc2" in task[0])) for task in TASKS],
)
def test_a_multilingual_task_of_lm_evals_runs_steered_and_unsteered(
    name: str,
    file: str,
    splits: tuple[str, ...],
    rows: list[dict[str, Any]],
    model: tuple[Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name.startswith("truthfulqa-multi_mc2") and importlib.util.find_spec("rouge_score") is None:
        pytest.skip("the task's own utils.py imports rouge_score; ends when it is installed")
    assert_steers(load(tmp_path, name, file, splits, rows), name, model, monkeypatch)
