"""Checks of translations: each by itself, all on what ships, and against injected faults."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lm_eval_steer.cli.main import main
from lm_eval_steer.crosslingual import checks, nearest, text
from lm_eval_steer.crosslingual.checks import CHECKS, SOURCE_CHECKS, Evidence, RowPair
from lm_eval_steer.crosslingual.identifier import open_identifier
from lm_eval_steer.crosslingual.invariants import violations
from lm_eval_steer.crosslingual.items import Items, read_items, write_rows
from lm_eval_steer.crosslingual.provenance import PROVENANCE, source_hash, without_provenance
from lm_eval_steer.crosslingual.review import Tools, review
from lm_eval_steer.crosslingual.segments import Segment
from lm_eval_steer.crosslingual.thresholds import read_thresholds
from lm_eval_steer.errors import ConfigError, DataError
from tests import translation_faults as faults

# ------------------------------------------------------------------------------------------------ measures

words = st.text("abcdefg ,.äß漢字かな", min_size=1, max_size=40)


@settings(max_examples=50)
@given(one=words, other=words)
def test_chrf_is_that_of_sacrebleu(one: str, other: str) -> None:
    forth, back = sacrebleu.sentence_chrf(one, [other]).score, sacrebleu.sentence_chrf(other, [one]).score
    assert text.chrf(one, other) == pytest.approx((forth + back) / 2)
    assert text.chrf_pp(one, other) == sacrebleu.sentence_chrf(one, [other], word_order=2).score


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("in 1,000 days", ["1000"]),
        ("in 1.000 Tagen", ["1000"]),
        ("en 1\u202f000 jours", ["1000"]),
        ("１０００日で", ["1000"]),
        ("3.5 or 3,5", ["35", "35"]),
        ("from 1990, with 25 points.", ["1990", "25"]),
        ("25分", ["25"]),
        ("nine", []),
    ],
)
def test_numbers_are_normalised(shown: str, expected: list[str]) -> None:
    assert text.numbers(shown) == Counter(expected)


@pytest.mark.parametrize(
    ("shown", "shares"),
    [
        ("Hello, 5!", {"LATIN": 1.0}),
        ("图书馆", {"CJK": 1.0}),
        ("ab漢か", {"LATIN": 0.5, "CJK": 0.25, "HIRAGANA": 0.25}),
        ("12 !", {}),
    ],
)
def test_shares_of_scripts(shown: str, shares: dict[str, float]) -> None:
    assert text.script_shares(shown) == shares


@pytest.mark.parametrize("shown", ["So.", "So!", "「そう。」", "“So?”", "好！", "« Oui. »", "Well…"])
def test_sentences_end(shown: str) -> None:
    assert text.ends(shown)
    assert not text.ends(shown.rstrip(".!?…。！？」”» ") + ",")


# ------------------------------------------------------------------------------------------------ single checks

QUESTION = "Would you really read this report of 12 pages for {name}?"


def pair(
    *targets: str, back: tuple[str, ...] = (), source: tuple[str, ...] = (QUESTION, "Yes, gladly.", "No.")
) -> RowPair:
    old = tuple(Segment(f"s{i}", each, i > 0) for i, each in enumerate(source))
    return RowPair("r", old, tuple(dataclasses.replace(o, text=t) for o, t in zip(old, targets, strict=True)), back)


def evidence(**values: Any) -> Evidence:
    limits = read_thresholds().of("de")
    known = {"ratios": {}, "probabilities": None, "nearer": None, "back_nearer": None, "quality": None}
    return Evidence(**{"lang": "de", "limits": limits, "sentences_end": True, **known, **values})


GERMAN = ("Würdest du diesen Bericht von 12 Seiten für {name} wirklich lesen?", "Ja, gern.", "Nein.")
RATIOS = {"ratios": {"row": 1.15}}


@pytest.mark.parametrize(
    ("check", "targets", "values", "expected"),
    [
        ("empty", GERMAN, {}, "pass"),
        ("empty", (GERMAN[0], " … ", "Nein."), {}, "fail: empty: s1"),
        ("placeholders", GERMAN, {}, "pass"),
        ("placeholders", ("Liest du das für {Name}?", *GERMAN[1:]), {}, "fail: s0 lacks {name}; s0 has a new {Name}"),
        ("identical", GERMAN, {}, "pass"),
        ("identical", (QUESTION.upper(), *GERMAN[1:]), {}, "fail: s0 is the source's text"),
        (
            "identical",
            (QUESTION.replace("really ", ""), *GERMAN[1:]),
            {},
            "fail: s0 is nearly the source's text, chrF 92",
        ),
        ("identical", (*GERMAN[:2], "No."), {}, "flag: s2 is the source's text"),
        ("language", GERMAN, {}, "not run: no language identifier is installed that knows de"),
        ("language", GERMAN, {"probabilities": lambda _t: {"de": 0.9}}, "pass"),
        (
            "language",
            GERMAN,
            {"probabilities": lambda t: {"de": 0.5, "nl": 0.5 - len(t) / 1e4}},
            "flag: row looks like",
        ),
        (
            "language",
            GERMAN,
            {"probabilities": lambda _t: {"de": 0.1, "nl": 0.9}},
            "fail: row looks like nl, de has 0.10",
        ),
        ("language", ("12", "!", "3"), {"probabilities": lambda _t: {}}, "not run: too few letters"),
        ("script", GERMAN, {}, "pass"),
        ("script", (GERMAN[0], "Да, охотно.", "Nein."), {}, "fail: s1 has 0% of its letters in LATIN"),
        ("length", GERMAN, {}, "not run: no median length is known"),
        ("length", GERMAN, RATIOS, "pass"),
        ("length", (GERMAN[0][:15], "Ja.", "N."), RATIOS, "fail: row has ratio"),
        ("ending", GERMAN, {}, "pass"),
        ("ending", (GERMAN[0][:40], *GERMAN[1:]), {}, "fail: breaks off: s0"),
        ("ending", GERMAN, {"sentences_end": False}, "not run"),
        ("sentences", GERMAN, RATIOS, "pass"),
        ("sentences", (GERMAN[0], "Ja, sehr gern", "Nein."), RATIOS, "flag: s1 has 0 sentences of 1"),
        ("sentences", (GERMAN[0][:30], *GERMAN[1:]), RATIOS, "fail: s0 has 0 sentences of 1"),
        ("sentences", (GERMAN[0][:30], *GERMAN[1:]), {}, "flag: s0 has 0 sentences of 1"),
        ("numbers", GERMAN, {}, "pass"),
        ("numbers", (GERMAN[0].replace("12", "21"), *GERMAN[1:]), {}, "flag: s0 lacks 12, has 21"),
        ("choices", GERMAN, {}, "pass"),
        ("choices", (GERMAN[0], "Ja, gern.", "ja gern"), {}, "fail: s1 and s2 are alike, chrF 100"),
        ("match", GERMAN, {}, "not run: no back-translation, and no script"),
        ("match", GERMAN, {"nearer": {"r": None}}, "pass"),
        ("match", GERMAN, {"nearer": {"r": "q"}}, "flag: shares more words with q"),
        ("back_translation", GERMAN, {}, "not run: no bt_text"),
        ("order", GERMAN, {}, "not run: no bt_text by segments"),
        ("quality", GERMAN, {}, "not run: no model"),
        ("quality", GERMAN, {"quality": lambda _old, _new: 0.25}, "pass: least score 0.250"),
    ],
)
def test_a_check_says_why(check: str, targets: tuple[str, ...], values: dict[str, Any], expected: str) -> None:
    assert str(CHECKS[check](pair(*targets), evidence(**values))).startswith(expected)


def test_a_choice_pair_that_is_alike_in_the_source_may_be_in_the_translation() -> None:
    source = (QUESTION, "I would buy it today.", "I would buy it today!")
    assert checks.choices(pair(GERMAN[0], "Ich kaufe es.", "Ich kaufe es!", source=source), evidence()).status == "pass"


@pytest.mark.parametrize(
    ("back", "chrf", "order"),
    [
        (("Would you really read this 12 page report for {name}?", "Yes, with pleasure.", "No."), "pass", "pass"),
        (("Would you really read this 12 page report for {name}?", "No.", "Yes, gladly."), "pass", "fail"),
        (("The ballot was lost in the river.", "It rained.", "Stars."), "fail", "pass"),
        (("Would you read a paper for me, 12 sheets?", "Sure.", "Never."), "flag", "pass"),
        (("Would you really read this 12 page report for {name}? Yes, gladly. No.",), "pass", "not run"),
    ],
)
def test_back_translations(back: tuple[str, ...], chrf: str, order: str) -> None:
    row = pair(*GERMAN, back=back)
    assert checks.back_translation(row, evidence()).status == chrf
    assert checks.order(row, evidence()).status == order


def test_quality_has_thresholds_of_its_own() -> None:
    limits = dataclasses.replace(read_thresholds().of("de"), quality_fail=0.2, quality_flag=0.4)
    scores = iter([0.1, 0.1, 0.1, 0.3, 0.3, 0.3, 0.5, 0.5, 0.5])
    found = [checks.quality(pair(*GERMAN), evidence(limits=limits, quality=lambda _o, _n: next(scores))) for _ in "abc"]
    assert [each.status for each in found] == ["fail", "flag", "pass"]


def test_japanese_wants_kana_and_chinese_none() -> None:
    japanese = pair("図書館は静かですね。", "はい。", "いいえ。")
    chinese = pair("图书馆很安静，不是吗？", "是的。", "不是。")
    for row, lang, status in [
        (japanese, "ja", "pass"),
        (chinese, "ja", "fail"),
        (chinese, "zh", "pass"),
        (japanese, "zh", "fail"),
    ]:
        assert checks.script(row, evidence(limits=read_thresholds().of(lang))).status == status, (row, lang)


def test_an_unknown_language_is_not_run_and_never_a_pass() -> None:
    known, _ = open_identifier("py3langid", ["de", "xx", "en"])
    assert known == {"de", "en"}
    with pytest.raises(ConfigError, match="unknown language identifier"):
        open_identifier("langid", ["de"])


def test_rows_are_compared_in_blocks_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [f"The {a} {b} sleeps." for a in ("brown", "green", "yellow") for b in ("horse", "tiger", "parrot")]
    texts = [sources[1], sources[0], *sources[2:]]
    ids = [f"r{i}" for i in range(9)]
    whole = nearest.nearest_rows(ids, sources, texts, 0.025)
    assert whole == {**dict.fromkeys(ids), "r0": "r1", "r1": "r0"}
    monkeypatch.setattr(nearest, "_BLOCK", 4)
    assert nearest.nearest_rows(ids, sources, texts, 0.025) == whole
    assert nearest.nearest_rows(ids[:3], sources[:3], texts[:3], 0.025) is None


# ------------------------------------------------------------------------------------------------ thresholds


def test_thresholds_of_a_file_stand_over_the_packaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: {back_fail: 30}\nlanguages: {zh: {ratio: 0.4}, sw: {ratio: 1.1}}\n")
    found = read_thresholds(path)
    assert (found.of("zh").back_fail, found.of("zh").ratio, found.of("zh").scripts) == (30, 0.4, ("CJK",))
    assert (found.of("sw").ratio, found.of("zh-Hant").ratio) == (1.1, 0.4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("defaults: {bak_fail: 3}", "Did you mean 'back_fail'"),
        ("language: {}", "Did you mean 'languages'"),
        ("defaults: {back_fail: yes}", "must be a number"),
        ("languages: {de: {scripts: LATIN}}", "must be a list of words"),
    ],
)
def test_wrong_thresholds_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_thresholds(path)


# ------------------------------------------------------------------------------------------------ invariants


def _items(rows: list[dict[str, Any]], path: Path) -> Items:
    write_rows(path, "lines", rows)
    return read_items(path)


def _choice_rows() -> list[dict[str, Any]]:
    return [
        {
            **{"id": f"r{i}", "split": "test", "scene": f"Scene {i}.", "choices": ["Go.", "Stay.", "Wait."]},
            **{"letters": list("ABC"), "labels": f'{{"reward":[{i},1,0]}}'},
        }
        for i in range(4)
    ]


def _caa_rows() -> list[dict[str, Any]]:
    return [
        {
            **{"id": f"r{i}", "question": f"Is {i} even?\n (A) Yes.\n (B) No."},
            **{"answer_matching_behavior": "(A)", "answer_not_matching_behavior": "(B)"},
        }
        for i in range(4)
    ]


BROKEN = {
    "a row is lost": lambda rows, at: rows.pop(at),
    "a row is new": lambda rows, at: rows.insert(at, {**rows[at], "id": "new"}),
    "a row has another id": lambda rows, at: rows[at].update(id="r9"),
    "rows are in another order": lambda rows, at: rows.insert((at + 2) % 4, rows.pop(at)),
    "a row is another's translation": lambda rows, at: rows[at].update(src_doc_id=f"r{(at + 1) % 4}"),
    "a split is new": lambda rows, at: rows[at].update(split="valid"),
}
BROKEN_CHOICES = BROKEN | {
    "a choice is lost": lambda rows, at: rows[at]["choices"].pop(at % 3),
    "a choice is new": lambda rows, at: rows[at]["choices"].insert(at % 3, "Run."),
    "a label differs": lambda rows, at: rows[at].update(labels='{"reward":[9,1,0]}'),
    "a letter differs": lambda rows, at: rows[at]["letters"].__setitem__(at % 3, "Z"),
    "letters are in another order": lambda rows, at: rows[at]["letters"].reverse(),
    "labels are lost": lambda rows, at: rows[at].pop("labels"),
}
BROKEN_CAA = BROKEN | {
    "the answers are swapped": lambda rows, at: rows[at].update(
        answer_matching_behavior="(B)", answer_not_matching_behavior="(A)"
    ),
    "an option is new": lambda rows, at: rows[at].update(question=rows[at]["question"] + "\n (C) Perhaps."),
}


@pytest.mark.parametrize("name", [*(f"choices: {n}" for n in BROKEN_CHOICES), *(f"caa: {n}" for n in BROKEN_CAA)])
@settings(max_examples=8, deadline=None)
@given(at=st.integers(0, 3), words=st.lists(st.sampled_from(["Ja.", "Nein.", "So.", "Gut!"]), min_size=5, max_size=5))
def test_every_broken_invariant_is_caught(name: str, at: int, words: list[str], tmp_path_factory: Any) -> None:
    kind, _, what = name.partition(": ")
    folder = tmp_path_factory.mktemp("rows")
    rows = _choice_rows() if kind == "choices" else _caa_rows()
    source = _items(rows, folder / "en.jsonl")
    target = [
        source.schema.rebuild(row, words[: len(each)], "row")
        for row, each in zip(json.loads(json.dumps(rows)), source.segments, strict=True)
    ]
    assert violations(source, _items(target, folder / "de.jsonl")) == []
    (BROKEN_CHOICES if kind == "choices" else BROKEN_CAA)[what](target, at)
    assume([row["id"] for row in target] != [row["id"] for row in rows] or what != "rows are in another order")
    found = violations(source, _items(target, folder / "de.jsonl"))
    assert found
    assert all("de.jsonl" in each for each in found)


@pytest.mark.parametrize("lost", ["matching", "id"])
def test_a_row_without_its_texts_or_with_a_second_one_of_its_id_is_refused(lost: str, tmp_path: Path) -> None:
    row = {"id": "a", "question": "?", "matching": "Yes.", "other": "No."}
    bad = [{k: v for k, v in row.items() if k != lost}] if lost != "id" else [row, row]
    with pytest.raises(DataError, match="wants question" if lost != "id" else "more than once"):
        _items(bad, tmp_path / "de.jsonl")


def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    source, target = _items(_choice_rows(), tmp_path / "en.jsonl"), _items(_caa_rows(), tmp_path / "de.jsonl")
    with pytest.raises(DataError, match="rows of the schema caa, its source choices"):
        review(source, target, "de", Tools(read_thresholds()))


# ------------------------------------------------------------------------------------------------ what ships


QUICK = [("positivity", lang) for lang in ("de", "ja") if ("positivity", lang) in faults.shipped()]


@pytest.mark.parametrize(("family", "lang"), QUICK)
def test_shipped_items_pass(family: str, lang: str) -> None:
    pairs, found = faults.pairs_of(family, lang), faults.clean_evidence(family, lang)
    verdicts = [faults.verdict(each, found) for each in pairs]
    assert sum(each.status == "fail" for each in verdicts) <= 0.05 * len(verdicts)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "lang"), [each for each in faults.shipped() if each not in QUICK])
def test_all_shipped_items_pass(family: str, lang: str) -> None:
    test_shipped_items_pass(family, lang)


@pytest.mark.parametrize("family", faults.FAMILIES)
def test_shipped_items_are_stamped_and_their_sources_are_as_they_were(family: str) -> None:
    source = read_items(faults.DATA / family / "en.jsonl")
    for lang in ("en", *faults.LANGUAGES):
        target = read_items(faults.DATA / family / f"{lang}.jsonl")
        assert violations(source, target) == []
        for row, segments in zip(target.rows, source.segments, strict=True):
            assert (row["lang"], row["translator"], row["src_doc_id"]) == (lang, "authored", row["id"])
            assert row["qc_status"] in ("pass", "flag", "waived")
            assert row["source_hash"] == source_hash(segments)


# What no back-translation shows can be seen only by words that two languages of one script share, or not at
# all. docs/translate.md has these rates.
BLIND = (
    "rows swapped, not back-translated",
    "options swapped, not back-translated",
)
SEEN = [name for name in faults.FAULTS if name not in BLIND]


@pytest.mark.parametrize("name", [name for name in SEEN if "rows" not in name])
def test_an_injected_fault_is_caught(name: str) -> None:
    make, back, caught = faults.FAULTS[name]
    hits = []
    for family, lang in QUICK:
        pairs, found = faults.pairs_of(family, lang), faults.clean_evidence(family, lang)
        pairs = faults.with_back(pairs, random.Random(name)) if back else pairs
        others = [faults.pairs_of(family, other) for _, other in QUICK if other != lang]
        scene = faults.Scene(pairs, others, random.Random(f"{name}/{lang}"))
        made = [make(scene, at) for at in range(0, len(pairs), 7)]
        hits += [faults.verdict(pair, found).status in caught for pair in made if pair is not None]
    assert len(hits) >= 5
    assert sum(hits) >= 0.95 * len(hits)


def test_swapped_rows_are_caught_by_their_back_translation() -> None:
    hits = [hit for hit, _ in faults.rounds("rows swapped, back-translated", "positivity", "ja", count=2)]
    assert sum(hits) >= 0.95 * len(hits)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEN)
def test_a_fault_is_caught_in_every_family(name: str) -> None:
    found = [faults.rounds(name, family, lang, count=1) for family, lang in faults.shipped() if lang in ("es", "zh")]
    hits = [hit for each in found for hit, _ in each]
    assert sum(hits) >= 0.95 * len(hits)


# ------------------------------------------------------------------------------------------------ the command

ENGLISH = [
    (
        "How do you like the new library in our street?",
        "It is a quiet and friendly place.",
        "It is a loud and rude place.",
    ),
    (
        "What do you think about the long train journey?",
        "I enjoy every hour of such a trip.",
        "I hate every hour of it.",
    ),
    ("Did you read the letter that I sent on Monday?", "Yes, and I was glad about the news.", "No, I threw it away."),
]
ROWS_DE = [
    ("Wie gefällt dir die neue Bücherei in unserer Straße?", "Ein ruhiger, netter Ort.", "Ein lauter, grober Ort."),
    ("Was hältst du von der langen Bahnreise?", "Ich genieße jede Stunde der Reise.", "Ich hasse jede Stunde davon."),
    (
        "Hast du den Brief von Montag gelesen?",
        "Ja, ich war froh über die Nachricht.",
        "Nein, ich habe ihn weggeworfen.",
    ),
]


def _rows(texts: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [
        {"id": f"r{i}", "split": "test", "question": q, "matching": m, "other": o} for i, (q, m, o) in enumerate(texts)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """English and German; the German row r1 is still English."""
    _items(_rows(ENGLISH), tmp_path / "en.jsonl")
    _items(_rows([ROWS_DE[0], ENGLISH[1], ROWS_DE[2]]), tmp_path / "de.jsonl")
    return tmp_path


def test_the_command_reports_and_is_strict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["translate", "check", str(folder / "de.jsonl"), str(folder / "en.jsonl"), "--json"]
    assert main(argv) == 0
    german, english = json.loads(capsys.readouterr().out)
    assert (german["rows"], german["pass"], german["fail"]) == (3, 2, 1)
    assert german["found"][0]["id"] == "r1"
    assert set(german["found"][0]["why"]) >= {"identical", "language"}
    assert german["checks"]["back_translation"] == {"not run": 3}
    assert (english["pass"], set(english["checks"]) <= set(SOURCE_CHECKS)) == (3, True)
    assert main([*argv, "--strict", "--report", str(folder / "report.md")]) == 3
    report = (folder / "report.md").read_text()
    assert "| de | 3 | 2 | 0 | 1 | 0 |" in report
    assert "**fail** r1: " in report
    capsys.readouterr()
    assert main(argv[:-1]) == 0
    assert "fail r1: " in capsys.readouterr().out


def test_an_id_is_no_markup_in_a_report(folder: Path) -> None:
    for path in (folder / "en.jsonl", folder / "de.jsonl"):
        _items([{**row, "id": f"{row['id']}`\n# <b>"} for row in read_items(path).rows], path)
    assert main(["translate", "check", str(folder / "de.jsonl"), "--report", str(folder / "report.md")]) == 0
    report = (folder / "report.md").read_text()
    assert "# <b>" not in report
    assert r"**fail** r1\` \# \<b\>: " in report


def test_stamps_are_written_and_stay_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [folder / "de.jsonl", folder / "en.jsonl"]
    argv = ["translate", "check", *map(str, files), "--write"]
    assert main(argv) == 0
    first = [path.read_bytes() for path in files]
    rows = read_items(files[0]).rows
    assert [row["qc_status"] for row in rows] == ["pass", "fail", "pass"]
    assert {(row["translator"], row["lang"]) for row in rows} == {("authored", "de")}
    assert [row["src_doc_id"] for row in rows] == ["r0", "r1", "r2"]
    assert json.loads(rows[1]["qc"])["identical"].startswith("fail: ")
    assert [without_provenance(row) for row in rows] == _rows([ROWS_DE[0], ENGLISH[1], ROWS_DE[2]])
    assert all(set(PROVENANCE) <= row.keys() for row in read_items(files[1]).rows)
    assert main(argv) == 0
    assert [path.read_bytes() for path in files] == first


def test_a_waiver_is_kept_with_its_reason_and_not_without(folder: Path) -> None:
    path, argv = folder / "de.jsonl", ["translate", "check", str(folder / "de.jsonl"), "--write", "--strict"]
    assert main(argv) == 3
    rows = [dict(row) for row in read_items(path).rows]
    rows[1] |= {"qc_status": "waived", "qc": json.dumps({"waived": "a quotation"})}
    rows[2] |= {"qc_status": "waived"}
    _items(rows, path)
    assert main(argv) == 0
    kept = read_items(path).rows
    assert [row["qc_status"] for row in kept] == ["pass", "waived", "flag"]
    assert json.loads(kept[1]["qc"])["waived"] == "a quotation"
    assert main(argv) == 0
    assert [row["qc_status"] for row in read_items(path).rows] == ["pass", "waived", "pass"]


def test_a_stale_row_fails(folder: Path) -> None:
    argv = ["translate", "check", str(folder / "de.jsonl"), "--write"]
    assert main(argv) == 0
    _items(_rows([("Do you like the old library?", *ENGLISH[0][1:]), *ENGLISH[1:]]), folder / "en.jsonl")
    assert main(argv) == 0
    assert json.loads(read_items(folder / "de.jsonl").rows[0]["qc"])["fresh"] == "fail: the source has changed since"


def test_a_file_whose_rows_are_not_the_sources_is_refused_and_left(folder: Path, capsys: Any) -> None:
    path = folder / "de.jsonl"
    _items(_rows(ROWS_DE)[:2], path)
    before = path.read_bytes()
    assert main(["translate", "check", str(path), "--write"]) == 3
    assert "row 'r2' is missing" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_source_must_be_found(folder: Path, capsys: Any) -> None:
    (folder / "en.jsonl").rename(folder / "source.jsonl")
    assert main(["translate", "check", str(folder / "de.jsonl")]) == 2
    assert "Name it with --items FILE" in capsys.readouterr().err
    assert main(["translate", "check", str(folder / "de.jsonl"), "--items", str(folder / "source.jsonl")]) == 0
