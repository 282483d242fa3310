"""Build: a report from curves and the records that they were made of."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from lm_eval_steer.names import slug
from lm_eval_steer.report.damage import NO_CAPABILITY, damage_scatters
from lm_eval_steer.report.dose_response import dose_response
from lm_eval_steer.report.frontier import frontier
from lm_eval_steer.report.heat_map import heat_map
from lm_eval_steer.report.labels import Naming, TaskCurves, by_task, is_random, short, vector_name
from lm_eval_steer.report.matrices import NO_SELECTIVITY, NO_TRANSFER, selectivity_matrix, transfer_matrix
from lm_eval_steer.report.page import Group, Ranking, Report, Section
from lm_eval_steer.report.picture import Picture
from lm_eval_steer.report.provenance import provenance
from lm_eval_steer.report.strips import Strip, strips
from lm_eval_steer.report.verdict import Verdict, verdict
from lm_eval_steer.stats.curve import Curve
from lm_eval_steer.sweep.records import UNSTEERED, CellRecord, Label, label_key
from lm_eval_steer.table.columns import COLUMNS
from lm_eval_steer.table.digits import NA
from lm_eval_steer.table.make import make_table
from lm_eval_steer.table.ranking import Ranking as TableRanking
from lm_eval_steer.table.row import Row

_BACKGROUND_WEIGHT = 14  # columns from here on say where a row comes from; one value for all rows is not worth a column
_EMPTY = {NA, "-", ""}


def build_report(
    curves: Sequence[Curve],
    records: Sequence[CellRecord],
    *,
    warnings: Sequence[str] = (),
    group_by: Sequence[str] = (),
    across: Sequence[Section] = (),
    inspected: Sequence[Section] = (),
) -> Report:
    """Return the report of curves; it depends on their content only, not on their order.

    Args:
        curves: of vectors, controls and random directions.
        records: the cells that the curves were made of.
        warnings: what a reader has to know first.
        group_by: labels; the curves of each of their values make a part of their own.
        across: what there is to say across languages.
        inspected: what is inside the vectors.

    Raises:
        ConfigError: a label that no curve has.
        MissingExtraError: matplotlib is not installed.
    """
    ordered = sorted({curve.id: curve for curve in curves}.values(), key=lambda curve: curve.id)
    naming = Naming.of(ordered)
    table = make_table(ordered, group_by=group_by)
    values = {tuple(curve.labels.get(name) for name in group_by) for curve in ordered if not is_random(curve)}
    groups = []
    for number, value in enumerate(sorted(values, key=lambda each: [label_key(part) for part in each]) or [()]):
        mine = [curve for curve in ordered if tuple(curve.labels.get(name) for name in group_by) == value]
        rankings = [each for each in table.rankings if tuple(each.group.get(name) for name in group_by) == value]
        title = ", ".join(f"{name} = {part}" for name, part in zip(group_by, value, strict=True))
        groups.append(_group(f"part-{number + 1}", title, mine, rankings, naming))
    return Report(
        title=_title(records),
        facts=_facts(ordered, records),
        warnings=tuple(warnings),
        groups=tuple(groups),
        provenance=provenance(records, ordered),
        across=tuple(across),
        inspected=tuple(inspected),
    )


def _group(part: str, title: str, curves: Sequence[Curve], rankings: Sequence[TableRanking], naming: Naming) -> Group:
    tasks = by_task(curves)
    key = f"{slug(title.replace(' = ', '-').replace(', ', '-'))}-" if title else ""
    tasks = [TaskCurves(each.title, f"{key}{each.slug_source}", each.curves) for each in tasks]
    by_id = {curve.id: curve for curve in curves}
    named: dict[str, list[tuple[str, Row]]] = {}
    for ranking in rankings:
        for row in ranking.rows:
            if row.id in by_id:
                named.setdefault(ranking.task, []).append((naming.full(by_id[row.id]), row))
    title_of = {curve.id: task.title for task in tasks for curve in task.curves}
    return Group(
        id=part,
        title=title,
        verdicts=_verdicts(named, title_of),
        rankings=tuple(_ranking(each, naming) for each in rankings),
        notes=_notes(rankings),
        sections=_sections(part, key, tasks, named, naming),
    )


def _sections(
    part: str,
    key: str,
    tasks: Sequence[TaskCurves],
    named: dict[str, list[tuple[str, Row]]],
    naming: Naming,
) -> tuple[Section, ...]:
    by_id = {curve.id: curve for task in tasks for curve in task.curves}
    items = []
    for task in tasks:
        ids = {curve.id for curve in task.curves}
        rows = [Strip.of(name, by_id[row.id]) for name, row in named.get(task.curves[0].task, []) if row.id in ids]
        items.append(strips(task.title, task.slug_source, [row for row in rows if row is not None]))
    selectivity, transfer = (draw(tasks, naming, key or "all") for draw in (selectivity_matrix, transfer_matrix))
    absent = [*([] if selectivity else [NO_SELECTIVITY]), *([] if transfer else [NO_TRANSFER])]
    doses = [dose_response(task, naming) for task in tasks]
    layers = [heat_map(task, naming) for task in tasks]
    damage = damage_scatters(tasks, naming, key or "all")
    reward = _section(f"{part}-frontier", "Reward and harm", [frontier(task, naming) for task in tasks])
    return (
        _section(f"{part}-dose", "Dose and response", doses, "No curve has two multipliers with numbers."),
        _section(f"{part}-layers", "Layers and multipliers", layers, "No vector was run at two layers."),
        _section(f"{part}-matrices", "Selectivity and transfer", [selectivity, transfer], *absent, always=True),
        _section(f"{part}-damage", "Benefit and damage", damage, NO_CAPABILITY),
        *([reward] if reward.pictures else []),
        _section(f"{part}-items", "Item by item", items, "No per-item effect at a chosen multiplier is known."),
    )


def _section(part: str, title: str, pictures: Sequence[Picture | None], *absent: str, always: bool = False) -> Section:
    """Return a section; what is absent is said where there is no picture, or always."""
    drawn = tuple(picture for picture in pictures if picture is not None)
    return Section(part, title, drawn, absent if always or not drawn else ())


def _verdicts(named: dict[str, list[tuple[str, Row]]], title_of: dict[str, str]) -> tuple[Verdict, ...]:
    return tuple(
        verdict(name, title_of[row.id], row) for rows in named.values() for name, row in rows if row.kind == "vector"
    )


def _ranking(ranking: TableRanking, naming: Naming) -> Ranking:
    """Return the columns that say something, what matters most first: none that is empty, no background that is one."""
    kept = []
    for key, column in sorted(COLUMNS.items(), key=lambda item: item[1].weight):
        text = functools.partial(_setting, names=naming.settings) if key == "place" else column.text
        texts = {text(row) for row in ranking.rows}
        background = column.weight >= _BACKGROUND_WEIGHT and len(texts) == 1
        if not texts <= _EMPTY and not background:
            kept.append((column.title, column.about, text))
    group = "".join(f", {name} = {value}" for name, value in ranking.group.items())
    return Ranking(
        title=f"{ranking.task}{group}{' (set apart)' if ranking.apart else ''}",
        header=tuple((title, about) for title, about, _ in kept),
        rows=tuple((row.kind, tuple(text(row) for _, _, text in kept)) for row in ranking.rows),
    )


def _setting(row: Row, names: Sequence[str]) -> str:
    """Return of a row's place what differs between rows, the layer apart."""
    return ", ".join(f"{name} {row.place[name]}" for name in names if row.place.get(name) is not None)


def _notes(rankings: Sequence[TableRanking]) -> tuple[str, ...]:
    return tuple(
        f"Rows of {ranking.task} are set apart, because they cannot be compared with the others: "
        f"{'; '.join(ranking.apart)}."
        for ranking in rankings
        if ranking.apart
    )


def _title(records: Sequence[CellRecord]) -> str:
    models = sorted({str(record.model.get("id")) for record in records})
    return f"Steering report: {short(', '.join(models), 80)}" if models else "Steering report"


def _facts(curves: Sequence[Curve], records: Sequence[CellRecord]) -> tuple[tuple[str, str], ...]:
    shown = [curve for curve in curves if not is_random(curve)]
    randoms = {str(curve.labels.get("vector")) for curve in curves if is_random(curve)}
    layers: set[Label] = {curve.labels.get("layer") for curve in shown}
    failed = sum(record.status != "ok" for record in records)
    facts = [
        ("cells", str(len(records))),
        ("steered", str(sum(record.plan_id != UNSTEERED for record in records))),
        ("vectors and controls", str(len({vector_name(curve) for curve in shown}))),
        ("layers", str(len(layers - {None}))),
        ("tasks", str(len({name for record in records for name in record.tasks}))),
        ("random directions", str(len(randoms))),
    ]
    return (*facts, *([("cells without numbers", str(failed))] if failed else []))
