"""Languages in compare and report: from ledgers to tables, JSON and a page; nothing where there is one language."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lm_eval_steer.cli.main import main
from lm_eval_steer.errors import InputError
from lm_eval_steer.stats.compute import read_panels
from lm_eval_steer.stats.crosslingual import track
from lm_eval_steer.stats.crosslingual.alignment import UNKNOWN, read_alignments
from tests.crosslingual_tools import orthogonal_directions, write_family
from tests.curve_tools import write_ledger
from tests.report_tools import parse

LANGUAGES = ("en", "fr")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two languages whose vectors have nothing to do with one another, with 20 random directions each."""
    folder = tmp_path_factory.mktemp("family") / "sweep"
    write_family(folder, orthogonal_directions(languages=LANGUAGES), n=12, k=20, missing={"fr": [3]})
    return folder


@pytest.fixture(scope="module")
def alignment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the ledger, which does not know French."""
    file = tmp_path_factory.mktemp("alignment") / "alignment.json"
    content = {
        **{"schema": 1, "family": "joy", "items": 40, "languages": ["en", "fr"]},
        "model": {"id": "tiny", "fingerprint": {"config": "tiny", "weights": "tiny", "tokenizer": "t"}},
        "precision": {"3": {"en": {"fr": 0.2}, "fr": {"en": 0.1}}},
        "cosines": [],
    }
    file.write_text(json.dumps(content))
    return file


def compared(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["compare", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_json_holds_every_number(ledger: Path, alignment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = compared(capsys, ledger, "--format", "json", "--alignment", alignment)
    (family,) = json.loads(out)["crosslingual"]["families"]
    assert (family["family"], family["items"], family["metric"]) == ("joy", 11, "p_match")
    assert [(each["name"], each["left_out"]) for each in family["languages"]] == [("en", 1), ("fr", 0)]
    (layer,) = family["places"][0]["layers"]
    cells = {(cell["source"], cell["language"]): cell for cell in layer["transfers"][0]["cells"]}
    assert cells["en", "en"]["ratio"]["value"] == pytest.approx(1.0)
    assert cells["en", "fr"]["beyond_null"] is False
    assert cells["en", "fr"]["alignment"] == pytest.approx(0.15)
    assert cells["en", "fr"]["known"] is False
    assert layer["vectors"][0]["agreement"]["variance"]["language"]["value"] > 0


@pytest.mark.parametrize("form", ["table", "md", "tex"])
def test_people_read_the_same(ledger: Path, alignment: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    out = compared(capsys, ledger, "--format", form, "--alignment", alignment)
    for word in ("joy in 2 languages", "tested in fr", "null: in", UNKNOWN, "alpha", "not enough models"):
        assert word in out, word


def test_what_was_computed_is_kept(
    ledger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compared(capsys, ledger, "--format", "json")
    (kept,) = (ledger / "stats").glob("items-*.npz")
    calls: list[object] = []
    monkeypatch.setattr(track, "read_panels", lambda *args, **more: calls.append(args) or read_panels(*args, **more))
    assert compared(capsys, ledger, "--format", "json") == first
    assert calls == []
    kept.write_bytes(b"damaged")
    assert compared(capsys, ledger, "--format", "json") == first
    assert len(calls) == 1


def test_a_csv_has_rankings_only(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = compared(capsys, ledger, "--format", "csv").splitlines()
    assert {line.count(",") >= lines[0].count(",") for line in lines} == {True}


def test_one_language_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ledger(tmp_path / "plain", {"joy": 0.5})
    plain = compared(capsys, tmp_path / "plain", "--format", "json")
    assert "crosslingual" not in json.loads(plain)
    write_family(tmp_path / "one", {"v_en": {"en": 1.0}}, n=12)
    assert "crosslingual" not in json.loads(compared(capsys, tmp_path / "one", "--format", "json"))


def test_a_family_can_be_told_and_lie_in_two_ledgers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for language in LANGUAGES:
        write_family(tmp_path / language, {f"v_{language}": {language: 1.0}}, n=12, said=False, seed=1)
    folders = [tmp_path / language for language in LANGUAGES]
    assert "crosslingual" not in json.loads(compared(capsys, *folders, "--format", "json"))
    told = ["--family", "mine:en=xl_joy_en,fr=xl_joy_fr"]
    (family,) = json.loads(compared(capsys, *folders, "--format", "json", *told))["crosslingual"]["families"]
    assert family["family"] == "mine"
    assert {name for effect in family["places"][0]["layers"][0]["vectors"] for name in effect["steerability"]} == {
        "en",
        "fr",
    }


def test_a_family_that_is_not_there_is_named(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(ledger), "--family", "x:en=xl_joy_em,fr=xl_joi_fr"]) == 2
    assert "xl_joy_en" in capsys.readouterr().err
    assert main(["compare", str(ledger), "--family", "x:en=xl_joy_en,fr=xl_joi_fr"]) == 2
    assert "xl_joi_fr" in capsys.readouterr().err


def test_the_report_has_a_section_with_the_matrix(ledger: Path, alignment: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(ledger), "--out", str(out), "--alignment", str(alignment)]) == 0
    page = parse(out.read_text(encoding="utf-8"))
    (section,) = [each for each in page.find("section") if "joy in 2 languages" in each.text]
    (figure,) = section.find("figure")
    assert figure.attributes["id"].startswith("languages-")
    assert "P@1 0.15" in figure.text
    assert "Agreement of each item" in section.text
    assert UNKNOWN in section.text
    links = {link.attributes["href"] for link in page.find("nav")[0].find("a")}
    assert f"#{section.find('h2')[0].attributes['id']}" in links


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}', '{"schema": 1, "precision": {"x": {}}}'])
def test_what_is_no_alignment_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="lm-eval-steer align"):
        read_alignments([tmp_path / "a.json"])
