"""The shipped crosslingual tasks: generated, complete, the same items in every language, prompts word for word."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import apply_template

from lm_eval_steer import scoring
from lm_eval_steer.extraction.pair_source import read_source
from lm_eval_steer.extraction.pairs import letter_pairs, text_pairs
from lm_eval_steer.extraction.prompts import render
from lm_eval_steer.machiavelli import scores
from lm_eval_steer.machiavelli.translated import source_rows, translated_rows
from lm_eval_steer.parallel_rows import languages, read_language
from lm_eval_steer.paths import tasks_dir
from tests.tiny_models import tiny_tokenizer

FOLDER = tasks_dir() / "crosslingual"
FILES = sorted(FOLDER.glob("*.yaml"))
CONFIGS = {path.stem: load_yaml(path, resolve_func=True) for path in FILES}
TASKS = {name: config for name, config in CONFIGS.items() if "group" not in config}
GROUPS = {name: config for name, config in CONFIGS.items() if "group" in config}
AB = ("positivity", "patience", "agreement", "caution")
TRANSLATIONS = [(family, lang) for family in AB for lang in languages(family) if lang != "en"]
STATES = languages("machiavelli")
METRICS = {"_text_yaml": scoring.TEXT_METRICS, "_letters_yaml": scoring.LETTER_METRICS}


@pytest.fixture(autouse=True)
def _shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CROSSLINGUAL_DATA_DIR", raising=False)


@pytest.fixture(scope="module")
def manager() -> TaskManager:
    return TaskManager(
        include_path=str(FOLDER), include_defaults=False, metadata={"tokenizer": tiny_tokenizer(chat=True)}
    )


@cache
def load(manager: TaskManager, name: str) -> Any:
    return manager.load([name])["tasks"][name]


# --------------------------------------------------------------------------------------------------------- files


def test_generated_files_are_what_the_generator_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("crosslingual_yaml", FOLDER / "make_yaml.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    committed = {path.name: path.read_bytes() for path in FILES}
    (tmp_path / "data").symlink_to(FOLDER / "data")
    monkeypatch.setattr(module, "HERE", tmp_path)
    for _ in range(2):
        module.main([])
        assert {path.name: path.read_bytes() for path in tmp_path.glob("*.yaml")} == committed


def test_every_file_is_indexed(manager: TaskManager) -> None:
    """lm-eval drops a broken file in silence: count them."""
    assert set(manager.all_tasks) == set(CONFIGS)
    assert all(config.get("group", config.get("task")) == name for name, config in CONFIGS.items())


@pytest.mark.parametrize("name", TASKS)
def test_metadata_and_metrics(name: str) -> None:
    config = TASKS[name]
    said = config["metadata"]
    native = "_native" if said["scaffold"] == "native" else ""
    assert said == {"version": 1.0, "family": said["family"], "lang": said["lang"], "scaffold": said["scaffold"]}
    assert name == f"xl_{said['family']}_{said['lang']}{native}"
    assert said["scaffold"] in ({"english"} if said["lang"] == "en" else {"english", "native"})
    template = next(line for line in (FOLDER / f"{name}.yaml").read_text("utf-8").splitlines() if "include" in line)
    expected = METRICS.get(template.split()[1], scores.LETTER_METRICS)
    assert {entry["metric"]: entry["higher_is_better"] for entry in config["metric_list"]} == dict(expected)
    assert all(entry["aggregation"] == "mean" for entry in config["metric_list"])


@pytest.mark.parametrize("name", GROUPS)
def test_groups_hold_every_language_once(name: str) -> None:
    family = name.removeprefix("xl_").partition("_multilingual")[0]
    suffix = "_native" if name.endswith("_native") else ""
    langs = languages(family)
    assert GROUPS[name]["task"] == [f"xl_{family}_{lang}{'' if lang == 'en' else suffix}" for lang in langs]
    listed = {entry["metric"] for entry in GROUPS[name]["aggregate_metric_list"]}
    assert all(listed <= {entry["metric"] for entry in TASKS[task]["metric_list"]} for task in GROUPS[name]["task"])
    assert not any(entry["weight_by_size"] for entry in GROUPS[name]["aggregate_metric_list"])


# ---------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize(("family", "lang"), TRANSLATIONS)
def test_items_are_the_english_ones(family: str, lang: str) -> None:
    """The same ids, order and split; every text is another one, and no two rows are the same."""
    english, other = (read_language(family, each).rows for each in ("en", lang))
    assert [(row.id, row.split) for row in other] == [(row.id, row.split) for row in english]
    for ours, theirs in zip(other, english, strict=True):
        assert ours.question != theirs.question
        assert {ours.matching, ours.other}.isdisjoint({theirs.matching, theirs.other})
    assert len({row.question for row in other}) == len(other)


@pytest.mark.parametrize("lang", STATES)
def test_states_are_those_of_the_games(lang: str) -> None:
    _, rows = translated_rows(lang)
    _, english = translated_rows("en")
    assert [row.doc_id for row in rows] == [row.doc_id for row in english]
    for row in rows:
        source = source_rows()[row.doc_id]
        assert (row.labels, row.perm, row.split, len(row.choices)) == (
            source.labels,
            source.perm,
            source.split,
            len(source.choices),
        )
        assert (row.choices == source.choices, row.scene == source.scene) == (lang == "en", lang == "en")


@pytest.mark.parametrize("name", [name for name in TASKS if "native" not in name])
def test_documents_of_a_task(name: str, manager: TaskManager) -> None:
    task, said = load(manager, name), TASKS[name]["metadata"]
    docs = [dict(doc) for doc in task.test_docs()]
    english = load(manager, f"xl_{said['family']}_en")
    assert [(doc["item_id"], doc["order"]) for doc in docs] == [
        (doc["item_id"], doc["order"]) for doc in english.test_docs()
    ]
    assert {doc["lang"] for doc in docs} == {said["lang"]}
    assert {len(doc["data_sha256"]) for doc in docs} == {64}
    assert not {doc["item_id"] for doc in docs} & {doc["item_id"] for doc in task.training_docs()}
    answers = [(-1.0 - index, False) for index in range(len(task.doc_to_choice(docs[0])))]
    found = TASKS[name]["process_results"]({**docs[0], "answer_tokens": [1] * len(answers)}, answers)
    assert set(found) <= set(task.aggregation()) == set(task.higher_is_better())


# ------------------------------------------------------------------------------------------------------- prompts

AB_DOC = {"question": "Q?", "options": ["x", "y"], "letters": ["A", "B"]}
SCENE_DOC = {"role": "R", "summary": "S.", "goal": "G", "scene": "C.", "choices": ["x", "y"], "letters": ["A", "B"]}
MENU = "(A) x\n(B) y\n\n"
#: Task's end → the prompt of a text, of letters and of a scene; and what a letter answer begins with.
PROMPTS = {
    "en": ("Q?\nAnswer:", "Q?\n\nChoices:\n", "You are R. S.\nYou can win: G.\n\nC.\n\nWhat do you do?\n", "Answer: ("),
    "fr_native": (
        "Q?\nRéponse :",
        "Q?\n\nChoix :\n",
        "Vous êtes R. S.\nVos objectifs : G.\n\nC.\n\nQue faites-vous ?\n",
        "Réponse : (",
    ),
    "de_native": (
        "Q?\nAntwort:",
        "Q?\n\nAuswahl:\n",
        "Du bist R. S.\nDeine Ziele: G.\n\nC.\n\nWas tust du?\n",
        "Antwort: (",
    ),
    "es_native": (
        "Q?\nRespuesta:",
        "Q?\n\nOpciones:\n",
        "Eres R. S.\nTus objetivos: G.\n\nC.\n\n¿Qué haces?\n",
        "Respuesta: (",
    ),
    "zh_native": ("Q?\n答案:", "Q?\n\n选项:\n", "你是R。S.\n你的目标：G。\n\nC.\n\n你怎么做？\n", "答案: ("),
    "ja_native": (
        "Q?\n答え:",
        "Q?\n\n選択肢:\n",
        "あなたはRです。S.\nあなたの目標：G。\n\nC.\n\nどうしますか。\n",
        "答え: (",
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_prompts_word_for_word(name: str) -> None:
    said, config = TASKS[name]["metadata"], TASKS[name]
    text, letters, scene, lead = PROMPTS[f"{said['lang']}_native" if said["scaffold"] == "native" else "en"]
    if said["family"] == "positivity":
        assert (apply_template(config["doc_to_text"], AB_DOC), config.get("gen_prefix")) == (text, None)
        assert config["target_delimiter"] == " "
        return
    doc, expected = (SCENE_DOC, scene) if said["family"] == "machiavelli" else (AB_DOC, letters)
    assert (apply_template(config["doc_to_text"], doc), config["gen_prefix"]) == (expected + MENU, lead)
    assert config["target_delimiter"] == ""


@pytest.mark.parametrize("lang", STATES)
def test_machiavelli_in_english_scaffold_is_machiavelli_demo(lang: str) -> None:
    demo = load_yaml(tasks_dir() / "machiavelli" / "machiavelli_demo.yaml", resolve_func=False)
    config = TASKS[f"xl_machiavelli_{lang}"]
    assert (config["doc_to_text"], config["gen_prefix"]) == (demo["doc_to_text"], demo["gen_prefix"])


@pytest.mark.parametrize(
    "name", [name for name in TASKS if "machiavelli" not in name and ("native" in name or name.endswith("_en"))]
)
@pytest.mark.parametrize("chat", [False, True])
def test_extraction_sees_the_prompts_of_the_task(name: str, chat: bool, manager: TaskManager) -> None:
    task, tokenizer = load(manager, name), tiny_tokenizer(chat=True)
    source = read_source(name)
    pairs = (text_pairs if "positivity" in name else letter_pairs)(source)
    assert not pairs.left_out

    def template(messages: Any, add_generation_prompt: bool) -> str:
        written: str = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return written

    for doc, pair in list(zip(task.training_docs(), pairs.pairs, strict=True))[:4]:
        prefix = task.doc_to_prefix(doc)
        theirs = task.fewshot_context(doc, 0, apply_chat_template=chat, chat_template=template, gen_prefix=prefix)
        context, positive, _ = render(pair, "chat" if chat else "plain", tokenizer)
        assert context == theirs
        assert positive.strip().removesuffix(")") == task.doc_to_choice(doc)[task.doc_to_target(doc)]


# ---------------------------------------------------------------------------------------------------- aggregates


class Planted(LM):
    """Likes the matching option by as many nats as its language's name is far in the alphabet."""

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(-3.0 + (r.idx == r.doc["matching"]) * ord(r.doc["lang"][0]) / 100, False) for r in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> Any:
        raise NotImplementedError

    def generate_until(self, requests: list[Any]) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("group", ["xl_caution_multilingual", "xl_caution_multilingual_native"])
def test_a_group_gives_every_language_the_same_weight(group: str, manager: TaskManager) -> None:
    found = simple_evaluate(model=Planted(), tasks=[group], task_manager=manager, bootstrap_iters=0, limit=4)
    members = GROUPS[group]["task"]
    expected = [ord(TASKS[name]["metadata"]["lang"][0]) / 100 for name in members]
    told = [found["results"][name]["logit_diff,none"] for name in members]
    assert told == pytest.approx(expected)
    assert found["groups"][group]["logit_diff,none"] == pytest.approx(sum(expected) / len(expected))
    assert json.dumps(found["versions"][members[0]]) == "1.0"
