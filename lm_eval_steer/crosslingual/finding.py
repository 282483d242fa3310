"""Finding: what one check says of one row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "flag", "fail", "not run"]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        status: ``not run`` where the check had nothing to go by; that is never a pass.
        reason: why it is no pass, in words.
    """

    status: Status
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}" if self.reason else self.status


PASS = Finding("pass")


def bad(reason: str, *, fails: bool) -> Finding:
    """Return a fail, or else a flag."""
    return Finding("fail" if fails else "flag", reason)


def not_run(reason: str) -> Finding:
    """Return that a check had nothing to go by."""
    return Finding("not run", reason)


def worst(findings: list[Finding]) -> Finding:
    """Return the worst of findings with the reasons of all that are as bad; a pass for none."""
    for status in ("fail", "flag"):
        bad = [each.reason for each in findings if each.status == status]
        if bad:
            return Finding("fail" if status == "fail" else "flag", "; ".join(bad))
    return PASS
