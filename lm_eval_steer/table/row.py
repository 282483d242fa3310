"""Row: one line of a comparison table; numbers as they are, None where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lm_eval_steer.stats.curve import Calibration, Curve, Estimate
from lm_eval_steer.sweep.records import Label

Kind = Literal["vector", "unsteered", "random", "shuffled", "letter", "prompt", "other"]
NONE = Estimate(None)


@dataclass(frozen=True)
class Row:
    """One vector at its best place (or at every place), or one null, on one task.

    Attributes:
        kind: ``vector``, or which null it is; only vectors are ranked.
        id: of the curve that it shows; of a summary, made from those of its curves.
        vector: name.
        sha256: of the vector; None where the records do not know it.
        method: how the vector was made.
        model: name of the model.
        revision: of the model.
        dtype: of the model.
        place: layer, site, scope, operation and every other label of the place.
        multiplier: λ*.
        relative_dose: ‖λ*·v‖ / mean‖h‖.
        pairs: training pairs.
        letter_balance: share of training pairs whose matching answer is the first letter.
        behaviour: what the task measures; the task's name where the records do not say.
        language: of the task; None where the records do not say.
        n: items that E is over.
        n_items: items that the curve has.
        p0: mean score over all items without steering.
        p: the same at λ*.
        effect: E(λ*) on the items that λ* was not chosen on; of ``random`` the mean over K with its 95 % band.
        effect_selection: E(λ*) on the items that it was chosen on, which flatters.
        selection_items: their names.
        steerability: S; of ``random`` the mean over K with its 95 % band.
        anti_frac: share of items with slope < −ε.
        monotone: whether the mean logit difference never turns; None where the grid is too small to say.
        turns_at: the λ at which it first does.
        delta_position_bias: PB(λ*) − PB(∅).
        mass: mean probability on the option letters at λ*.
        p_null: against random directions, max|S_k| over the cells that the place was chosen from.
        k: how many random directions.
        null_note: ``no null``, ``nulls at some layers only``, ``K too small``, ``beats random`` or "".
        off_target: root mean square of E(λ*) on tasks of other behaviours.
        capability: paired change at λ* of the capability task that fell most.
        capability_task: its name.
        perplexity_ratio: perplexity at λ* over perplexity without steering.
        kl: at λ*, mean KL(unsteered ‖ steered) of the next token on neutral text, in nats.
        calibration: at λ*, over all items, of tasks that say which choice is right.
        flags: of the curve and of its point at λ*.
        versions: of the task and of the packages.
        higher_is_better: of the score.
        curve: what it shows; None for a summary and for the unsteered model.
        rank: among the vectors of its ranking; None where it has none.
        tied: whether others share the rank.
    """

    kind: Kind
    id: str
    vector: str
    sha256: str | None = None
    method: str | None = None
    model: str | None = None
    revision: str | None = None
    dtype: str | None = None
    place: Mapping[str, Label] = field(default_factory=dict)
    multiplier: float | None = None
    relative_dose: float | None = None
    pairs: int | None = None
    letter_balance: float | None = None
    behaviour: str | None = None
    language: str | None = None
    n: int | None = None
    n_items: int | None = None
    p0: float | None = None
    p: float | None = None
    effect: Estimate = NONE
    effect_selection: float | None = None
    selection_items: tuple[str, ...] = ()
    steerability: Estimate = NONE
    anti_frac: float | None = None
    monotone: bool | None = None
    turns_at: float | None = None
    delta_position_bias: float | None = None
    mass: float | None = None
    p_null: float | None = None
    k: int | None = None
    null_note: str = ""
    off_target: float | None = None
    capability: Estimate = NONE
    capability_task: str | None = None
    perplexity_ratio: float | None = None
    kl: float | None = None
    calibration: Calibration | None = None
    flags: tuple[str, ...] = ()
    versions: str | None = None
    higher_is_better: bool = True
    curve: Curve | None = None
    rank: int | None = None
    tied: bool = False
