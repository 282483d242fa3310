"""Verdict: what the checks say of a row together, and the row stamped with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval_steer.crosslingual.checks import CHECKS, SOURCE_CHECKS, Evidence, RowPair
from lm_eval_steer.crosslingual.finding import Finding
from lm_eval_steer.crosslingual.items import Items
from lm_eval_steer.crosslingual.provenance import AUTHORED, back_texts, source_hash
from lm_eval_steer.crosslingual.segments import Row

STATUSES = ("pass", "flag", "fail", "waived")


@dataclass(frozen=True)
class Verdict:
    """What is said of one row.

    Attributes:
        id: of the row.
        status: ``fail`` or ``flag`` where any check says so, else ``pass``; ``waived`` where the row says why.
        findings: check → what it found.
        waived: the row's reason; "" for none.
    """

    id: str
    status: str
    findings: Mapping[str, Finding]
    waived: str = ""

    def qc(self) -> str:
        """Return the findings as the JSON text of a row: check → status and reason."""
        said = {"waived": self.waived} if self.waived else {}
        return json.dumps({**said, **{name: str(each) for name, each in self.findings.items()}}, ensure_ascii=False)


def row_pairs(source: Items, target: Items) -> list[RowPair]:
    """Return each row of a file beside its source; both have the same ids in the same order."""
    pairs = []
    for at, row in enumerate(target.rows):
        said = row.get("source_hash")
        stale = said is not None and said != source_hash(source.segments[at])
        pairs.append(RowPair(target.ids[at], source.segments[at], target.segments[at], back_texts(row), stale))
    return pairs


def judge(row: Row, pair: RowPair, evidence: Evidence, *, is_source: bool = False) -> Verdict:
    """Return what all checks say of a row.

    Args:
        row: as it stands, for its waiver.
        pair: the row beside its source.
        evidence: of its file.
        is_source: whether the row is itself the source; only :data:`~.checks.SOURCE_CHECKS` apply then.
    """
    names = SOURCE_CHECKS if is_source else tuple(CHECKS)
    findings = {name: CHECKS[name](pair, evidence) for name in names}
    reason = waiver(row)
    if row.get("qc_status") == "waived" and not reason:
        findings["waiver"] = Finding("flag", "waived without a reason, so it is not")
    found = {each.status for each in findings.values()}
    status = "fail" if "fail" in found else "flag" if "flag" in found else "pass"
    return Verdict(pair.id, "waived" if reason else status, findings, reason)


def waiver(row: Row) -> str:
    """Return why a row with ``qc_status`` waived is: the text ``waived`` in its ``qc``; "" where there is none."""
    if row.get("qc_status") != "waived":
        return ""
    try:
        said = json.loads(row["qc"]) if isinstance(row.get("qc"), str) else row.get("qc")
    except ValueError:
        return ""
    reason = said.get("waived") if isinstance(said, Mapping) else None
    return reason.strip() if isinstance(reason, str) else ""


def stamp(row: Row, pair: RowPair, verdict: Verdict, lang: str) -> dict[str, Any]:
    """Return a row with its verdict and provenance; what it says of its translator and source already stays."""
    return {
        **row,
        "lang": lang,
        "src_doc_id": pair.id,
        "translator": row.get("translator") or AUTHORED,
        "bt_text": list(pair.back),
        "qc": verdict.qc(),
        "qc_status": verdict.status,
        "source_hash": row.get("source_hash") or source_hash(pair.source),
    }
