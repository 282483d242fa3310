"""Read: what a report is made of, from the folders of ledgers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lm_eval_steer.report.build import build_report
from lm_eval_steer.report.cross_lingual import cross_lingual_sections
from lm_eval_steer.report.inspect_file import read_inspect_file
from lm_eval_steer.report.inspection import inspection_sections
from lm_eval_steer.report.page import Report
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.records import UNSTEERED, CellRecord
from lm_eval_steer.sweep.where import parse_where
from lm_eval_steer.table.read import read_cross_lingual, read_curves


def read_report(
    paths: Sequence[Path | str],
    where: str | None = None,
    group_by: Sequence[str] = (),
    families: Sequence[str] = (),
    alignments: Sequence[str] = (),
    inspect_files: Sequence[Path | str] = (),
) -> Report:
    """Return the report of some ledgers.

    Args:
        paths: folders.
        where: which cells, see ``sweep/where.py``; None for all.
        group_by: labels; each of their values makes a part of its own.
        families: tasks in several languages that do not say so themselves.
        alignments: files of ``lm-eval-steer align``.
        inspect_files: what ``lm-eval-steer inspect --json`` printed.

    Raises:
        ConfigError: ``where``, ``group_by`` or a family names what there is not.
        InputError: a folder is no ledger, samples are missing or damaged, or a file is no inspection.
    """
    inspected = inspection_sections([read_inspect_file(path) for path in inspect_files])
    ledgers = [Ledger.open(path, create=False, read_only=True) for path in paths]
    everything = [record for ledger in ledgers for record in ledger.read_cells()]
    chosen = [*parse_where(where).select(everything), *(r for r in everything if r.plan_id == UNSTEERED)]
    records: dict[str, CellRecord] = {record.cell_id: record for record in chosen}
    curves = read_curves(ledgers, where) if everything else []
    warnings = _warnings(ledgers, {record.cell_id for record in everything}, where)
    across = cross_lingual_sections(read_cross_lingual(ledgers, curves, families, alignments))
    return build_report(
        curves, list(records.values()), warnings=warnings, group_by=group_by, across=across, inspected=inspected
    )


def _warnings(ledgers: Sequence[Ledger], present: set[str], where: str | None) -> list[str]:
    expected = {cell for ledger in ledgers for spec in ledger.read_specs().values() for cell in spec["cells"]}
    missing = len(expected - present)
    problems = dict.fromkeys(f"{problem.what}: {problem.reason}" for ledger in ledgers for problem in ledger.problems)
    return [
        *([f"Only the cells that {where!r} chooses are shown."] if where and where.strip() else []),
        *([f"The sweep is not finished: {missing} of its cells are missing."] if missing else []),
        *(f"Damaged and left out: {problem}" for problem in problems),
    ]
