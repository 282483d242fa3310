"""``lm-eval-steer``: the command, its subcommands and the one place where an error becomes an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from lm_eval_steer import __version__
from lm_eval_steer.errors import EXIT_INTERRUPTED, EXIT_USAGE, SteerError

# Modules beside this file, in the order of --help. Each has add_parser(subparsers), which sets run=, and imports
# at its top nothing that takes long.
COMMANDS = (
    "demo",
    "try_",
    "run",
    "extract",
    "function_vector",
    "inspect_",
    "combine",
    "verify",
    "align",
    "sweep",
    "ledger",
    "judge",
    "compare",
    "report",
    "gate",
    "tune",
    "machiavelli",
    "translate",
    "convert",
    "embedded_model",
)

EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell shows it; 1 would say that a gate found a regression

_DESCRIPTION = """\
Activation steering for EleutherAI's lm-evaluation-harness.

A steering vector, added to a model's residual stream, is tried on any lm-eval task: with this command, or with
lm-eval's own:  lm_eval --model steered_hf --model_args pretrained=...,vector=...,layer=... --tasks ...
"""

_EPILOG = """\
examples:
  lm-eval-steer embedded-model                        a small real model to try things on
  lm-eval-steer run --model_args pretrained=$(lm-eval-steer embedded-model),vector=V.safetensors,layer=12 \\
                    --tasks control_positivity --limit 20
  lm-eval-steer run --json --model_args spec=plan.yaml --tasks control_positivity > results.json
  lm-eval-steer COMMAND --help                        what a command does, its options and examples

exit codes:
  0 good   1 the gate found a regression   2 usage or configuration   3 bad input   4 incomplete   130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``lm-eval-steer`` and return its exit code.

    An error that the user can mend is one message on stderr. Any other exception is a bug: it keeps its traceback.

    Args:
        argv: the arguments after the program's name; ``sys.argv`` when None.

    Raises:
        SystemExit: from argparse, for ``--help``, ``--version`` and a wrong option.
    """
    try:
        code = _dispatch(argv)
        sys.stdout.flush()  # so that a closed pipe is met here and not at the interpreter's end
    except SteerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return EXIT_BROKEN_PIPE
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line, every subcommand included."""
    parser = argparse.ArgumentParser(
        prog="lm-eval-steer",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"lm_eval_steer.cli.{name}").add_parser(subparsers)
    return parser


def _dispatch(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if args.command is None:
        if rest:
            parser.error(f"no command before {rest[0]!r}")
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    if hasattr(args, "rest"):  # a command that hands the options it does not know to somebody else
        args.rest = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)} (see: lm-eval-steer {args.command} --help)")
    code: int = args.run(args)
    return code


def _discard_stdout() -> None:
    """Point stdout at nothing, so that Python's own flush at the end does not complain about the closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
