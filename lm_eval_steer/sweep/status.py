"""Status: how far a ledger is, what was removed from it, and how large it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lm_eval_steer.sweep.aside import Problem


@dataclass(frozen=True)
class LedgerStatus:
    """How far a ledger is.

    Attributes:
        cells: records that are there and whole.
        expected: cells that the specs in it mean; None where it has no spec.
        missing: how many of the expected are not there.
        non_finite: cells without numbers.
        blocks: blocks that are there.
        claims_alive: blocks that a process works on.
        claims_dead: blocks whose process is gone.
        problems: what is damaged.
        bytes: of all files.
    """

    cells: int
    expected: int | None
    missing: int
    non_finite: int
    blocks: int
    claims_alive: int
    claims_dead: int
    problems: tuple[Problem, ...]
    bytes: int


@dataclass(frozen=True)
class Pruned:
    """What :meth:`Ledger.prune` removes: cells and blocks by id, and their bytes."""

    cells: tuple[str, ...]
    blocks: tuple[str, ...]
    bytes: int


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; links are not followed, what vanishes counts nothing."""
    files = (
        [path] if not path.is_dir() else [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    )
    total = 0
    for file in files:
        try:
            total += file.lstat().st_size
        except OSError:
            continue
    return total
