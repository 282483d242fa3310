"""``lm-eval-steer gate``: a ledger against a baseline, to a verdict for a CI job."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.errors import EXIT_OK, ConfigError, SteerError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.gate.report import Report

_DESCRIPTION = """\
Compare a ledger with a baseline, item by item, and end with an exit code that a CI job can act on.

The baseline is one JSON file to commit: per-item values of the chosen cells, what they were made with, and a policy
that says which one thing may differ (the vector, the model or the code), how far each metric may fall, and which floors
must hold. The change of each metric is paired by item and has a 95 % bootstrap interval:

  regression     its upper end is below −tolerance, or a floor is broken
  pass           its lower end is at or above −tolerance; an improvement passes and says that the baseline is stale
  inconclusive   neither: too few items to tell
  incomparable   task version, data, prompts, model or plan differ (but for the subject), a metric or cell is missing or
                 no number, fewer than 10 items in common, a score that does not vary; never a pass

The first --update-baseline writes a default policy and says which; edit it in the file. Later ones keep it.
"""
_EPILOG = """\
examples:
  lm-eval-steer sweep --vector smollm2-positivity --layers 20 --multipliers=-1,0,1 --scope all --skip-first \\
                      --tasks control_positivity --ledger my_sweep
  lm-eval-steer gate my_sweep --baseline gate.json --update-baseline      then: git add gate.json
  lm-eval-steer gate my_sweep --baseline gate.json
  lm-eval-steer gate my_sweep --baseline gate.json --strict --junit gate.xml --summary "$GITHUB_STEP_SUMMARY"
  lm-eval-steer gate my_sweep --baseline gate.json --where "vector=candidate, layer=20" --json | jq .verdict

exit codes:
  0 pass (inconclusive too, with a warning)   1 regression or broken floor   2 usage or policy
  3 incomparable, bad input, no baseline      4 inconclusive, with --strict
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``gate`` to the command line."""
    parser = add_command(
        subparsers, "gate", "compare a ledger with a baseline and fail on a regression", _DESCRIPTION, _EPILOG
    )
    add = parser.add_argument
    add("ledger", metavar="LEDGER", help="the folder that a sweep filled")
    add("--baseline", required=True, metavar="FILE.json", help="the baseline, policy included")
    add("--update-baseline", action="store_true", help="write the ledger's numbers into it; its policy is kept")
    add("--strict", action="store_true", help="inconclusive ends with exit code 4")
    add("--junit", metavar="FILE", help="write the findings as JUnit XML too")
    add("--summary", metavar="FILE.md", help="append the findings as markdown, for example to $GITHUB_STEP_SUMMARY")
    add("--where", metavar="EXPR", help="which cells of the ledger, in place of the policy's: 'vector=NAME, layer=20'")
    add("--json", action="store_true", help="print a JSON object, alone on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judge a ledger, or take a new baseline from it.

    Returns:
        The exit code: 0, 1, 3, or 4 with ``--strict``.

    Raises:
        ConfigError: options that do not go together, or a policy or ``--where`` that cannot be.
        InputError: no ledger, or no baseline, or a damaged one.
        WriteError: an output cannot be written.
    """
    if args.update_baseline:
        if args.strict or args.junit or args.summary:
            raise ConfigError("--update-baseline judges nothing; leave out --strict, --junit and --summary.")
        return _update(args)
    try:
        report = _judge(args)
    except SteerError as error:
        from lm_eval_steer.gate.report import failed

        _write(failed(args.ledger, args.baseline, error), args)
        raise
    _write(report, args)
    if args.json:
        print(json.dumps(report.to_dict(args.strict), ensure_ascii=False, allow_nan=False))
    else:
        from lm_eval_steer.gate.text import to_text

        print(to_text(report, strict=args.strict), end="")
    return report.exit_code(args.strict)


def _judge(args: argparse.Namespace) -> Report:
    from lm_eval_steer.gate.baseline import read_baseline
    from lm_eval_steer.gate.judge import judge
    from lm_eval_steer.sweep.ledger import Ledger

    baseline = read_baseline(args.baseline)
    ledger = Ledger.open(args.ledger, create=False, read_only=True)
    return judge(ledger, baseline, where=args.where, name=args.baseline)


def _update(args: argparse.Namespace) -> int:
    import dataclasses

    from lm_eval_steer.gate.baseline import read_policy, take_baseline, write_baseline
    from lm_eval_steer.gate.default import default_policy
    from lm_eval_steer.gate.slot import find_slots
    from lm_eval_steer.gate.values import Reader
    from lm_eval_steer.sweep.ledger import Ledger
    from lm_eval_steer.sweep.where import parse_where

    ledger = Ledger.open(args.ledger, create=False, read_only=True)
    records = ledger.read_cells()
    is_new = not Path(args.baseline).exists()
    policy = default_policy(records, args.where) if is_new else read_policy(args.baseline)
    if args.where is not None:
        policy = dataclasses.replace(policy, where=args.where)
    found = find_slots(records, parse_where(policy.where).select(records), policy)
    baseline = take_baseline(Reader(ledger), found, policy)
    write_baseline(args.baseline, baseline)
    for problem in ledger.problems:
        print(f"note: damaged and set aside: {problem}", file=sys.stderr)
    for slot, values in baseline.entries:
        if (
            slot.metric == "steerability"
            and (values.mean or 0.0) < 0
            and policy.metrics[slot.metric].direction == "higher"
        ):
            print(f"note: {slot.name}: steerability is negative, and the policy says higher is better", file=sys.stderr)
    if args.json:
        print(json.dumps({"baseline": args.baseline, "slots": len(baseline.entries), "policy": policy.to_dict()}))
        return EXIT_OK
    from lm_eval_steer.names import printable

    for slot, values in baseline.entries:
        print(printable(f"{slot.name}: mean {values.mean:.4g} over {values.n} items"))
    print(printable(f"{args.baseline}: {len(baseline.entries)} numbers; policy {'written' if is_new else 'kept'}:"))
    print(json.dumps(policy.to_dict(), indent=2, ensure_ascii=True))
    return EXIT_OK


def _write(report: Report, args: argparse.Namespace) -> None:
    """Write the files that were asked for; a summary is appended, as a CI job's steps share one."""
    from lm_eval_steer.files import write_text

    if args.junit:
        from lm_eval_steer.gate.junit import to_junit

        write_text(args.junit, to_junit(report, strict=args.strict))
    if args.summary:
        from lm_eval_steer.gate.text import to_markdown

        write_text(args.summary, _present(args.summary) + to_markdown(report, strict=args.strict))


def _present(path: str) -> str:
    from lm_eval_steer.errors import InputError

    try:
        return Path(path).read_text(encoding="utf-8") if Path(path).is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the summary {path} cannot be read, to be appended to: {error}.") from None
