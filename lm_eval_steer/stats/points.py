"""Points: one multiplier of a curve after the other, from the items' scores and their estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lm_eval_steer.stats import flags, text
from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.bootstrap import resampling
from lm_eval_steer.stats.calibration import calibration
from lm_eval_steer.stats.curve import Estimate, Point
from lm_eval_steer.stats.groups import Group
from lm_eval_steer.stats.items import ItemScores
from lm_eval_steer.stats.panel import Panel
from lm_eval_steer.sweep.records import CellRecord

#: lm-eval's metrics that say whether a model can still do a task; between 0 and 1, higher is better.
CAPABILITY_METRICS = frozenset({"acc", "acc_norm", "exact_match", "em", "f1"})

#: The packaged neutral text; where a sweep has several tasks of plain text, this one says what was damaged.
NEUTRAL_TASK = "damage"

Series = Mapping[float, ItemScores]
_NO_PROPENSITY = Estimate(None, why="the task has no logit difference")


@dataclass
class Asides:
    """What a cell does beside a curve's own task.

    Attributes:
        capability: task → paired change of its score.
        perplexity_ratio: on neutral text.
        kl: on neutral text.
    """

    capability: dict[str, Estimate] = field(default_factory=dict)
    perplexity_ratio: Estimate | None = None
    kl: Estimate | None = None

    @property
    def damaged(self) -> bool:
        """Whether a capability fell by more than the budget."""
        return any(flags.damaged(change) for change in self.capability.values())


def note_asides(panel: Panel, task: str, points: tuple[Point, ...], asides: dict[str, Asides]) -> None:
    """Note in ``asides`` what each cell of a capability task or a neutral text does, for the curves of other tasks."""
    for point in points:
        if point.status != "ok" or point.effect.value is None:
            continue
        mine = asides.setdefault(point.cell_id, Asides())
        if panel.head.metric in CAPABILITY_METRICS:
            mine.capability[task] = point.effect
        if point.perplexity_ratio is not None and (mine.perplexity_ratio is None or task == NEUTRAL_TASK):
            mine.perplexity_ratio, mine.kl = point.perplexity_ratio, point.kl


def point_columns(panel: Panel, scores: ItemScores) -> list[Floats]:
    """Return the columns whose estimates :func:`make_points` wants for a multiplier: always as many for one task.

    Score and effect; logit difference and its change, where the task has them; the change of the position bias.
    """
    base = panel.base
    columns = [scores.score, panel.effect(scores)]
    if scores.propensity is not None and base.propensity is not None:
        columns += [scores.propensity, scores.propensity - base.propensity]
    if scores.bias is not None and base.bias is not None:
        columns.append(scores.bias - base.bias)
    return columns


def make_points(
    panel: Panel, group: Group, series: Series, found: Mapping[float, list[Estimate]], asides: Mapping[str, Asides]
) -> tuple[Point, ...]:
    """Return a group's points by λ, ascending.

    Args:
        panel: the group's.
        group: the cells.
        series: its finite cells and the unsteered one.
        found: for each λ of ``series``, the estimates of :func:`point_columns`.
        asides: cell id → what the cell does beside.
    """
    records = dict(group.cells) if 0.0 in group.cells else {**group.cells, 0.0: group.base}
    return tuple(
        _point(panel, record, at, series[at], found[at], asides.get(record.cell_id, Asides()))
        if at in series
        else _broken(record, at)
        for at, record in sorted(records.items())
    )


def is_flagged(panel: Panel, group: Group, at: float, scores: ItemScores, asides: Mapping[str, Asides]) -> bool:
    """Whether λ may not be chosen: the cell collapsed, or it damages a capability. The unsteered cell may."""
    if scores is panel.base:
        return False
    down = flags.collapsed(mean(scores.mass), mean(panel.base.mass))
    return down or asides.get(group.cells[at].cell_id, Asides()).damaged


def at_ceiling(panel: Panel) -> bool:
    """Whether most items leave no room already without steering; of probabilities only."""
    return panel.head.metric == "p_match" and flags.at_ceiling(panel.base.score)


def mean(values: Floats | None) -> float | None:
    """Return the mean over items; None without values or where one is no number (an item without its first order)."""
    return None if values is None or np.isnan(values).any() else float(np.mean(values))


def relative_dose(record: CellRecord) -> float | None:
    """Return ‖λ·v‖ / mean‖h‖ of a cell; None where its record does not say."""
    value = record.counts.get("relative_dose")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _point(
    panel: Panel, record: CellRecord, at: float, scores: ItemScores, own: list[Estimate], beside: Asides
) -> Point:
    base = panel.base
    score, effect = own[:2]
    has_propensity = scores.propensity is not None
    mass, bias, base_bias = mean(scores.mass), mean(scores.bias), mean(base.bias)
    ratio, kl = _neutral_text(panel, scores) or (beside.perplexity_ratio, beside.kl)
    own_damage = panel.head.metric in CAPABILITY_METRICS and flags.damaged(effect)
    raised = {
        "collapse": flags.collapsed(mass, mean(base.mass)),
        "damage": beside.damaged or own_damage,
        "ceiling": at == 0.0 and at_ceiling(panel),
    }
    return Point(
        cell_id=record.cell_id,
        multiplier=at,
        status="ok",
        score=score,
        propensity=own[2] if has_propensity else _NO_PROPENSITY,
        effect=effect,
        effect_ld=own[3] if has_propensity else _NO_PROPENSITY,
        p_permutation=None if scores is base else panel.p_permutation[record.cell_id],
        position_bias=bias,
        delta_position_bias=None if bias is None or base_bias is None else bias - base_bias,
        flip_rate=mean(scores.flips),
        mass=mass,
        p_caa=mean(scores.p_caa),
        relative_dose=0.0 if scores is base else relative_dose(record),
        headroom_effect=_headroom(panel, effect),
        capability=dict(beside.capability),
        perplexity_ratio=ratio,
        kl=kl,
        calibration=calibration(panel, scores),
        side_metrics=panel.side_metrics.get(record.cell_id, {}),
        flags=tuple(name for name, up in raised.items() if up),
    )


def _headroom(panel: Panel, effect: Estimate) -> float | None:
    if panel.head.metric != "p_match" or effect.value is None:
        return None
    return flags.headroom_effect(effect.value, float(np.mean(panel.base.score)))


def _broken(record: CellRecord, at: float) -> Point:
    nothing = Estimate(None, why="logits that are no numbers")
    return Point(record.cell_id, at, "non_finite", nothing, nothing, nothing, nothing, flags=("non_finite",))


def _neutral_text(panel: Panel, scores: ItemScores) -> tuple[Estimate, Estimate | None] | None:
    if scores.nll is None or panel.base.nll is None or scores.tokens is None:
        return None
    drawn = resampling(len(panel.layout.clusters), panel.draws, panel.seed)
    sums, tokens = panel.layout.cluster_sums, panel.layout.cluster_sums(scores.tokens)
    ratio = text.perplexity_ratio(sums(scores.nll), sums(panel.base.nll), tokens, drawn)
    return ratio, None if scores.kl is None else text.mean_kl(sums(scores.kl), tokens, drawn)
