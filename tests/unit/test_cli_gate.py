"""``lm-eval-steer gate``: exit codes, what it prints, JUnit, summaries, and updates that keep the policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lm_eval_steer.cli.main import main
from lm_eval_steer.gate.junit import to_junit
from lm_eval_steer.gate.report import Finding, Report
from lm_eval_steer.gate.text import to_markdown, to_text
from lm_eval_steer.stats.curve import Estimate
from tests.gate_tools import sweep
from tests.weight import HEAVY, weigh


@pytest.fixture
def place(tmp_path: Path) -> Path:
    sweep(tmp_path / "base")
    assert gate(tmp_path, "base", "--update-baseline") == 0
    return tmp_path


def gate(place: Path, ledger: str, *more: str) -> int:
    return main(["gate", str(place / ledger), "--baseline", str(place / "b.json"), *more])


def edit(place: Path, **changes: Any) -> None:
    data = json.loads((place / "b.json").read_text())
    data["policy"].update(changes)
    (place / "b.json").write_text(json.dumps(data))


# ------------------------------------------------------------------------------------------------ exit codes


def test_exit_0_on_a_rerun(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert gate(place, "base", "--strict") == 0
    out = capsys.readouterr().out
    assert "gate: pass, exit code 0 (subject: vector)" in out
    assert "baseline 0.356; new 0.356; change +0 [+0, +0]; tolerance 0.02" in out


def test_exit_1_on_a_regression(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(place / "new", scale=-1.0)
    assert gate(place, "new") == 1
    out = capsys.readouterr().out
    assert "REGRESSION" in out
    assert "→ look at what changed" in out


def test_exit_1_on_a_broken_floor(place: Path) -> None:
    edit(place, floors={"mass": 0.99})
    assert gate(place, "base") == 1


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"subject": "vectr"}, []),
        ({}, ["--where", "layr=1"]),
        ({}, ["--update-baseline", "--strict"]),
        ({}, ["--update-baseline", "--junit", "j.xml"]),
        ({"where": "layer=99"}, ["--update-baseline"]),
    ],
)
def test_exit_2_on_what_cannot_be_asked(place: Path, changes: dict[str, Any], options: list[str]) -> None:
    edit(place, **changes)
    before = (place / "b.json").read_bytes()
    assert gate(place, "base", *options) == 2
    assert (place / "b.json").read_bytes() == before


def test_exit_2_without_a_baseline_option(place: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["gate", str(place / "base")])
    assert caught.value.code == 2


def test_exit_3_on_what_cannot_be_compared(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(place / "new", layer=21)
    assert gate(place, "new") == 3
    assert "block_out.20 → block_out.21" in capsys.readouterr().out
    assert gate(place, "nowhere") == 3
    assert "no ledger" in capsys.readouterr().err


def test_exit_4_on_too_little_to_tell_where_strict(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A vector of nine tenths on average: whether that is within 10 % is more than 60 items can say."""
    edit(place, metrics={"steerability": {"direction": "higher", "tolerance": "10%"}})
    sweep(place / "new", scale=0.9)
    assert gate(place, "new", "--strict") == 4
    assert gate(place, "new") == 0
    assert "inconclusive (a warning; --strict makes it fail)" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ updating


def test_an_update_keeps_the_policy_and_says_what_it_wrote(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(place, subject="code", draws=300)
    sweep(place / "new", scale=0.5)
    assert gate(place, "new", "--where", "layer=20, control=none", "--update-baseline") == 0
    out = capsys.readouterr().out
    assert "policy kept" in out
    assert "behaviour steerability" in out
    data = json.loads((place / "b.json").read_text())
    assert (data["policy"]["subject"], data["policy"]["draws"]) == ("code", 300)
    assert data["policy"]["where"] == "layer=20, control=none"
    assert gate(place, "new", "--strict") == 0


def test_the_first_update_writes_a_policy_and_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path / "base")
    assert gate(tmp_path, "base", "--update-baseline") == 0
    out = capsys.readouterr().out
    assert "policy written" in out
    shown = json.loads(out[out.index("{") :])
    assert shown == json.loads((tmp_path / "b.json").read_text())["policy"]
    before = (tmp_path / "b.json").read_bytes()
    assert gate(tmp_path, "base", "--update-baseline", "--json") == 0
    assert json.loads(capsys.readouterr().out)["policy"] == shown
    assert (tmp_path / "b.json").read_bytes() == before


def test_a_policy_alone_is_a_beginning(tmp_path: Path) -> None:
    sweep(tmp_path / "base")
    policy = {"subject": "vector", "metrics": {"match": {"direction": "along", "tolerance": 0.1}}}
    (tmp_path / "b.json").write_text(json.dumps({"policy": policy}))
    assert gate(tmp_path, "base") == 3
    assert gate(tmp_path, "base", "--update-baseline") == 0
    assert gate(tmp_path, "base") == 0


def test_a_negative_steerability_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path / "base", scale=-1.0)
    assert gate(tmp_path, "base", "--update-baseline") == 0
    assert "steerability is negative" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ outputs


def test_json_alone_on_stdout(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(place / "new", scale=0.3)
    capsys.readouterr()
    assert gate(place, "new", "--json") == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["verdict"], data["exit_code"], data["subject"]) == ("regression", 1, "vector")
    finding = next(f for f in data["findings"] if f["metric"] == "steerability")
    assert finding["change"]["high"] < -finding["tolerance"] < 0


def test_junit_and_summary_are_written_and_the_summary_is_appended(place: Path) -> None:
    sweep(place / "new", scale=-1.0)
    (place / "s.md").write_text("# before\n\n")
    outputs = ["--junit", str(place / "out" / "j.xml"), "--summary", str(place / "s.md")]
    assert gate(place, "new", *outputs) == 1
    suite = ElementTree.parse(place / "out" / "j.xml").getroot()
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        **{"tests": "4", "failures": "3", "errors": "0"}
    }
    assert suite.findall("testcase/failure")[0].get("type") == "regression"
    text = (place / "s.md").read_text()
    assert text.startswith("# before\n\n### lm-eval-steer gate: regression, exit code 1\n")
    assert len([line for line in text.splitlines() if line.startswith("| behaviour |")]) == 4


def test_a_gate_that_cannot_judge_says_so_in_its_files_too(place: Path) -> None:
    outputs = ["--junit", str(place / "j.xml"), "--summary", str(place / "s.md")]
    assert gate(place, "nowhere", *outputs) == 3
    assert ElementTree.parse(place / "j.xml").getroot().get("errors") == "1"
    assert "no ledger" in (place / "s.md").read_text()


def report(*findings: Finding, name: str = "n") -> Report:
    return Report(name, name, "vector", findings, (name,))


ESTIMATE = Estimate(-0.1, -0.3, 0.1, 40, "percentile")


@pytest.mark.parametrize(("strict", "outcome"), [(False, "skipped"), (True, "failure")])
def test_junit_of_an_inconclusive_number(strict: bool, outcome: str) -> None:
    text = to_junit(report(Finding("metric", "t", "m", "p", "inconclusive", 0.5, 0.4, ESTIMATE, 0.1)), strict=strict)
    (case,) = ElementTree.fromstring(text).findall("testcase")
    assert [child.tag for child in case] == [outcome]
    assert "change -0.1 [-0.3, +0.1]" in str(case[0].get("message"))


HOSTILE = [
    "a|b",
    "<script>alert(1)</script>",
    ']]><x y="',
    "\x1b[31mred\x1b[0m\x00\x08",
    "`code` **bold** [l](http://x)",
    "two\nlines\r\n# head",
    "\ud800 \ufffe \u202e",
    "=cmd|' /C calc'!A0",
    "&lt;b&gt;",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_harmless(name: str) -> None:
    findings = [
        Finding("metric", name, name, name, "regression", 0.5, 0.4, ESTIMATE, 0.1, why=name, todo=name),
        Finding("floor", name, name, name, "incomparable", 0.5, None, why=name),
        Finding("metric", name, name, name, "pass", 0.5, 0.5),
    ]
    hostile = report(*findings, name=name)
    suite = ElementTree.fromstring(to_junit(hostile).encode("utf-8"))
    assert [child.tag for child in suite] == ["testcase"] * 3
    assert {each.tag for each in suite.iter()} == {"testsuite", "testcase", "failure", "error", "system-out"}
    text, page = to_text(hostile), to_markdown(hostile)
    for output in (text, page, to_junit(hostile)):
        assert not {"\x1b", "\x00", "\x08", "\r", "\ud800", "\u202e"} & set(output)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(findings)
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    plain = page.replace("\\<", "").replace("\\`", "").replace("\\[", "")
    assert not any(mark in plain for mark in ("<script", "`", "[", "<x"))
    assert sum(line.startswith("#") for line in page.splitlines()) == 1
    assert len(text.splitlines()) == 2 * len(findings) + sum(bool(f.advice) for f in findings) + 2


# ------------------------------------------------------------------------------------------------ weight


@pytest.mark.slow
def test_of_200_cells_only_the_gated_ones_are_read_and_nothing_heavy_is_loaded(
    tmp_path: Path,
) -> None:
    for layer in range(66):
        sweep(tmp_path / "base", layer=layer, doses=(-1.0, 0.0, 0.5, 1.0), n=20)
    assert gate(tmp_path, "base", "--where", "layer=20, control=none", "--update-baseline") == 0
    # The first run computes the statistics that the floor on mass needs; they are stored beside the ledger.
    asked = ["gate", str(tmp_path / "base"), "--baseline", str(tmp_path / "b.json"), "--json"]
    first, again = weigh(asked), weigh(asked)
    assert again.samples_opened == 4  # per item: those of the gated curve and the unsteered ones
    assert not again.modules & HEAVY
    assert (first.code, again.code, again.stdout) == (0, 0, first.stdout)
    assert len(list((tmp_path / "base" / "cells").iterdir())) == 199
