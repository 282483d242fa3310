"""Curve: what a vector does to a task as λ varies, with intervals and nulls; what tables, reports and gates read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lm_eval_steer.sweep.records import Label

IntervalMethod = Literal["percentile", "studentised", "basic", "none"]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: the number; None where it cannot be had.
        low: lower end; None where there is no interval.
        high: upper end.
        n: clusters that it is over.
        method: how the interval was made; ``none`` under 10 clusters.
        why: why value or interval is missing; "" otherwise.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    method: IntervalMethod = "none"
    why: str = ""

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and 0 is not in it."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Calibration:
    """What the probabilities of an item's choices are worth where one of them is right.

    Attributes:
        brier: mean over items of ``Σ_k (p_k − y_k)²``, 0 to 2, less is better.
        brier_change: its paired change from the unsteered cell.
        ece: expected calibration error, see ``calibration.py``; biased upwards.
        ece_change: its change from the unsteered cell.
    """

    brier: Estimate
    brier_change: Estimate
    ece: Estimate
    ece_change: Estimate


@dataclass(frozen=True)
class SideMetric:
    """A metric of a task beside its headline, over the items that have it.

    Attributes:
        level: its mean over items.
        change: its paired change from the unsteered cell.
    """

    level: Estimate
    change: Estimate


@dataclass(frozen=True)
class Point:
    """One multiplier of a curve.

    Attributes:
        cell_id: of the ledger.
        multiplier: λ.
        status: ``ok`` or ``non_finite``; then every number is None.
        score: mean over items of the headline, ``p_match`` where the task has one, else its first metric.
        propensity: mean over items of the logit difference, in nats (nats per token for text tasks); None elsewhere.
        effect: E(λ), the paired change of ``score`` from the unsteered cell.
        effect_ld: the paired change of ``propensity``.
        p_permutation: two-sided, paired sign flips over items of ``effect``; None at λ = 0.
        position_bias: PB(λ); None where options are not shown.
        delta_position_bias: PB(λ) − PB(∅).
        flip_rate: share of items whose preferred option text changes with the order; None with one order.
        mass: mean probability on the option letters; None for text tasks.
        p_caa: the CAA paper's score, original order only; None for text tasks.
        relative_dose: ‖λ·v‖ / mean‖h‖ over the steered tokens; None where the ledger does not know it.
        headroom_effect: ``effect`` over what there was to gain, 1 − p(∅), or to lose, p(∅); None where that is under
            0.01 or the score is no probability.
        capability: capability task → paired change of its score in the same cell.
        perplexity_ratio: perplexity on neutral text over the unsteered one; None where the cell has no such task.
        kl: mean KL(unsteered ‖ steered) of the next token on neutral text, in nats.
        calibration: of the choices' probabilities; None for tasks that do not say which single choice is right.
        side_metrics: ``reward_rel`` and ``harm_rel`` of tasks that have both; empty elsewhere.
        flags: of ``collapse``, ``non_finite``, ``damage``, ``ceiling``, in this order; ``ceiling`` at λ = 0 only.
    """

    cell_id: str
    multiplier: float
    status: str
    score: Estimate
    propensity: Estimate
    effect: Estimate
    effect_ld: Estimate
    p_permutation: float | None = None
    position_bias: float | None = None
    delta_position_bias: float | None = None
    flip_rate: float | None = None
    mass: float | None = None
    p_caa: float | None = None
    relative_dose: float | None = None
    headroom_effect: float | None = None
    capability: Mapping[str, Estimate] = field(default_factory=dict)
    perplexity_ratio: Estimate | None = None
    kl: Estimate | None = None
    calibration: Calibration | None = None
    side_metrics: Mapping[str, SideMetric] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The best multiplier, chosen on some items and reported on the others.

    Attributes:
        multiplier: λ*, argmax of E on the selection split among unflagged points, ties to the smaller |λ|.
        chosen_on: E(λ*) on the selection split, which flatters.
        reported: E(λ*) on the report split.
        selection_items: names of the items that λ* was chosen on.
    """

    multiplier: float
    chosen_on: Estimate
    reported: Estimate
    selection_items: tuple[str, ...] = ()


@dataclass(frozen=True)
class NullTest:
    """A curve against curves of random directions.

    Attributes:
        kind: ``random``.
        k: how many null curves there are.
        p: ``(1 + #{|S_k| ≥ |S|}) / (K + 1)``; None without nulls.
        band: multiplier → (2.5 %, 97.5 %) of the null curves' E(λ), for pictures.
        why: what is missing; "K too small" under Holm, for example.
    """

    kind: str
    k: int
    p: float | None
    band: Mapping[float, tuple[float, float]] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Curve:
    """One vector at one place on one task, over all its multipliers.

    Attributes:
        id: content id of labels, task and cells.
        labels: the cells' labels without ``multiplier``: vector, control, control_of, layer, scope …
        task: name of the lm-eval task.
        task_identity: version, n, limit, num_fewshot, data_hash, prompt_hash.
        model: id, revision, fingerprint, dtype.
        vector: id, sha256, method, norm, pairs, letter balance, cos_letter … as far as the records know them.
        metric: name of the per-item metric that ``score`` is the mean of.
        higher_is_better: of ``score``; a propensity counts as True.
        items: names of the clusters, ascending.
        points: by λ, ascending; the unsteered cell is the one at λ = 0.
        steerability: S, mean over items of the slope of the logit difference on λ.
        steerability_dose: the same per unit of relative dose.
        anti_frac: share of items with slope < −ε.
        null_frac: share of items with |slope| ≤ ε.
        d_z: mean slope over its standard deviation.
        spearman: of the mean logit difference with λ.
        rising: share of items with a positive rank correlation.
        turns_at: the first λ at which the increment changes sign; None for a monotone curve.
        range: mean of p(+λ*) − p(−λ*).
        selection: λ* and its effect on items it was not chosen on; None where nothing can be chosen.
        null: against random directions.
        flags: of the whole curve, ``insufficient_grid``, ``ceiling`` and ``letter`` (the letter control moves it too).
        slope_of: what slopes are of: ``logit_diff``, ``logit_diff_tok``, or ``metric`` for tasks that have neither.
        baseline: id of the unsteered cell that effects are against.
        constant_items: items without a rank correlation, because their score never changes.
        left_out: items that lack some of their option orders, as ``--limit`` can leave them, or that the metric is not
            defined for; in no number.
        item_effects: the effect at λ* of each cluster of ``items``, its mean over the cluster's items; () without λ*.
        item_sizes: items in each cluster; () where each has one.
        versions: of the packages that made the unsteered cell.
        draws: bootstrap resamples, B.
        seed: of the resamples and of the split.
    """

    id: str
    labels: Mapping[str, Label]
    task: str
    task_identity: Mapping[str, Any]
    model: Mapping[str, Any]
    vector: Mapping[str, Any]
    metric: str
    higher_is_better: bool
    items: tuple[str, ...]
    points: tuple[Point, ...]
    steerability: Estimate
    steerability_dose: Estimate
    anti_frac: float | None
    null_frac: float | None
    d_z: float | None
    spearman: float | None
    rising: float | None
    turns_at: float | None
    range: Estimate
    selection: Selection | None
    null: NullTest
    flags: tuple[str, ...] = ()
    slope_of: str = ""
    baseline: str = ""
    constant_items: int = 0
    left_out: tuple[str, ...] = ()
    item_effects: tuple[float, ...] = ()
    item_sizes: tuple[int, ...] = ()
    versions: Mapping[str, Any] = field(default_factory=dict)
    draws: int = 2000
    seed: int = 0

    @property
    def multiplier(self) -> float | None:
        """λ*; None where nothing could be chosen."""
        return None if self.selection is None else self.selection.multiplier

    def at(self, multiplier: float) -> Point | None:
        """Return the point at λ, or None."""
        return next((point for point in self.points if point.multiplier == multiplier), None)
