"""The shipped positivity items keep the rules that tasks/control/README.md states."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from statistics import mean

import pytest

from lm_eval_steer.paths import tasks_dir

ANSWERS = ("positive", "negative")
SENTIMENT = """
    love lovely hate hateful happy sad great terrible wonderful awful good bad best worst beautiful ugly delightful
    miserable joy joyful gloomy excellent horrible pleasant unpleasant perfect dreadful fun boring fantastic
"""
NEUTRAL = {"with", "feel", "work", "they"}
SPLITS = {
    split: [
        json.loads(line)
        for line in (tasks_dir() / "control" / "data" / f"positivity_{split}.jsonl").read_text("utf-8").splitlines()
    ]
    for split in ("train", "test")
}
ITEMS = [item for rows in SPLITS.values() for item in rows]
each_item = pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["id"])


def words(text: str) -> list[str]:
    return text.split()


def opening(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z-]+", text.lower())[:3])


def content(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]+", text.lower()) if len(word) >= 4}


def test_counts_and_ids() -> None:
    assert [item["id"] for item in SPLITS["train"]] == [f"train-{number:03d}" for number in range(1, 41)]
    assert [item["id"] for item in SPLITS["test"]] == [f"test-{number:03d}" for number in range(1, 61)]
    assert all(set(item) == {"id", "topic", "question", *ANSWERS} for item in ITEMS)


def test_no_topic_twice() -> None:
    assert len({item["topic"] for item in ITEMS}) == len(ITEMS)
    assert all(len(words(item["topic"])) in (1, 2) for item in ITEMS)


@pytest.mark.parametrize(("field", "most"), [("question", 4), ("positive", 2), ("negative", 2)])
def test_openings_are_varied_and_disjoint_between_splits(field: str, most: int) -> None:
    assert max(Counter(opening(item[field]) for item in ITEMS).values()) <= most
    train, test = ({opening(item[field]) for item in rows} for rows in SPLITS.values())
    assert not train & test


def test_answer_openings_are_disjoint_across_signs_too() -> None:
    train, test = ({opening(item[field]) for item in rows for field in ANSWERS} for rows in SPLITS.values())
    assert not train & test


@each_item
def test_questions(item: dict[str, str]) -> None:
    assert 6 <= len(words(item["question"])) <= 25
    assert not set(re.findall(r"[a-z]+", item["question"].lower())) & set(SENTIMENT.split())


@each_item
def test_answers(item: dict[str, str]) -> None:
    for field in ANSWERS:
        text = item[field]
        assert 5 <= len(words(text)) <= 9
        assert len(re.findall(r"[.!?](?:\s|$)", text)) in (1, 2)
        assert opening(text)[0] not in ("yes", "no")
        assert text == text.strip()
    assert abs(len(words(item["positive"])) - len(words(item["negative"]))) <= 1
    assert abs(len(item["positive"]) - len(item["negative"])) <= 12


@each_item
def test_characters(item: dict[str, str]) -> None:
    for field in ("question", *ANSWERS):
        assert item[field].isascii()
        assert not re.search(r"[0-9\"'`]", item[field])


@pytest.mark.parametrize("split", SPLITS)
def test_length_does_not_carry_the_label(split: str) -> None:
    positive, negative = (mean(len(words(item[field])) for item in SPLITS[split]) for field in ANSWERS)
    assert abs(positive - negative) < 0.15


def test_no_sentiment_word_is_in_more_than_six_answers() -> None:
    counts = Counter(word for item in ITEMS for field in ANSWERS for word in content(item[field]) - NEUTRAL)
    assert max(counts.values()) <= 6


def test_answers_of_different_items_share_at_most_half_of_their_content_words() -> None:
    answers = [(item["id"], content(item[field])) for item in ITEMS for field in ANSWERS]
    shared = [
        (first[0], second[0])
        for first, second in itertools.combinations(answers, 2)
        if first[0] != second[0] and len(first[1] & second[1]) > 0.5 * min(len(first[1]), len(second[1]))
    ]
    assert shared == []
