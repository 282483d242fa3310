"""Aside: where damaged things of a ledger are moved to, each with the reason beside it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from lm_eval_steer.errors import WriteError
from lm_eval_steer.files import write_json

_REASON = ".reason.json"


@dataclass(frozen=True, order=True)
class Problem:
    """Something in a ledger that could not be read.

    Attributes:
        what: its place in the ledger, for example ``cells/0123abcd``.
        reason: what is wrong with it.
        moved_to: where it is now; None where it could not be moved and is still in its place.
    """

    what: str
    reason: str
    moved_to: str | None = None

    def __str__(self) -> str:
        where = "left in its place" if self.moved_to is None else f"moved to {self.moved_to}"
        return f"{self.what}: {self.reason} ({where})"


class Aside:
    """The folder ``aside`` of a ledger.

    Args:
        root: the ledger's folder.
        read_only: report and move nothing.
    """

    def __init__(self, root: Path, *, read_only: bool = False) -> None:
        self._root = root
        self._read_only = read_only
        self._seen: dict[str, Problem] = {}

    def add(self, path: Path, reason: str) -> Problem:
        """Move a file or folder of the ledger aside and remember it as a problem.

        Where it cannot be moved (read-only, or another process was first) it is remembered all the same.
        """
        what = path.relative_to(self._root).as_posix()
        moved = None if self._read_only else self._move(path, what, reason)
        self._seen[what] = problem = Problem(what, reason, moved)
        return problem

    @property
    def problems(self) -> list[Problem]:
        """What was found damaged, now or earlier, and has not been computed again since; by place."""
        found = {problem.what: problem for problem in self._standing() if not (self._root / problem.what).exists()}
        for what, problem in self._seen.items():
            if problem.moved_to is None or not (self._root / what).exists():
                found.setdefault(what, problem)
        return sorted(found.values())

    def _move(self, path: Path, what: str, reason: str) -> str | None:
        number = 0
        while True:
            target = self._root / "aside" / (what + (f".{number}" if number else ""))
            note = target.with_name(target.name + _REASON)
            if not target.exists() and not note.exists():
                break
            number += 1
        moved = target.relative_to(self._root).as_posix()
        try:
            # The reason first: a kill between the two leaves a reason without a thing, never a thing without a reason.
            write_json(note, {"what": what, "reason": reason, "moved_to": moved})
            os.rename(path, target)
        except WriteError:
            return None
        except OSError:
            note.unlink(missing_ok=True)
            return None
        return moved

    def _standing(self) -> list[Problem]:
        problems = []
        for path in sorted((self._root / "aside").glob(f"*/*{_REASON}")):
            try:
                data = json.loads(path.read_text(encoding="utf-8"))
                problems.append(Problem(str(data["what"]), str(data["reason"]), str(data["moved_to"])))
            except (OSError, ValueError, KeyError, TypeError):
                moved = path.relative_to(self._root).as_posix().removesuffix(_REASON)
                problems.append(Problem(moved.removeprefix("aside/"), "the reason file cannot be read", moved))
        return problems
