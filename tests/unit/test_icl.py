"""Word pairs, in-context prompts and the icl tasks: data rules, shuffled labels, first tokens, scores."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from lm_eval_steer.errors import DataError, NonFiniteError
from lm_eval_steer.extraction import icl
from lm_eval_steer.extraction.icl import WordPair, demonstrations, first_token, icl_prompts, read_word_pairs
from lm_eval_steer.paths import tasks_dir
from tests.tiny_models import build, tiny_tokenizer

FOLDER = tasks_dir() / "icl"
VARIANTS = ("", "_10shot", "_10shot_shuffled")
NAMES = [f"icl_{words}{variant}" for words in icl.WORD_TASKS for variant in VARIANTS]
METRICS = {"first_logprob", "top1", "pool_top1", "pool_top5"}
PAIRS = tuple(WordPair(str(n), f"in{n}", f"out{n}") for n in range(14))


def config(name: str) -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = load_yaml(FOLDER / f"{name}.yaml", resolve_func=True)
    return loaded


# ------------------------------------------------------------------------------------------------ data


@pytest.mark.parametrize("words", icl.WORD_TASKS)
def test_each_list_has_eighty_pairs_in_disjoint_halves_and_no_word_twice(words: str) -> None:
    halves = [read_word_pairs(words, split).pairs for split in icl.SPLITS]
    assert [len(half) for half in halves] == [40, 40]
    for split, half in zip(icl.SPLITS, halves, strict=True):
        assert [pair.id for pair in half] == [f"{split}-{number:02d}" for number in range(1, 41)]
    every = [word for half in halves for pair in half for word in (pair.input, pair.output)]
    assert len({word.lower() for word in every}) == len(every) == 160
    assert all(word.isascii() and word.replace(" ", "").isalpha() for word in every)


# Inputs for which another answer would be as right, and why they are not in the lists.
AMBIGUOUS = {
    "country_capital": {"Bolivia", "South Africa", "Netherlands", "Israel", "Sri Lanka", "Benin", "Georgia", "India"},
    "capital_country": {"Georgetown", "Victoria", "San Jose", "Kingstown"},
    "present_past": {"learn", "dream", "burn", "hang", "lie", "lay", "wind", "read", "cut", "put", "wake", "shine"},
    "singular_plural": {"person", "fish", "sheep", "deer", "fungus", "index", "cactus", "hoof", "roof", "scarf"},
    "antonym": {"big", "light", "hard", "soft", "right", "new", "large", "start", "fair", "sweet", "small"},
}


@pytest.mark.parametrize("words", icl.WORD_TASKS)
def test_no_input_has_two_right_answers(words: str) -> None:
    inputs = {pair.input for split in icl.SPLITS for pair in read_word_pairs(words, split).pairs}
    assert not inputs & AMBIGUOUS[words]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"input": "a"}\n{"input": "b", "output": "c"}', "line 1"),
        ('{"input": "a", "output": "x"}\n{"input": "a", "output": "y"}', "twice"),
        ('{"input": "a", "output": " x"}\n{"input": "b", "output": "y"}', "blanks"),
        ("nothing", "line 1"),
    ],
)
def test_a_file_that_holds_no_pairs_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_word_pairs(str(path))


def test_an_unknown_name_is_told_the_names_there_are() -> None:
    with pytest.raises(DataError, match="country_capital"):
        read_word_pairs("country_capitals")


# ------------------------------------------------------------------------------------------------ prompts


def shown(text: str) -> dict[str, str]:
    """The pairs that demonstrations show."""
    turns = [turn.split("\n") for turn in text.split(icl.BETWEEN) if turn]
    return {question.removeprefix("Q: "): answer.removeprefix("A: ") for question, answer in turns}


@given(st.integers(2, 14), st.integers(0, 99), st.text(min_size=1, max_size=4))
def test_shuffled_labels_are_the_same_words_and_none_is_right(shots: int, seed: int, name: str) -> None:
    clean = shown(demonstrations(PAIRS, name, shots=shots, seed=seed))
    wrong = shown(demonstrations(PAIRS, name, shots=shots, seed=seed, shuffled=True))
    assert list(clean) == list(wrong)
    assert len(clean) == shots
    assert all(clean[word].removeprefix("out") == word.removeprefix("in") for word in clean)
    assert sorted(clean.values()) == sorted(wrong.values())
    assert all(clean[word] != wrong[word] for word in clean)


def test_prompts_are_the_same_in_every_process_and_never_show_what_they_ask() -> None:
    prompts = icl_prompts(PAIRS, shots=10)
    random.seed(1)
    assert icl_prompts(PAIRS, shots=10) == prompts
    for prompt, pair in zip(prompts, PAIRS, strict=True):
        assert prompt.context.endswith(f"\n\nQ: {pair.input}\nA:")
        assert f"Q: {pair.input}\n" not in prompt.context[: -len(f"Q: {pair.input}\nA:")]
        assert prompt.answer == f" {pair.output}"
    assert icl_prompts(PAIRS, shots=10, seed=1) != prompts
    assert icl_prompts(PAIRS, shots=0)[0].context == "Q: in0\nA:"


@pytest.mark.parametrize(("shots", "shuffled"), [(15, False), (-1, False), (1, True)])
def test_impossible_numbers_of_shots_are_refused(shots: int, shuffled: bool) -> None:
    with pytest.raises(DataError, match=f"{shots} shots"):
        demonstrations(PAIRS, "x", shots=shots, shuffled=shuffled)


@given(st.text("the foxdg", min_size=1, max_size=9).filter(lambda text: text == text.strip()))
def test_the_first_token_is_the_one_that_lm_eval_would_score(answer: str) -> None:
    tokenizer, context = tiny_tokenizer(), "Q: dog\nA:"
    token, beginning = first_token(tokenizer, context, f" {answer}")
    before = tokenizer.encode(context)
    assert tokenizer.encode(context + f" {answer}")[len(before)] == token
    assert tokenizer.encode(context + beginning) == [*before, token]
    assert f" {answer}".startswith(beginning)


@pytest.mark.parametrize(("context", "answer"), [("A: ", "fox"), ("A:", ""), ("A:", "é")])
def test_an_answer_without_a_first_token_of_its_own_is_refused(context: str, answer: str) -> None:
    with pytest.raises(DataError, match="token"):
        first_token(tiny_tokenizer(), context, answer)


# ------------------------------------------------------------------------------------------------ tasks


def test_the_files_are_what_the_generator_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("make_icl_yaml", FOLDER / "make_yaml.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert icl.WORD_TASKS == module.WORDS
    monkeypatch.setattr(module, "HERE", tmp_path)
    module.main()
    committed = {path.name: path.read_bytes() for path in FOLDER.glob("*.yaml")}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == committed


def test_every_task_loads_and_the_group_holds_them() -> None:
    manager = TaskManager(include_path=str(FOLDER), include_defaults=False, metadata={"tokenizer": tiny_tokenizer()})
    loaded = manager.load(["icl"])["tasks"]
    assert sorted(loaded) == sorted(NAMES)
    for name, task in loaded.items():
        docs = list(task.eval_docs)
        assert len(docs) == 40, name
        assert set(task.aggregation()) == set(task.higher_is_better()) == METRICS
        shots = 0 if name.count("_10shot") == 0 else 10
        assert {doc["demonstrations"].count("Q: ") for doc in docs} == {shots}, name
        words = name.removeprefix("icl_").partition("_10shot")[0]
        train = {pair.input for pair in read_word_pairs(words).pairs}
        assert all(set(shown(doc["demonstrations"])) <= train for doc in docs), name
        test = {pair.input: pair.output for pair in read_word_pairs(words, "test").pairs}
        assert {doc["input"]: doc["options"][doc["matching"]] for doc in docs} == test


def test_clean_and_shuffled_tasks_differ_in_the_labels_alone() -> None:
    clean, wrong = (config(f"icl_antonym_10shot{end}") for end in ("", "_shuffled"))
    docs = [list(each["custom_dataset"](**each["dataset_kwargs"])["test"]) for each in (clean, wrong)]
    for one, two in zip(*docs, strict=True):
        assert list(shown(one["demonstrations"])) == list(shown(two["demonstrations"]))
        assert one["demonstrations"] != two["demonstrations"]
        assert {**one, "demonstrations": ""} == {**two, "demonstrations": ""}


def score(logprobs: list[float], greedy: bool = False) -> dict[str, float]:
    doc = {"item_id": "x", "options": list("abcdefgh")[: len(logprobs)], "matching": 1}
    found: dict[str, float] = config("icl_antonym")["process_results"](
        doc, [(value, greedy and n == 1) for n, value in enumerate(logprobs)]
    )
    return found


def test_the_scores_are_ranks_among_first_tokens() -> None:
    assert score([-3.0, -2.0, -2.0], greedy=True) == {
        "first_logprob": -2.0,
        "top1": 1.0,
        "pool_top1": 1.0,  # an answer that begins with the same token is not ahead
        "pool_top5": 1.0,
    }
    assert score([-1.0, -6.0, -2.0, -3.0, -4.0])["pool_top5"] == 1.0
    assert score([-1.0, -6.0, -2.0, -3.0, -4.0, -5.0])["pool_top5"] == 0.0
    assert score([-1.0, -6.0])["pool_top1"] == 0.0


def test_scores_that_are_no_numbers_and_lost_answers_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="smaller multiplier"):
        score([-1.0, math.nan])
    with pytest.raises(DataError, match="2 options, but 1"):
        config("icl_antonym")["process_results"]({"item_id": "x", "options": ["a", "b"], "matching": 0}, [(-1.0, True)])


@pytest.mark.parametrize("chat", [False, True])
def test_a_model_is_asked_for_one_token_an_answer(chat: bool) -> None:
    tokenizer = tiny_tokenizer(chat=True)
    lm = HFLM(pretrained=build("llama", max_position_embeddings=1024), tokenizer=tokenizer, batch_size=8)
    manager = TaskManager(include_path=str(FOLDER), include_defaults=False, metadata={"tokenizer": tokenizer})
    tasks = ["icl_country_capital", "icl_present_past_10shot_shuffled"]
    results = simple_evaluate(
        lm, tasks=tasks, task_manager=manager, limit=2, bootstrap_iters=0, apply_chat_template=chat, log_samples=True
    )
    assert results is not None
    for name in tasks:
        assert {f"{metric},none" for metric in METRICS} <= set(results["results"][name])
        for sample in results["samples"][name]:
            assert len(sample["arguments"]) == 40
            doc = sample["doc"]
            for (context, text), option in zip(sample["arguments"], doc["options"], strict=True):
                assert len(lm._encode_pair(context, text)[1]) == 1
                assert f" {option}".startswith(text)
                assert context.endswith(f"Q: {doc['input']}\nA:" if not chat else "assistant\nA:")
            own = sample["filtered_resps"][doc["matching"]]
            assert sample["first_logprob"] == own[0]
            assert sample["top1"] == float(own[1])


def test_requests_never_come_from_a_cache_that_another_tokenizer_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path))
    texts: list[list[str]] = []
    for tokenizer in (tiny_tokenizer(), tiny_tokenizer(chat=True)):
        manager = TaskManager(include_path=str(FOLDER), include_defaults=False, metadata={"tokenizer": tokenizer})
        task = manager.load(["icl_antonym"])["tasks"]["icl_antonym"]
        if texts:  # as if each word were one token
            monkeypatch.setitem(vars(task), "_tokenizer", Words())
        task.build_all_requests(limit=1, cache_requests=True, rewrite_requests_cache=False)
        texts.append([request.arguments[1] for request in task.instances])
    assert texts[1] == [f" {option}" for option in task.eval_docs[0]["options"]]
    assert texts[0] != texts[1]
    assert not list(tmp_path.iterdir())


class Words:
    """A tokenizer of one token a word, with its blank."""

    def encode(self, text: str, **_options: Any) -> list[int]:
        return [hash(word) for word in re.findall(r" ?\S+|\n", text)]

    def decode(self, _tokens: list[int]) -> str:
        return " word"


def test_the_lists_are_said_to_be_in_the_readme() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for words in icl.WORD_TASKS:
        assert f"`{words}`" in text
    for metric in METRICS:
        assert f"`{metric}`" in text
    rows = [json.loads(line) for path in (FOLDER / "data").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(rows) == 80 * len(icl.WORD_TASKS)


@pytest.mark.parametrize("split", icl.SPLITS)
def test_capitals_and_their_countries_are_the_same_pairs_turned_round(split: str) -> None:
    there, back = (read_word_pairs(words, split).pairs for words in ("country_capital", "capital_country"))
    assert [(pair.id, pair.input, pair.output) for pair in there] == [(p.id, p.output, p.input) for p in back]
