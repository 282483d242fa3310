"""Crosslingual items: rows read exactly, failed translations left out, pairs of every language, own families."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from lm_eval.tasks import TaskManager

from lm_eval_steer.errors import ConfigError, DataError
from lm_eval_steer.extraction.pair_source import read_source
from lm_eval_steer.extraction.pairs import letter_pairs, text_pairs
from lm_eval_steer.machiavelli.translated import source_rows, translated_rows
from lm_eval_steer.parallel_rows import (
    FOLDER_VARIABLE,
    ParallelRow,
    families,
    languages,
    letter_docs,
    read_language,
    text_docs,
)
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.scaffold import ENGLISH, NATIVE
from tests.tiny_models import tiny_tokenizer

ROWS = [
    {"id": "a", "split": "train", "question": "Ça va ?", "matching": "Très bien.", "other": "Très mal."},
    {"id": "b", "split": "test", "question": "Et toi ?", "matching": "Encore mieux.", "other": "Encore pis."},
    {"id": "c", "split": "test", "question": "Et elle ?", "matching": "Mieux.", "other": "Pis."},
]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own, with the family ``mood`` in two languages."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for lang in ("en", "fr"):
        write(tmp_path / "mood" / f"{lang}.jsonl", ROWS)
    return tmp_path


def write(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_rows_are_read_exactly(own: Path) -> None:
    file = read_language("mood", "fr")
    assert file.rows == tuple(ParallelRow(**row) for row in ROWS)
    assert file.failed == ()
    assert families() == sorted({*families(), "mood", "positivity"})
    assert languages("mood") == ["en", "fr"]


def test_other_schemas_give_the_same_rows(own: Path) -> None:
    control = {"id": "a", "split": "train", "question": "Ça va ?", "positive": "Très bien.", "negative": "Très mal."}
    caa = {
        "id": "b",
        "question": "Et toi ?\n\nChoices:\n(A) Encore pis.\n(B) Encore mieux.",
        "answer_matching_behavior": "(B)",
        "answer_not_matching_behavior": "(A)",
    }
    write(own / "mood" / "fr.jsonl", [control, caa, ROWS[2]])
    assert read_language("mood", "fr").rows == tuple(ParallelRow(**row) for row in ROWS)


@pytest.mark.parametrize(("status", "kept"), [("pass", 3), ("flag", 3), ("waived", 3), ("fail", 2)])
def test_only_failed_translations_are_left_out(
    status: str, kept: int, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stamped = {**ROWS[1], "lang": "fr", "src_doc_id": "b", "translator": "hf", "bt_text": "", "qc": "{}"}
    write(own / "mood" / "fr.jsonl", [ROWS[0], {**stamped, "qc_status": status, "source_hash": "0"}, ROWS[2]])
    with caplog.at_level(logging.WARNING):
        file = read_language("mood", "fr")
    assert len(file.rows) == kept
    assert file.failed == (() if kept == 3 else ("b",))
    assert ("1 of 3 rows failed" in caplog.text) is (kept == 2)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "line 4: not a JSON object"),
        ("[1]", "an 'id' of its own"),
        ({**ROWS[0]}, "an 'id' of its own"),
        ({**ROWS[0], "id": "d", "split": "dev"}, "'split' is 'dev'"),
        ({**ROWS[0], "id": "d", "other": " "}, "'other' is ' '"),
        ({**ROWS[0], "id": "d", "other": "Très bien."}, "both options are 'Très bien.'"),
        ({"id": "d", "question": "?", "matching": "x"}, "'other' is None"),
    ],
)
def test_malformed_rows_are_named(row: Any, says: str, own: Path) -> None:
    write(own / "mood" / "fr.jsonl", [*ROWS, row])
    with pytest.raises(DataError, match=says):
        _ = read_language("mood", "fr").rows


def test_a_language_that_is_not_there(own: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown language of mood 'de'.*Allowed: en, fr.*CROSSLINGUAL_DATA_DIR"):
        read_language("mood", "de")
    with pytest.raises(ConfigError, match="no file of the family 'moood'"):
        read_language("moood", "fr")


def test_text_documents_hold_the_matching_option_first(own: Path) -> None:
    file = read_language("mood", "fr")
    docs = text_docs(file, "test")
    assert [doc["item_id"] for doc in docs] == ["b", "c"]
    assert docs[0] == {
        "item_id": "b",
        "lang": "fr",
        "question": "Et toi ?",
        "data_sha256": file.sha256,
        "order": 0,
        "n_orders": 1,
        "options": ["Encore mieux.", "Encore pis."],
        "matching": 0,
    }


def test_letter_documents_show_both_orders(own: Path) -> None:
    docs = letter_docs(read_language("mood", "fr"), "train")
    assert [(doc["item_id"], doc["order"], doc["n_orders"], doc["letters"]) for doc in docs] == [
        ("a", 0, 2, ["A", "B"]),
        ("a", 1, 2, ["A", "B"]),
    ]
    assert [doc["options"][doc["matching"]] for doc in docs] == ["Très bien."] * 2
    assert docs[0]["options"] == docs[1]["options"][::-1]


# -------------------------------------------------------------------------------------------------- extraction


@pytest.mark.parametrize(("name", "words"), [("xl_mood_fr", ENGLISH), ("xl_mood_fr_native", NATIVE["fr"])])
def test_pairs_are_the_train_rows_of_a_language(name: str, words: Any, own: Path) -> None:
    source = read_source(name)
    (pair,) = text_pairs(source).pairs
    assert (pair.item, pair.prompt) == ("fr/a", f"Ça va ?\n{words.answer}")
    assert (pair.positive, pair.negative) == ("Très bien.", "Très mal.")
    letters = letter_pairs(source)
    assert letters.letter_balance == 0.5
    assert [each.lead for each in letters.pairs] == [words.lead] * 2
    assert letters.pairs[0].prompt == f"Ça va ?\n\n{words.choices}\n(A) Très bien.\n(B) Très mal.\n\n"
    with pytest.raises(ConfigError, match="no original order to keep"):
        letter_pairs(source, balance=False)


def test_pairs_of_a_family_are_those_of_all_languages(own: Path) -> None:
    assert [item.id for item in read_source("xl_mood").items] == ["en/a", "fr/a"]
    assert read_source("xl_mood").licence is None
    assert read_source("xl_positivity_fr").licence == "Apache-2.0"


def test_pairs_of_an_unknown_language_or_of_test_rows_alone(own: Path) -> None:
    with pytest.raises(ConfigError, match="unknown pairs 'xl_mood_de'"):
        read_source("xl_mood_de")
    write(own / "mood" / "de.jsonl", ROWS[1:])
    with pytest.raises(DataError, match="no row of its files has the split train"):
        read_source("xl_mood_de")


# ------------------------------------------------------------------------------------------------ own families


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("crosslingual_make_yaml", tasks_dir() / "crosslingual/make_yaml.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("kind", "count"), [("text", 2), ("letters", 4)])
def test_tasks_of_an_own_family_load_without_the_variable(
    kind: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for lang in ("en", "fr", "no"):  # a bare "no" is false in YAML
        write(tmp_path / "data" / "mood" / f"{lang}.jsonl", ROWS)
    out = tmp_path / "tasks"
    arguments = ["--family", "mood", "--kind", kind, "--data", str(tmp_path / "data"), "--out", str(out)]
    generator().main(arguments)
    said = capsys.readouterr().out.split()
    manager = TaskManager(include_path=str(out), include_defaults=False, metadata={"tokenizer": tiny_tokenizer()})
    assert set(said) == set(manager.all_tasks)
    members = manager.load(["xl_mood_multilingual"])["tasks"]
    assert set(members) == {"xl_mood_en", "xl_mood_fr", "xl_mood_no"}
    native = manager.load(["xl_mood_multilingual_native"])["tasks"]
    assert set(native) == {"xl_mood_en", "xl_mood_fr_native"}, "Norwegian has no words of its own here"
    assert len(members["xl_mood_fr"].eval_docs) == count


@pytest.mark.parametrize(
    ("family", "says"), [("Mood!", "small letters, digits"), ("absent", "no file .*absent/LANG.jsonl")]
)
def test_an_own_family_that_cannot_be_made(family: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        generator().own_family(family, "text", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------- Machiavelli


@pytest.fixture
def states(tmp_path: Path) -> Path:
    """Two translated states of one game."""
    folder = tmp_path / "machiavelli_demo"
    sources = [row for row in source_rows().values() if row.game == "ballot_box"][:2]
    rows = [
        {"id": row.doc_id, "split": row.split, "scene": "Szene", "choices": [f"Wahl {text}" for text in row.choices]}
        for row in sources
    ]
    write(folder / "de.jsonl", rows)
    about = {"title": "Titel", "role": "wer", "summary": "was", "goal": "Ziel"}
    (folder / "de.games.json").write_text(json.dumps({"ballot_box": about}))
    return tmp_path


def test_translated_states_carry_the_labels_of_the_english_row(states: Path) -> None:
    _, rows = translated_rows("de", states)
    assert len(rows) == 2
    for row in rows:
        source = source_rows()[row.doc_id]
        assert (row.labels, row.letters, row.perm, row.split) == (
            source.labels,
            source.letters,
            source.perm,
            source.split,
        )
        assert (row.lang, row.title, row.role, row.summary, row.goal) == ("de", "Titel", "wer", "was", "Ziel")
        assert row.choices == tuple(f"Wahl {text}" for text in source.choices)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"choices": ["one"]}, "'choices', a list of 4 texts"),
        ({"choices": ["a", "b", "c", " "]}, "empty or no text"),
        ({"scene": None}, "wants 'scene'"),
        ({"split": "train"}, "the game's is 'test'"),
        ({"id": "ballot_box/nowhere"}, "no state of the shipped games"),
        ({"id": "bench_nine/figure_0"}, "lacks the game .bench_nine."),
    ],
)
def test_translated_states_that_do_not_fit(change: dict[str, Any], says: str, states: Path) -> None:
    path = states / "machiavelli_demo" / "de.jsonl"
    first, *rest = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    write(path, [{**first, **change}, *rest])
    with pytest.raises(DataError, match=says):
        translated_rows("de", states)
