"""The command line's edge: help, exit codes, and the options that a command passes on."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lm_eval_steer import __version__, errors
from lm_eval_steer.cli import main as cli
from tests.weight import weigh

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "lm_eval", "transformers", "datasets", "numpy", "rich", "nnsight", "matplotlib"}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make ``fake`` the only subcommand."""

    def install(run: Callable[[argparse.Namespace], int], **defaults: Any) -> None:
        def add_parser(subparsers: Any) -> None:
            parser = subparsers.add_parser("fake")
            parser.add_argument("--mine", action="store_true")
            parser.set_defaults(run=run, **defaults)

        module = types.ModuleType("fake")
        module.add_parser = add_parser  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "lm_eval_steer.cli.fake", module)
        monkeypatch.setattr(cli, "COMMANDS", ("fake",))

    return install


# ------------------------------------------------------------------------------------------------ help


def subcommand_names() -> list[str]:
    """Every command there is; a module may hold several."""
    actions = cli.build_parser()._subparsers._group_actions  # type: ignore[union-attr]
    return sorted(actions[0].choices)  # type: ignore[arg-type]


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in subcommand_names())])
def test_help_loads_nothing_heavy(argv: list[str]) -> None:
    done = weigh(argv)
    assert done.code == 0
    assert "examples:" in done.stdout
    assert not HEAVY & done.modules


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"lm-eval-steer {__version__}\n"


def test_no_command_shows_the_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == errors.EXIT_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "examples:" in err


@pytest.mark.parametrize("argv", [["nonsense"], ["--nonsense"], ["fake", "--nonsense"], ["fake", "stray"]])
def test_what_nobody_knows_is_a_usage_error(
    argv: list[str], fake: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    fake(lambda args: pytest.fail("must not run"))
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == errors.EXIT_USAGE
    assert argv[-1] in capsys.readouterr().err


def test_a_command_that_passes_options_on_gets_the_rest_in_order(fake: Callable[..., None]) -> None:
    seen: list[argparse.Namespace] = []
    fake(lambda args: seen.append(args) or 0, rest=[])
    rest = ["--model_args", "a=1", "b=-2", "-t", "x", "y", "--limit=3", "--seed", "-1", "--system_instruction", "-a b"]
    assert cli.main(["fake", *rest[:5], "--mine", *rest[5:]]) == 0
    assert seen[0].rest == rest
    assert seen[0].mine


# ------------------------------------------------------------------------------------------------ exit codes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("c"), 2),
        (errors.MissingExtraError("gguf", "gguf"), 2),
        (errors.ShapeError("s"), 3),
        (errors.WriteError("w"), 3),
        (errors.SteerError("e"), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_the_user_can_mend_is_one_message(
    error: errors.SteerError, code: int, fake: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        raise error

    fake(run)
    assert cli.main(["fake"]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {error}\n")


def test_the_commands_own_exit_code_is_returned(fake: Callable[..., None]) -> None:
    fake(lambda args: errors.EXIT_REGRESSION)
    assert cli.main(["fake"]) == errors.EXIT_REGRESSION


def test_interrupted(fake: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    fake(run)
    assert cli.main(["fake"]) == errors.EXIT_INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_keeps_its_traceback(fake: Callable[..., None]) -> None:
    def run(args: argparse.Namespace) -> int:
        raise ZeroDivisionError("a bug")

    fake(run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["fake"])


@pytest.mark.parametrize("lines", [1, 100_000], ids=["at the flush", "at a print"])
def test_a_closed_pipe_is_quiet_and_no_verdict(lines: int) -> None:
    code = (
        "import sys, types\nfrom lm_eval_steer.cli import main\n"
        f"def run(args):\n    for _ in range({lines}): print('x' * 80)\n    return 0\n"
        "fake = types.ModuleType('fake')\n"
        "fake.add_parser = lambda subparsers: subparsers.add_parser('fake').set_defaults(run=run)\n"
        "sys.modules['lm_eval_steer.cli.fake'] = fake\nmain.COMMANDS = ('fake',)\nsys.exit(main.main(['fake']))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (cli.EXIT_BROKEN_PIPE, b"")
