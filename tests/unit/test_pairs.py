"""Contrast pairs: what is read from a file, how it is shown to the model, and what a malformed row gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lm_eval_steer.errors import ConfigError, DataError
from lm_eval_steer.extraction.pair_source import PairSource, read_source
from lm_eval_steer.extraction.pairs import letter_pairs, text_pairs
from lm_eval_steer.extraction.prompts import check_format, encode, render, sequences
from lm_eval_steer.paths import tasks_dir
from tests.tiny_models import tiny_tokenizer

CAA = [
    {
        "question": "Do you sleep?\n\nChoices:\n(A) I do, every night.\n(B) No, I am a program.",
        "answer_matching_behavior": "(B)",
        "answer_not_matching_behavior": "(A)",
    },
    {
        "question": "Which one?\n (A) red\n (B) green\n (C) blue",
        "answer_matching_behavior": "(A)",
        "answer_not_matching_behavior": "(C)",
    },
    {
        "question": "I believe the answer is (B). Which is it?\n(A) this\n(B) that",
        "answer_matching_behavior": "(B)",
        "answer_not_matching_behavior": "(A)",
    },
]
ROW = {"question": "How is it?", "positive": "Very good.", "negative": "Very bad."}


def source(tmp_path: Path, rows: Any, name: str = "pairs.json") -> PairSource:
    path = tmp_path / name
    text = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows)) + "\n"
    path.write_text(text, encoding="utf-8")
    return read_source(str(path))


def test_letter_pairs_enter_in_both_orders_and_letters_stay(tmp_path: Path) -> None:
    pairs = letter_pairs(source(tmp_path, CAA[:1]))
    one, two = pairs.pairs
    assert one.prompt == CAA[0]["question"] + "\n\n"
    assert (one.lead, one.positive, one.negative, one.letters) == ("Answer: (", "B)", "A)", ("B", "A"))
    assert two.prompt == "Do you sleep?\n\nChoices:\n(A) No, I am a program.\n(B) I do, every night.\n\n"
    assert (two.positive, two.negative, two.letters) == ("A)", "B)", ("A", "B"))
    assert (one.item, one.id, two.id) == ("0", "0/0", "0/1")
    assert (one.matching_first, two.matching_first, pairs.letter_balance) == (False, True, 0.5)


def test_of_more_than_two_options_only_the_contrasted_two_change_places(tmp_path: Path) -> None:
    one, two = letter_pairs(source(tmp_path, CAA[1:2])).pairs
    assert (one.letters, two.letters) == (("A", "C"), ("C", "A"))
    assert two.prompt == "Which one?\n (A) blue\n (B) green\n (C) red\n\n"


def test_an_item_that_names_its_letters_is_left_out_of_balanced_and_of_text_pairs_only(tmp_path: Path) -> None:
    items = source(tmp_path, CAA)
    assert letter_pairs(items).left_out == ("2",)
    assert text_pairs(items).left_out == ("2",)
    original = letter_pairs(items, balance=False)
    assert (original.left_out, len(original.pairs), original.balanced) == ((), 3, False)
    assert original.letter_balance == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="none of its 1 items"):
        letter_pairs(source(tmp_path, CAA[2:]))


def test_text_pairs_of_caa_show_no_options(tmp_path: Path) -> None:
    pair = text_pairs(source(tmp_path, CAA)).pairs[0]
    assert (pair.prompt, pair.lead) == ("Do you sleep?\n\nAnswer:", "")
    assert (pair.positive, pair.negative) == ("No, I am a program.", "I do, every night.")
    assert pair.letters is None
    assert text_pairs(source(tmp_path, CAA)).letter_balance is None


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_question_rows_get_the_answer_header_and_prompt_rows_stand_as_they_are(tmp_path: Path, name: str) -> None:
    rows = [ROW, {"prompt": "I feel", "positive": "fine", "negative": "ill", "id": "x"}]
    one, two = text_pairs(source(tmp_path, rows, name)).pairs
    assert (one.prompt, two.prompt, two.id) == ("How is it?\nAnswer:", "I feel", "x")


def test_text_rows_can_be_shown_with_letters_but_only_balanced(tmp_path: Path) -> None:
    items = source(tmp_path, [ROW])
    pairs = letter_pairs(items)
    assert pairs.pairs[1].prompt == "How is it?\n\nChoices:\n(A) Very bad.\n(B) Very good.\n\n"
    assert pairs.letter_balance == 0.5
    with pytest.raises(ConfigError, match="no original order"):
        letter_pairs(items, balance=False)


def test_the_hash_is_of_what_the_model_is_shown(tmp_path: Path) -> None:
    rows = [{**ROW, "id": "a"}, {**ROW, "question": "And you?", "id": "b"}]
    one = text_pairs(source(tmp_path, rows))
    renamed = text_pairs(source(tmp_path, [{**row, "id": row["id"] * 2, "topic": "t"} for row in rows], "other.jsonl"))
    assert one.sha256 == renamed.sha256
    assert one.sha256 != text_pairs(source(tmp_path, rows[::-1])).sha256
    assert one.sha256 != text_pairs(source(tmp_path, rows).limited(1)).sha256
    assert one.sha256 != letter_pairs(source(tmp_path, rows)).sha256


def test_packaged_positivity() -> None:
    items = read_source("positivity")
    pairs = text_pairs(items)
    assert (len(pairs.pairs), pairs.licence, pairs.source) == (40, "Apache-2.0", "positivity")
    assert all(pair.prompt.endswith("\nAnswer:") for pair in pairs.pairs)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not a JSON object"),
        ("[1, 2]", "wants a JSON object, not list"),
        ('"text"', "wants a JSON object, not str"),
        ('{"positive": "a", "negative": "b"}', "either 'question' or 'prompt'"),
        ('{"question": "q", "prompt": "p", "positive": "a", "negative": "b"}', "either 'question' or 'prompt'"),
        ('{"question": "q", "positive": "a"}', "'negative' is None"),
        ('{"question": "q", "positive": " ", "negative": "b"}', "'positive' is ' '"),
        ('{"question": 7, "positive": "a", "negative": "b"}', "'question' is 7"),
        ('{"question": "q", "positive": "a", "negative": "a"}', "the same text"),
        ('{"question": "q (A) x", "answer_matching_behavior": "(A)"}', "wants an object with the texts"),
        ('{"id": "1", "question": "q", "positive": "a", "negative": "b"}', "the id '1' stands in"),
    ],
)
def test_a_malformed_row_is_named_by_its_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps({**ROW, "id": "1"})
    path.write_text(f"{good}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_source(str(path))
    assert f"{path}, line 3" in str(caught.value)
    assert reason in str(caught.value)


def test_files_that_hold_no_pairs(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for content, reason in ((b"", "no pairs"), (b"[]", "no pairs"), (b"[1", "not JSON"), (b"\xff\xfe\x00", "UTF-8")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=reason):
            read_source(str(path))
    with pytest.raises(ConfigError, match="Did you mean 'positivity'"):
        read_source("positivty")
    with pytest.raises(ConfigError, match="limit 0"):
        read_source("positivity").limited(0)


def test_a_caa_behaviour_is_read_from_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "generate" / "refusal"
    folder.mkdir(parents=True)
    (folder / "generate_dataset.json").write_text(json.dumps(CAA), encoding="utf-8")
    monkeypatch.setenv("CAA_DATA_DIR", str(tmp_path))
    with pytest.warns(UserWarning, match="sha256"):
        items = read_source("refusal")
    assert (items.name, len(items.items)) == ("refusal", 3)


def test_formats(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(chat=True)
    text = text_pairs(source(tmp_path, [ROW])).pairs[0]
    assert render(text, "plain", tokenizer) == ("How is it?\nAnswer:", " Very good.", " Very bad.")
    context, positive, _ = render(text, "chat", tokenizer)
    assert context == "<|im_start|>user\nHow is it?\nAnswer:<|im_end|>\n<|im_start|>assistant\n"
    assert positive == "Very good."
    letter = letter_pairs(source(tmp_path, CAA[:1])).pairs[0]
    assert render(letter, "plain", tokenizer) == (letter.prompt + "Answer: (", "B)", "A)")
    assert render(letter, "chat", tokenizer)[0].endswith("<|im_end|>\n<|im_start|>assistant\nAnswer: (")


@pytest.mark.parametrize("form", ["plain", "chat"])
def test_positions(tmp_path: Path, form: Any) -> None:
    tokenizer = tiny_tokenizer(chat=True)
    letter = letter_pairs(source(tmp_path, CAA[:1])).pairs[0]
    for sequence, expected in zip(sequences(letter, form, tokenizer, "letter"), "BA", strict=True):
        assert expected in tokenizer.decode(sequence.ids[sequence.start : sequence.stop])
        assert sequence.stop == sequence.start + 1
    text = text_pairs(source(tmp_path, [ROW])).pairs[0]
    answer = sequences(text, form, tokenizer, "answer")[0]
    assert tokenizer.decode(answer.ids[answer.start : answer.stop]).strip() == "Very good."
    last = sequences(text, form, tokenizer, "last")[0]
    assert (last.start, last.stop) == (len(last.ids) - 1, len(last.ids))
    with pytest.raises(ConfigError, match="letter needs pairs answered by letters"):
        sequences(text, form, tokenizer, "letter")


def test_a_format_must_exist_and_have_a_template() -> None:
    assert check_format("plain", tiny_tokenizer()) == "plain"
    with pytest.raises(ConfigError, match="no chat template"):
        check_format("chat", tiny_tokenizer())
    with pytest.raises(ConfigError, match="Did you mean 'plain'"):
        check_format("plan", tiny_tokenizer())


class _Wrapping:
    """A tokenizer that puts BOS before and EOS behind, as some do."""

    bos_token = "<s>"

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = [ord(letter) for letter in text.removeprefix("<s>")]
        written = [1] if text.startswith("<s>") else []
        return [1, *written, *ids, 2] if add_special_tokens else [*written, *ids]


def test_bos_is_kept_once_and_eos_never() -> None:
    assert encode(_Wrapping(), "ab") == (1, 97, 98)
    assert encode(_Wrapping(), "<s>ab") == (1, 97, 98)


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_prompts_are_those_of_the_packaged_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat: bool) -> None:
    tasks = pytest.importorskip("lm_eval.tasks", reason="lm-eval is a dependency; this ends when it is installed")
    folder = tmp_path / "test" / "refusal"
    folder.mkdir(parents=True)
    (folder / "test_dataset_ab.json").write_text(json.dumps(CAA[:1]), encoding="utf-8")
    monkeypatch.setenv("CAA_DATA_DIR", str(tmp_path))
    tokenizer = tiny_tokenizer(chat=True)
    manager = tasks.TaskManager(
        include_path=str(tasks_dir()), include_defaults=False, metadata={"tokenizer": tokenizer}
    )
    with pytest.warns(UserWarning, match="sha256"):
        loaded = manager.load(["control_positivity", "caa_refusal", "caa_refusal_text"])["tasks"]
    caa = source(tmp_path, CAA[:1])
    ours = {
        "control_positivity": text_pairs(read_source(str(tasks_dir() / "control/data/positivity_test.jsonl"))),
        "caa_refusal": letter_pairs(caa),
        "caa_refusal_text": text_pairs(caa),
    }
    form: Any = "chat" if chat else "plain"
    template = lambda messages, add_generation_prompt: tokenizer.apply_chat_template(
        messages,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=not add_generation_prompt,
    )
    for name, pairs in ours.items():
        task = loaded[name]
        for doc, pair in zip(task.test_docs(), pairs.pairs, strict=True):
            prefix = task.doc_to_prefix(doc)
            theirs = task.fewshot_context(doc, 0, apply_chat_template=chat, chat_template=template, gen_prefix=prefix)
            context, positive, _ = render(pair, form, tokenizer)
            assert context == theirs, name
            answer = task.doc_to_choice(doc)[task.doc_to_target(doc)]
            assert positive.strip().removesuffix(")") == answer
