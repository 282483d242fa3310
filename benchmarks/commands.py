"""What the commands that read a ledger cost, once its statistics are stored: whole processes, medians.

    python benchmarks/commands.py LEDGER [--rounds 5] [--json FILE]

Commands take turns, so that whatever else the machine does hits all of them. The first round, which computes and
stores the statistics, is reported apart. Seconds are by the clock, and of the processor beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from work import machine


def commands(ledger: Path, scratch: Path) -> dict[str, list[str]]:
    """The command lines, by name."""
    return {
        "--help": ["--help"],
        "status": ["status", str(ledger)],
        "compare": ["compare", str(ledger)],
        "report": ["report", str(ledger), "--out", str(scratch / "report.html")],
    }


def timed(argv: list[str]) -> tuple[float, float]:
    """Return the seconds of one process, by the clock and of the processor."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "lm_eval_steer.cli.main", *argv], check=True, capture_output=True)
    seconds, after = time.perf_counter() - start, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, spent


def measure(ledger: Path, rounds: int) -> dict[str, Any]:
    """Return the first and the median of the later seconds of each command."""
    with tempfile.TemporaryDirectory() as scratch:
        lines = commands(ledger, Path(scratch))
        first = {name: timed(argv) for name, argv in lines.items()}
        later = [{name: timed(argv) for name, argv in lines.items()} for _ in range(rounds)]
    return {
        name: {
            "first_seconds": first[name][0],
            "median_seconds": statistics.median(each[name][0] for each in later),
            "median_processor_seconds": statistics.median(each[name][1] for each in later),
        }
        for name in lines
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledger", type=Path, help="the folder of a finished sweep")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()
    cells = sum(1 for _ in (args.ledger / "cells").iterdir())
    found = measure(args.ledger, args.rounds)
    print(f"{cells} cells, medians of {args.rounds} rounds")
    for name, each in found.items():
        print(
            f"{name:>8}: {each['median_seconds']:.2f} s ({each['median_processor_seconds']:.2f} s of processor; "
            f"the first time {each['first_seconds']:.2f} s)"
        )
    if args.json:
        result = {"cells": cells, "rounds": args.rounds, "commands": found, "machine": machine()}
        Path(args.json).write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
