"""``lm-eval-steer run``: what it hands to lm-eval and what it takes from it."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from lm_eval_steer import errors
from lm_eval_steer.cli import main as cli
from lm_eval_steer.cli import run as run_command

ROOT = Path(__file__).resolve().parents[2]


def command(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **env}
    start = [sys.executable, "-m", "lm_eval_steer.cli.main"]
    return subprocess.run([*start, *argv], env=environment, capture_output=True, text=True, check=False)


# ------------------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    "argv",
    [
        ["--model_args", "a=1,b=2,a=3"],
        ["--model_args", "a=1", "b=2", "a=3"],
        ["--model_args", "a=1", "--tasks", "t", "--model_args", "b=1,a=1"],
        ["-a", "a=1,a=1"],
        ["--model_args=a=1,a=2"],
        ["--model_arg", "a=1,a=2"],
        ["--model", "m", "-aa=1,a=2"],
        ["--model_args", '{"a": 1, "b": 2, "a": 3}'],
        ["--model_args", '{"a": {"x": 1}}', "-a", "a=2"],
        ["--model_args", "b=[1,2],a=(3,4),a='x,y'"],
    ],
)
def test_a_key_given_twice_is_refused(argv: list[str]) -> None:
    with pytest.raises(errors.ConfigError, match="'a' more than once") as caught:
        run_command.check_repeated_keys(argv)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--model", "steered_hf", "--tasks", "a,a"],
        ["--model_args", "a=1,b=2"],
        ["--model_args", "a=[b=1,b=2],c='d=1,d=2'"],
        ["--model_args", '{"a": {"x": 1}, "b": {"x": 1}}'],
        ["--model_args", "a=1", "--gen_kwargs", "a=1,a=2"],
        ["--model_args", "a=1", "--metadata", "a=1"],
    ],
)
def test_keys_given_once_pass(argv: list[str]) -> None:
    run_command.check_repeated_keys(argv)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """What lm-eval's own ``run`` would be executed with."""
    from lm_eval._cli import HarnessCLI

    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(HarnessCLI, "execute", lambda self, args: seen.append(args))
    return seen


def test_run_means_the_steered_model_unless_told_otherwise(executed: list[argparse.Namespace], tmp_path: Path) -> None:
    (tmp_path / "with.yaml").write_text("model: hf\ntasks: [t]\n")
    (tmp_path / "without.yaml").write_text("tasks: [t]\n")
    before = list(sys.argv)
    for argv in (
        ["--tasks", "t"],
        ["--tasks", "t", "-M", "hf"],
        ["--config", str(tmp_path / "with.yaml")],
        ["--config", str(tmp_path / "without.yaml")],
    ):
        assert cli.main(["run", *argv]) == 0
    assert [args.model for args in executed] == ["steered_hf", "hf", None, "steered_hf"]
    assert executed[0].tasks == ["t"]
    assert executed[0].func.__module__ == "lm_eval._cli.run"
    assert sys.argv == before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "nothing to run"),
        (["--json"], "nothing to run"),
        (["--model_args", "a=1"], "no task"),
        (["--config", "EMPTY"], "no task"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--tasks", "t", "--log_samples"], "--output_path"),
        (["--tasks", "t", "--model_args", "a=1,a=2"], "more than once"),
    ],
)
def test_arguments_that_lm_eval_refuses_are_one_message(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.yaml").write_text("limit: 2\n")
    argv = [str(tmp_path / "empty.yaml") if word == "EMPTY" else word for word in argv]
    assert cli.main(["run", *argv]) == errors.EXIT_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: " in err
    assert message in err


def test_an_error_from_deeper_in_lm_eval_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval._cli import HarnessCLI

    def execute(self: object, args: argparse.Namespace) -> None:
        int("no number")

    monkeypatch.setattr(HarnessCLI, "execute", execute)
    with pytest.raises(ValueError, match="invalid literal") as caught:
        cli.main(["run", "--tasks", "t"])
    assert not isinstance(caught.value, errors.SteerError)


# ------------------------------------------------------------------------------------------------ results


def test_json_prints_the_results_alone_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import lm_eval

    evaluator = types.ModuleType("lm_eval.evaluator")
    evaluator.simple_evaluate = lambda **_: {"results": {"t": {"acc,none": np.float32("nan"), "n": 2}}}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", evaluator)

    def call_lm_eval(rest: list[str]) -> None:
        print("a table")
        subprocess.run(["echo", "from a child"], check=True)
        assert lm_eval.simple_evaluate(model="m")["results"]

    monkeypatch.setattr(run_command, "call_lm_eval", call_lm_eval)
    assert cli.main(["run", "--json", "--tasks", "t"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"results": {"t": {"acc,none": None, "n": 2}}}
    assert "a table" in err
    assert "from a child" in err
    assert "simple_evaluate" not in vars(lm_eval)


def test_lm_eval_is_put_back_after_an_error() -> None:
    import lm_eval

    with pytest.raises(ZeroDivisionError), run_command.captured_results() as captured, run_command.stdout_on_stderr():
        raise ZeroDivisionError
    assert captured == []
    assert "simple_evaluate" not in vars(lm_eval)


def test_plain_json_values() -> None:
    value = {
        1: (np.float64(0.5), math.inf, -math.inf, math.nan),
        "s": {2},
        "b": np.bool_(True),
        "p": Path("x"),
        "n": None,
    }
    assert run_command.plain(value) == {"1": [0.5, None, None, None], "s": [2], "b": True, "p": "x", "n": None}


TASK = """\
task: lm_eval_steer_two_docs
dataset_path: json
dataset_kwargs: {data_files: {test: DOCS}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{label}}"
doc_to_choice: ["A", "B"]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.mark.slow
def test_a_program_gets_results_or_one_error(tmp_path: Path) -> None:
    (tmp_path / "docs.json").write_text('{"question": "q1", "label": 0}\n{"question": "q2", "label": 1}\n')
    (tmp_path / "task.yaml").write_text(TASK.replace("DOCS", str(tmp_path / "docs.json")))
    cache = {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    options = [
        "--json",
        "--model",
        "dummy",
        "--include_path",
        str(tmp_path),
        "--log_samples",
        "-o",
        str(tmp_path / "out"),
    ]
    good = command("run", *options, "--tasks", "lm_eval_steer_two_docs", **cache)
    assert good.returncode == 0, good.stderr
    results = json.loads(good.stdout)
    assert set(results["results"]["lm_eval_steer_two_docs"]) >= {"acc,none"}
    assert results["config"]["model"] == "dummy"
    assert "samples" not in results
    assert "|acc" in good.stderr.replace(" ", "")

    unknown = command("run", *options, "--tasks", "no_such_task", **cache)
    assert (unknown.returncode, unknown.stdout) == (errors.EXIT_USAGE, "")
    assert unknown.stderr.splitlines()[-1] == "error: Tasks not found: no_such_task"
