"""Review: every row of a translated file judged, counted and shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_steer.crosslingual.evidence import gather
from lm_eval_steer.crosslingual.identifier import Probabilities
from lm_eval_steer.crosslingual.invariants import check_invariants
from lm_eval_steer.crosslingual.items import Items, base, write_rows
from lm_eval_steer.crosslingual.thresholds import ThresholdFile
from lm_eval_steer.crosslingual.verdict import STATUSES, Verdict, judge, row_pairs, stamp
from lm_eval_steer.names import markdown_cell


@dataclass(frozen=True)
class Tools:
    """What checks go by beside the texts.

    Attributes:
        thresholds: of every language.
        known: languages that ``probabilities`` tells apart, two-letter codes.
        probabilities: of a text; None where no library is there.
        quality: a quality estimation model's score; None for none.
    """

    thresholds: ThresholdFile
    known: frozenset[str] = frozenset()
    probabilities: Probabilities | None = None
    quality: Callable[[str, str], float] | None = None


@dataclass(frozen=True)
class Review:
    """The verdicts of one file.

    Attributes:
        path: the file.
        lang: its language.
        verdicts: one for each row, in the file's order.
        stamped: the rows with verdict and provenance.
    """

    path: Path
    lang: str
    verdicts: tuple[Verdict, ...]
    stamped: tuple[dict[str, Any], ...]

    def count(self, status: str) -> int:
        """Return the number of rows with a status."""
        return sum(verdict.status == status for verdict in self.verdicts)

    def reasons(self) -> dict[str, Counter[str]]:
        """Return for each check how many rows it flags, fails and was not run on; checks that passed all are absent."""
        found: dict[str, Counter[str]] = {}
        for verdict in self.verdicts:
            for name, finding in verdict.findings.items():
                if finding.status != "pass":
                    found.setdefault(name, Counter())[finding.status] += 1
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return counts and every row that is no pass, as JSON data."""
        return {
            "file": str(self.path),
            "lang": self.lang,
            "rows": len(self.verdicts),
            **{status: self.count(status) for status in STATUSES},
            "checks": {name: dict(counts) for name, counts in self.reasons().items()},
            "found": [_told(verdict) for verdict in self.verdicts if verdict.status != "pass"],
        }


def review(source: Items, target: Items, lang: str, tools: Tools, *, is_source: bool = False) -> Review:
    """Judge every row of a file.

    Args:
        source: the source rows.
        target: their translations; the source itself where ``is_source``.
        lang: of the target.
        tools: what the checks go by.
        is_source: whether ``target`` is the source.

    Raises:
        DataError: the rows are not those of the source (see :mod:`lm_eval_steer.crosslingual.invariants`).
    """
    check_invariants(source, target)
    pairs = row_pairs(source, target)
    probabilities = tools.probabilities if base(lang) in tools.known else None
    evidence = gather(pairs, lang, tools.thresholds.of(lang), probabilities, tools.quality)
    verdicts = [judge(row, pair, evidence, is_source=is_source) for row, pair in zip(target.rows, pairs, strict=True)]
    parts = zip(target.rows, pairs, verdicts, strict=True)
    return Review(target.path, lang, tuple(verdicts), tuple(stamp(row, pair, each, lang) for row, pair, each in parts))


def write_review(target: Items, found: Review) -> None:
    """Write the stamped rows over a file, atomically.

    Raises:
        WriteError: the file cannot be written; the old one is whole.
    """
    write_rows(target.path, target.shape, found.stamped)


def markdown(reviews: Sequence[Review]) -> str:
    """Return a report: counts by file, counts by check, and every row that is no pass with its reasons."""
    lines = ["# Translations checked", "", "| file | language | rows | pass | flag | fail | waived |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|")
    for each in reviews:
        counts = " | ".join(str(each.count(status)) for status in STATUSES)
        lines.append(f"| {markdown_cell(str(each.path))} | {each.lang} | {len(each.verdicts)} | {counts} |")
    lines += ["", "A check that was not run says nothing about a row.", ""]
    for each in reviews:
        head = f"## {markdown_cell(str(each.path))}"
        lines += [head, "", "| check | flag | fail | not run |", "|---|---:|---:|---:|"]
        lines += [
            f"| {name} | {counts['flag']} | {counts['fail']} | {counts['not run']} |"
            for name, counts in each.reasons().items()
        ]
        lines.append("")
        bad = [verdict for verdict in each.verdicts if verdict.status != "pass"]
        lines += [f"- **{one.status}** {markdown_cell(one.id)}: {markdown_cell(why(one))}" for one in bad]
        lines += [""] if bad else []
    return "\n".join(lines)


def why(verdict: Verdict) -> str:
    """Return a verdict's reasons in one line, the waiver first."""
    said = [f"waived: {verdict.waived}"] if verdict.waived else []
    found: Mapping[str, Any] = verdict.findings
    return "; ".join(
        [*said, *(f"{name}: {each.reason}" for name, each in found.items() if each.status in ("flag", "fail"))]
    )


def _told(verdict: Verdict) -> dict[str, Any]:
    bad = {name: str(each) for name, each in verdict.findings.items() if each.status in ("flag", "fail")}
    return {"id": verdict.id, "status": verdict.status, "why": bad} | (
        {"waived": verdict.waived} if verdict.waived else {}
    )
