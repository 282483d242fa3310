"""What a command of ours weighs: the modules that it loads and the sample files that it opens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = frozenset({"torch", "lm_eval", "transformers", "datasets", "nnsight", "scipy", "sklearn", "pandas"})

_CHILD = """
import json, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from lm_eval_steer.cli.main import main
try:
    code = main(sys.argv[2:])
except SystemExit as end:
    code = end.code
told = {"code": code, "modules": sorted(sys.modules), "samples": sum(name.endswith(".parquet") for name in opened)}
open(sys.argv[1], "w").write(json.dumps(told))
"""


@dataclass(frozen=True)
class Weight:
    """Exit code, output, top-level modules loaded, and how many files of samples were opened."""

    code: int
    stdout: str
    modules: frozenset[str]
    samples_opened: int


def weigh(argv: Sequence[str]) -> Weight:
    """Run ``lm-eval-steer`` with ``argv`` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", _CHILD, str(told), *argv]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
        found = json.loads(told.read_text())
    modules = frozenset(name.partition(".")[0] for name in found["modules"])
    return Weight(found["code"], done.stdout, modules, found["samples"])
