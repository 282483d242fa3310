"""``lm-eval-steer run``: lm-eval's own ``run`` with steering registered, and its results as JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers

_DESCRIPTION = """\
Run lm-eval on a steered model. Takes every option of `lm_eval run` (see: lm_eval run --help) and hands them to
lm-eval's own code. What it adds: --model is steered_hf unless you say otherwise, the packaged tasks are found, a key
given twice in --model_args is an error, and --json.
"""

_EPILOG = """\
examples:
  lm-eval-steer run --model_args pretrained=DIR_OR_HUB,vector=V.safetensors,layer=12,multiplier=1.5 \\
                    --tasks control_positivity
  lm-eval-steer run --json --model_args spec=plan.json --tasks control_positivity --limit 50 > results.json

--json, for programs:
  stdout holds one JSON object and nothing else: lm-eval's results, as in its results file, without the samples.
  A number that is not finite is null. Logs, progress and lm-eval's tables go to stderr. The exit code is 0, or
  2 or 3 with a line `error: ...` on stderr and an empty stdout.
"""

# What these modules of lm-eval raise themselves is about the user's arguments.
_ARGUMENT_CHECKS = frozenset({"lm_eval.config.evaluate_config", "lm_eval.api.registry"})


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``run`` to the command line."""
    parser = add_command(
        subparsers,
        "run",
        "run lm-eval on a steered model (every option of lm_eval)",
        _DESCRIPTION,
        _EPILOG,
        usage="lm-eval-steer run [--json] [--model steered_hf] --model_args KEY=VALUE,... --tasks TASK,... [options]",
        allow_abbrev=False,  # the other options are lm-eval's
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON, alone on stdout")
    parser.set_defaults(run=run, rest=[])


def run(args: argparse.Namespace) -> int:
    """Hand the command line to lm-eval, and print its results when ``--json`` asks for them.

    Args:
        args: ``json``, and in ``rest`` everything that is lm-eval's.

    Returns:
        The exit code 0.

    Raises:
        ConfigError: nothing to run, a key given twice, or arguments that lm-eval refuses.
        SteerError: as the steered model raises it.
        SystemExit: from lm-eval's own argument parser.
    """
    if not args.rest:
        raise ConfigError("nothing to run: give at least --model_args and --tasks; see lm-eval-steer run --help.")
    check_repeated_keys(args.rest)
    with captured_results() as captured, stdout_on_stderr() if args.json else contextlib.nullcontext():
        call_lm_eval(args.rest)
    if args.json:
        for results in captured:  # none in a process that is not the first of several
            print(json.dumps(plain(results), indent=2, allow_nan=False))
    return EXIT_OK


def call_lm_eval(rest: list[str]) -> None:
    """Call lm-eval's ``run`` in this process, with ``steered_hf`` as the default model.

    Args:
        rest: the arguments after ``run``.

    Raises:
        ConfigError: lm-eval refuses the arguments: an unknown task or model, a config file that is not there.
    """
    from lm_eval._cli import HarnessCLI
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import setup_logging

    from lm_eval_steer import register

    setup_logging()
    try:
        harness = HarnessCLI()
        with _argv(["lm-eval", "run", *rest]):  # parse_args reads it and nothing else
            args = harness.parse_args()
        config = EvaluatorConfig.load_yaml_config(args.config) if args.config else {}
        if not (args.tasks or config.get("tasks")):  # lm-eval itself finds that out after half a minute
            raise ConfigError("no task: give --tasks NAME,... (lm_eval ls tasks lists them).")
        if args.model is None and "model" not in config:
            args.model = register.MODEL_NAME
        register.register()
        harness.execute(args)
    except (ValueError, TypeError, OSError) as error:
        if _raised_in(error.__traceback__) in _ARGUMENT_CHECKS:
            raise ConfigError(str(error)) from error
        raise


def check_repeated_keys(argv: list[str]) -> None:
    """Refuse a key given twice in ``--model_args``, of which lm-eval takes the last with no more than a warning.

    Args:
        argv: the command line; ``--model_args`` may stand there several times and take several values.

    Raises:
        ConfigError: naming the keys.
    """
    from lm_eval._cli.utils import split_top_level

    # --model is here because argparse would read it as short for --model_args.
    parser = argparse.ArgumentParser(add_help=False, prog="lm-eval-steer run")
    parser.add_argument("--model", "-M")
    parser.add_argument("--model_args", "-a", nargs="+", action="append", default=[])
    keys: list[str] = []
    for values in parser.parse_known_args(argv)[0].model_args:
        as_json = _json_keys(values[0])
        items = (item for value in values for item in split_top_level(value))
        keys += [item.split("=", 1)[0] for item in items] if as_json is None else as_json
    repeated = sorted(key for key, count in Counter(keys).items() if count > 1)
    if repeated:
        raise ConfigError(
            f"--model_args gives {', '.join(map(repr, repeated))} more than once. Give each key once; "
            "several vectors, layers or multipliers go into one value: vector=a;b."
        )


@contextlib.contextmanager
def captured_results() -> Iterator[list[dict[str, Any]]]:
    """Collect what ``lm_eval.simple_evaluate`` returns inside the block; lm-eval's command keeps it to itself.

    lm-eval's ``run`` looks the function up in the package when it is called, so it is put there for that long.
    """
    import lm_eval

    results: list[dict[str, Any]] = []
    missing = object()
    before = vars(lm_eval).get("simple_evaluate", missing)  # missing: lm-eval loads it on demand

    def simple_evaluate(*args: Any, **kwargs: Any) -> dict[str, Any] | None:
        from lm_eval.evaluator import simple_evaluate as original

        answer: dict[str, Any] | None = original(*args, **kwargs)
        if answer is not None:
            results.append(answer)
        return answer

    vars(lm_eval)["simple_evaluate"] = simple_evaluate
    try:
        yield results
    finally:
        if before is missing:
            del vars(lm_eval)["simple_evaluate"]
        else:
            vars(lm_eval)["simple_evaluate"] = before


@contextlib.contextmanager
def stdout_on_stderr() -> Iterator[None]:
    """Send to stderr what is written to stdout inside the block, by this process or by one it starts."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: NaN and the infinities as null, other objects as lm-eval writes them."""
    from lm_eval.utils import handle_non_serializable

    match value:
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case float():
            return float(value) if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case _:
            return plain(handle_non_serializable(value))


@contextlib.contextmanager
def _argv(argv: list[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = argv
    try:
        yield
    finally:
        sys.argv = before


def _json_keys(text: str) -> list[str] | None:
    """Return the top keys of a JSON object, a repeated one repeated; None when the text is no object."""
    try:
        keys = json.loads(text, object_pairs_hook=lambda pairs: tuple(key for key, _ in pairs))
    except json.JSONDecodeError:
        return None
    return list(keys) if isinstance(keys, tuple) else None  # json itself never makes a tuple


def _raised_in(trace: TracebackType | None) -> str | None:
    """Return the name of the module whose code raised."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__") if trace is not None else None
