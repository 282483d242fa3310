"""Compute: the curves of one ledger from its records and samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lm_eval_steer.errors import InputError
from lm_eval_steer.stats.assemble import make_curve
from lm_eval_steer.stats.columns import Rows, read_rows
from lm_eval_steer.stats.curve import Curve, NullTest
from lm_eval_steer.stats.groups import Group, group_cells
from lm_eval_steer.stats.layout import headline, make_layout, score_items
from lm_eval_steer.stats.nulls import p_null, too_small
from lm_eval_steer.stats.panel import Panel
from lm_eval_steer.stats.points import Asides, note_asides
from lm_eval_steer.stats.side_metrics import SideMetrics
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.records import CellRecord

Panels = Mapping[tuple[str, str], Panel]


def compute_curves(
    ledger: Ledger, records: Sequence[CellRecord], selected: Iterable[str], draws: int, seed: int
) -> list[Curve]:
    """Return the curves of the selected cells, sorted by task and labels.

    Args:
        ledger: where the samples are.
        records: of all its cells; unsteered cells and controls are found among them, selected or not.
        selected: ids of the cells that are to be on a curve.
        draws: bootstrap resamples.
        seed: of resamples, sign flips and the split.

    Raises:
        InputError: samples are missing or damaged, cells have other items than the unsteered one, or there is none.
    """
    everything = group_cells(records)
    chosen = set(selected)
    groups = [part for group in everything if (part := group.only(chosen)) is not None]
    controls = {id(group): _controls(group, everything) for group in groups}
    needed = [*groups, *(each for found in controls.values() for kind in found.values() for each in kind)]
    panels = read_panels(ledger, needed, draws, seed)
    groups = [group for group in groups if group.panel in panels]
    asides: dict[str, Asides] = {}
    curves = []
    for group in sorted(groups, key=lambda group: panels[group.panel].head.has_propensity):
        panel = panels[group.panel]
        curve = make_curve(panel, group, asides)
        if not panel.head.has_propensity:
            note_asides(panel, group.task, curve.points, asides)
        curves.append(_against_controls(panel, group, curve, controls[id(group)]))
    return curves


def _controls(group: Group, groups: Sequence[Group]) -> dict[str, list[Group]]:
    kinds = {"random": group.labels.get("control") != "random", "letter": group.labels.get("control") is None}
    return {kind: [g for g in groups if g.is_null_of(group, kind)] if tested else [] for kind, tested in kinds.items()}


def read_panels(ledger: Ledger, groups: Iterable[Group], draws: int, seed: int) -> Panels:
    """Return the panels of groups, every cell read once and only its numbers an item kept."""
    bases: dict[str, tuple[CellRecord, set[str]]] = {}
    cells: dict[str, tuple[CellRecord, set[tuple[str, str]]]] = {}
    for group in groups:
        bases.setdefault(group.base.cell_id, (group.base, set()))[1].add(group.task)
        for record in group.cells.values():
            cells.setdefault(record.cell_id, (record, set()))[1].add(group.panel)
    panels: dict[tuple[str, str], Panel] = {}
    sides: dict[tuple[str, str], SideMetrics] = {}
    for cell, (record, tasks) in sorted(bases.items()):
        rows = read_rows(ledger, record)
        for task in sorted(tasks):
            if task not in rows:
                raise InputError(f"{ledger.path}: the unsteered cell {cell} has no samples of {task}; sweep it again.")
            head = headline(rows[task], record.tasks[task])
            if head is None:
                continue  # nothing a row to average, as for lm-eval's corpus metrics
            layout = make_layout(rows[task], task, head)
            base = score_items(rows[task], layout, head, f"cell {cell}")
            if base is not None:
                panels[task, cell] = Panel(layout, head, base, draws, seed)
                sides[task, cell] = SideMetrics(rows[task], task)
                _note_sides(panels[task, cell], sides[task, cell], cell, rows[task])
    for cell, (record, keys) in sorted(cells.items()):
        rows = {} if record.status == "non_finite" else read_rows(ledger, record)
        for key in sorted(keys & set(panels)):
            panel, task = panels[key], key[0]
            if record.status == "ok" and task not in rows:
                raise InputError(f"{ledger.path}: cell {cell} has no samples of {task}; sweep it again.")
            panel.cells[cell] = (
                score_items(rows[task], panel.layout, panel.head, f"cell {cell}") if task in rows else None
            )
            if panel.cells[cell] is not None:
                _note_sides(panel, sides[key], cell, rows[task])
    return panels


def _note_sides(panel: Panel, sides: SideMetrics, cell: str, rows: Rows) -> None:
    panel.side_metrics[cell] = sides.estimates(sides.means(rows), panel.draws, panel.seed)


def _against_controls(panel: Panel, group: Group, curve: Curve, controls: Mapping[str, Sequence[Group]]) -> Curve:
    null = _null_test(panel, group, curve, controls["random"])
    flags = curve.flags
    if "letter" not in flags and _letter_moves_it_too(panel, group, curve, controls["letter"]):
        flags = (*flags, "letter")
    return dataclasses.replace(curve, null=null, flags=flags)


def _null_test(panel: Panel, group: Group, curve: Curve, nulls: Sequence[Group]) -> NullTest:
    """Return the curve's steerability against that of random directions over the same multipliers."""
    if group.labels.get("control") == "random":
        return NullTest("random", 0, None, why="it is a random direction itself")
    at = list(panel.series(group))
    found = [each for null in nulls if (each := panel.item_slopes(null, at)) is not None]
    means = [float(np.mean(each)) for each in found]
    band = {}
    for multiplier in at:
        effects = [
            float(np.mean(panel.effect(series[multiplier])))
            for null in nulls
            if multiplier in (series := panel.series(null))
        ]
        if multiplier and effects:
            low, high = np.quantile(effects, [0.025, 0.975])
            band[multiplier] = (float(low), float(high))
    observed = curve.steerability.value
    if observed is None:
        return NullTest("random", len(nulls), None, band, why=curve.steerability.why)
    short = f"{len(nulls) - len(found)} of {len(nulls)} random directions lack multipliers"
    why = [short] * (len(found) < len(nulls)) + [text for text in [too_small(len(found))] if text]
    return NullTest("random", len(found), p_null(observed, means), band, "; ".join(why) or _none(found))


def _none(found: Sequence[object]) -> str:
    return "" if found else "no random directions"


def _letter_moves_it_too(panel: Panel, group: Group, curve: Curve, controls: Sequence[Group]) -> bool:
    """Whether the steerabilities of the curve and of a letter control both exclude 0 in the same direction."""
    own = curve.steerability
    for control in controls:
        each = panel.item_slopes(control, list(panel.series(group)))
        other = None if each is None else panel.estimates([each])[0]
        if other and other.excludes_zero and own.excludes_zero and (other.value or 0.0) * (own.value or 0.0) > 0:
            return True
    return False
