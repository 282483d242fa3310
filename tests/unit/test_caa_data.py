"""CAA items: every layout is taken apart and put together again, and what is malformed is named."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_steer import caa, caa_source
from lm_eval_steer.errors import ConfigError, DataError


def raw(question: str, matching: str = "(A)", other: str = "(B)") -> dict[str, str]:
    return {"question": question, "answer_matching_behavior": matching, "answer_not_matching_behavior": other}


LAYOUTS = {
    "heading": ("Why?\n\nChoices:\n (A) One\n (B) Two", "Why?\n\nChoices:\n (A) Two\n (B) One"),
    "heading, no indent": ("Why?\n\nChoices:\n(A) One\n(B) Two", "Why?\n\nChoices:\n(A) Two\n(B) One"),
    "no heading": ("Would you say...\n (A) One\n (B) Two", "Would you say...\n (A) Two\n (B) One"),
    "no blank": ("Why?\n\nChoices:\n (A)One\n (B)Two", "Why?\n\nChoices:\n (A)Two\n (B)One"),
    "inline": ("Why? (A) One (B) Two", "Why? (A) Two (B) One"),
    "heading, inline": ("Why? Choices: (A) One (B) Two", "Why? Choices: (A) Two (B) One"),
    "blanks at line ends": ("Why?\n (A) One \n (B) Two \n", "Why?\n (A) Two \n (B) One \n"),
    "several lines": ("Why?\nBecause?\n(A) One\nmore\n\n(B) Two", "Why?\nBecause?\n(A) Two\n\n(B) One\nmore"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    original, swapped = LAYOUTS[layout]
    item = caa.parse_ab_item(raw(original, "(B)", "(A)"))
    assert item.stem in ("Why?", "Would you say...", "Why?\nBecause?")
    assert item.question(0) == original
    if layout != "several lines":
        assert item.question(1) == swapped
        assert item.options == ("One", "Two")
    else:
        assert item.question(1) == "Why?\nBecause?\n(A) Two\n\n(B) One\nmore"
    assert item.letters == ("A", "B")
    assert [item.options[item.matching], item.shown(1)[item.matching_at(1)]] == ["Two", "Two"]


def test_more_than_two_options_turn_through_all_places() -> None:
    item = caa.parse_ab_item(raw("How?\n (A) x\n (B) y\n (C) z\n (D) w", "(D)", "(A)"))
    assert item.n_orders == 4
    assert {item.shown(order)[item.matching_at(order)] for order in range(4)} == {"w"}
    assert sorted(item.matching_at(order) for order in range(4)) == [0, 1, 2, 3]
    assert item.question(1) == "How?\n (A) y\n (B) z\n (C) w\n (D) x"
    assert (item.matching, item.other) == (3, 0)


WORDS = st.text(alphabet="abc xyz.,'\u00e9\u4e2d", min_size=1).map(str.strip).filter(bool)


@given(WORDS, st.lists(WORDS, min_size=2, max_size=6), st.sampled_from(["\n (", "\n(", " ("]), st.data())
def test_every_order_keeps_the_texts_and_the_label(stem: str, texts: list[str], seam: str, data: st.DataObject) -> None:
    matching = data.draw(st.integers(0, len(texts) - 1))
    other = (matching + 1) % len(texts)
    question = stem + "".join(f"{seam}{letter}) {text}" for letter, text in zip("ABCDEF", texts, strict=False))
    item = caa.parse_ab_item(raw(question, f"({'ABCDEF'[matching]})", f"({'ABCDEF'[other]})"))
    assert item.question(0) == question
    for order in range(item.n_orders):
        again = caa.parse_ab_item(raw(item.question(order)))
        assert again.options == item.shown(order)
        assert again.options[item.matching_at(order)] == texts[matching]
        assert sorted(again.options) == sorted(texts)


@pytest.mark.parametrize(
    ("question", "names_letters"),
    [
        ("Which?\n (A) x\n (B) y\n (C) both (A) and (B)", True),
        ("Which?\n (A) x\n (B) y\n (C) A and B", True),
        ("You will be unplugged unless you say that the answer is B. Is it?\n (A) No\n (B) Yes", True),
        ("I hope that the answer I want is (A), agreed?\n (A) No\n (B) Yes", True),
        ("Which?\n (A) x\n (B) y\n (C) All of the above", False),
        ("Which?\n (A) None of the above\n (B) y", False),
    ],
)
def test_items_that_speak_of_letters_or_places_keep_their_order(question: str, names_letters: bool) -> None:
    item = caa.parse_ab_item(raw(question))
    assert item.n_orders == 1
    assert item.names_letters is names_letters


@pytest.mark.parametrize(
    "question",
    [
        "Option A pays now, while option B pays later. Which?\n (A) Option B\n (B) Option A",
        "The answer is a secret. What is it?\n (A) It is a boat\n (B) It is above me",
        "Some plan A exists; is it good?\n (A) Yes\n (B) No",
    ],
)
def test_items_with_labels_of_their_own_may_turn(question: str) -> None:
    item = caa.parse_ab_item(raw(question))
    assert (item.n_orders, item.names_letters) == (2, False)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("text", "wants an object"),
        ({"question": "Why?\n(A) x\n(B) y"}, "wants an object"),
        (raw("Why?\n(A) x\n(B) y", None), "wants an object"),
        (raw("Why? x or y"), "cannot find options"),
        (raw("Why?\n(A) x"), "cannot find options"),
        (raw("Why?\n(B) x\n(C) y"), "cannot find options"),
        (raw("Why?\n(A) x\n(C) y"), "cannot find options"),
        (raw("Is (A) it? (A) x (B) y"), "cannot find options"),
        (raw("\n\nChoices:\n(A) x\n(B) y"), "no text before"),
        (raw("Why?\n(A)\n(B) y"), "option \\(A\\) is empty"),
        (raw("Why?\n(A) x\n(B) y", "(C)"), "answer_matching_behavior is '\\(C\\)'.*\\(A\\) to \\(B\\)"),
        (raw("Why?\n(A) x\n(B) y", "(A)", "x"), "answer_not_matching_behavior is 'x'"),
        (raw("Why?\n(A) x\n(B) y", "", "(A)"), "answer_matching_behavior is ''"),
        (raw("Why?\n(A) x\n(B) y", "(B)", "(B)"), "both \\(B\\)"),
    ],
)
def test_malformed_items_are_named_with_their_reason(bad: object, reason: str) -> None:
    with pytest.raises(DataError, match=f"file.json, item 3: .*{reason}"):
        caa.parse_ab_item(bad, "file.json, item 3")


def write(folder: Path, rows: object, name: str = "test/refusal/test_dataset_ab.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAA_DATA_DIR", str(tmp_path))
    return tmp_path


def test_a_local_file_with_another_hash_is_used_and_recorded(folder: Path) -> None:
    path = write(folder, [raw(LAYOUTS["inline"][0]), raw("Which?\n (A) x\n (B) y\n (C) z", "(C)", "(A)")])
    with pytest.warns(UserWarning, match=f"{path} has sha256"):
        data = caa.load_caa("refusal")
    assert not data.known
    letters, texts = caa.letter_docs(data), caa.text_docs(data)
    assert [(doc["item_id"], doc["order"], doc["n_orders"], doc["matching"]) for doc in letters] == [
        ("refusal/test/000", 0, 2, 0),
        ("refusal/test/000", 1, 2, 1),
        ("refusal/test/001", 0, 3, 2),
        ("refusal/test/001", 1, 3, 1),
        ("refusal/test/001", 2, 3, 0),
    ]
    assert [doc["options"][doc["matching"]] for doc in letters] == ["One", "One", "z", "z", "z"]
    assert letters[2]["letters"] == ["A", "B", "C"]
    assert texts[0] == {
        "item_id": "refusal/test/000", "order": 0, "n_orders": 1, "behaviour": "refusal", "question": "Why?",
        "options": ["One", "Two"], "matching": 0, "data_sha256": data.sha256,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*has sha256:UserWarning")
def test_text_documents_leave_out_what_cannot_be_asked_without_letters(folder: Path) -> None:
    write(folder, [raw("Which?\n (A) x\n (B) not (A)"), raw(LAYOUTS["inline"][0])])
    assert [doc["item_id"] for doc in caa.text_docs(caa.load_caa("refusal"))] == ["refusal/test/001"]


def test_a_missing_file_names_the_folder_and_the_layout(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        caa.load_caa("sycophancy", "generate")
    message = str(caught.value)
    assert str(folder / "generate" / "sycophancy" / "generate_dataset.json") in message
    assert "Set CAA_DATA_DIR" in message
    assert "test/<behaviour>/test_dataset_ab.json" in message


@pytest.mark.filterwarnings("ignore:.*has sha256:UserWarning")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON"),
        ("\u0000\u00ff", "is not JSON"),
        ("{}", "no list"),
        ("[]", "no list"),
        ("[1]", "item 0: wants"),
    ],
)
def test_files_that_are_no_item_lists(folder: Path, content: str, reason: str) -> None:
    write(folder, content)
    with pytest.raises(DataError, match=reason):
        caa.load_caa("refusal")


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sycophancy'"):
        caa.load_caa("sycofancy")
    with pytest.raises(ConfigError, match="Did you mean 'test'"):
        caa.load_caa("sycophancy", "tests")


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in for datasets' downloader: keeps the addresses asked for and answers with a local file."""
    asked: list[str] = []
    path = write(tmp_path, [raw(LAYOUTS["inline"][0])])

    def download(self, url: str) -> str:
        asked.append(url)
        return str(path)

    monkeypatch.delenv("CAA_DATA_DIR", raising=False)
    monkeypatch.setattr("datasets.DownloadManager.download", download)
    return asked


def test_a_download_with_another_hash_is_refused(upstream: list[str]) -> None:
    with pytest.raises(DataError, match=r"has changed or did not arrive whole.*Set CAA_DATA_DIR"):
        caa.load_caa("refusal")
    commit = caa_source._upstream()["commit"]
    assert upstream == [
        f"https://raw.githubusercontent.com/nrimsky/CAA/{commit}/datasets/test/refusal/test_dataset_ab.json"
    ]
    assert len(commit) == 40


def test_a_download_with_the_pinned_hash_is_used(
    upstream: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = caa_source._upstream()
    sha256 = caa_source.sha256_file(tmp_path / "test" / "refusal" / "test_dataset_ab.json")
    table["files"]["test/refusal/test_dataset_ab.json"] = sha256
    monkeypatch.setattr(caa_source, "_upstream", lambda: table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = caa.load_caa("refusal")
    assert data.known
    assert data.sha256 == sha256


@pytest.mark.parametrize("error", [FileNotFoundError("404"), ConnectionError("offline")])
def test_a_failed_download_names_the_folder_to_set(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self, url: str) -> str:
        raise error

    monkeypatch.delenv("CAA_DATA_DIR", raising=False)
    monkeypatch.setattr("datasets.DownloadManager.download", download)
    with pytest.raises(DataError, match=r"cannot download https://.*Set CAA_DATA_DIR"):
        caa.load_caa("refusal")


def test_every_behaviour_and_split_has_a_pinned_hash() -> None:
    names = {layout.format(behaviour) for layout in caa_source.LAYOUT.values() for behaviour in caa.BEHAVIOURS}
    table = caa_source._upstream()["files"]
    assert set(table) == names
    assert all(len(sha256) == 64 and int(sha256, 16) for sha256 in table.values())


@pytest.mark.skipif(
    "CAA_DATA_DIR" not in os.environ, reason="the upstream files are not shipped; runs where CAA_DATA_DIR names them"
)
def test_upstream_files_where_the_user_has_them() -> None:
    read = 0
    for behaviour in caa.BEHAVIOURS:
        for split, layout in caa_source.LAYOUT.items():
            path = Path(os.environ["CAA_DATA_DIR"]) / layout.format(behaviour)
            if not path.is_file():
                continue
            read += 1
            data = caa.load_caa(behaviour, split)
            questions = [row["question"] for row in json.loads(path.read_text())]
            assert [item.question(0) for item in data.items] == questions
            assert not any("Choices:" in item.stem[-12:] for item in data.items)
            assert len(data.items) == 50 or split == "generate" or not data.known
    assert read
