"""Columns: what a reader sees of a row, in the order of the comparison table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lm_eval_steer.table.digits import NA, interval, number, optional, percent, plain, short
from lm_eval_steer.table.row import Row

_VERSIONS = 160


@dataclass(frozen=True)
class Column:
    """One column of a table for people.

    Attributes:
        title: its head.
        about: one line that says what it is.
        text: a row's cell, not escaped.
        weight: the lower, the longer it stays where there is no room; 0 always stays.
        fold: whether it is said once above the table where all rows have the same.
        optional: whether nobody misses it where no row has it.
    """

    title: str
    about: str
    text: Callable[[Row], str]
    weight: int
    fold: bool = False
    optional: bool = False


def _rank(row: Row) -> str:
    if row.kind != "vector":
        return "null"
    return NA if row.rank is None else f"{row.rank}{'=' if row.tied else ''}"


def _vector(row: Row) -> str:
    named = short(row.vector)
    if row.kind not in ("vector", "unsteered", "random"):
        named = f"{row.kind}: {named}"
    return named if row.sha256 is None else f"{named} {row.sha256[:8]}"


def _method(row: Row) -> str:
    return optional(row.method)


def _model(row: Row) -> str:
    revision = "" if row.revision is None else f"@{short(row.revision, 12)}"
    return f"{optional(row.model)}{revision} {optional(row.dtype)}"


def _layer(row: Row) -> str:
    return optional(row.place.get("layer"))


def _place(row: Row) -> str:
    named = {name: value for name, value in row.place.items() if name != "layer" and value is not None}
    return ", ".join(f"{short(name)}={short(str(value))}" for name, value in named.items()) or NA


def _multiplier(row: Row) -> str:
    return plain(row.multiplier)


def _relative_dose(row: Row) -> str:
    return plain(row.relative_dose)


def _pairs(row: Row) -> str:
    balance = "" if row.letter_balance is None else f" ({number(row.letter_balance, 2)})"
    return NA if row.pairs is None else f"{row.pairs}{balance}"


def _behaviour(row: Row) -> str:
    return optional(row.behaviour)


def _language(row: Row) -> str:
    return optional(row.language)


def _items(row: Row) -> str:
    return optional(row.n) if row.n is None or row.n == row.n_items else f"{row.n} of {row.n_items}"


def _levels(row: Row) -> str:
    return f"{number(row.p0)} → {number(row.p)}"


def _effect(row: Row) -> str:
    return interval(row.effect)


def _effect_selection(row: Row) -> str:
    return number(row.effect_selection, sign=True)


def _steerability(row: Row) -> str:
    return interval(row.steerability)


def _anti(row: Row) -> str:
    return percent(row.anti_frac)


def _monotone(row: Row) -> str:
    if row.monotone is None:
        return NA
    return "yes" if row.monotone else f"turns at {plain(row.turns_at)}"


def _delta_position_bias(row: Row) -> str:
    return number(row.delta_position_bias, sign=True)


def _mass(row: Row) -> str:
    return number(row.mass)


def _p_null(row: Row) -> str:
    if row.p_null is None:
        return row.null_note or NA
    return f"{plain(row.p_null)} ({', '.join(filter(None, (f'K={row.k}', row.null_note)))})"


def _off_target(row: Row) -> str:
    return number(row.off_target)


def _capability(row: Row) -> str:
    return interval(row.capability)


def _perplexity_ratio(row: Row) -> str:
    return number(row.perplexity_ratio)


def _kl(row: Row) -> str:
    return number(row.kl)


def _brier(row: Row) -> str:
    return NA if row.calibration is None else number(row.calibration.brier.value)


def _delta_brier(row: Row) -> str:
    return NA if row.calibration is None else interval(row.calibration.brier_change)


def _ece(row: Row) -> str:
    return NA if row.calibration is None else interval(row.calibration.ece, sign=False)


def _delta_ece(row: Row) -> str:
    return NA if row.calibration is None else interval(row.calibration.ece_change)


def _flags(row: Row) -> str:
    return " ".join(row.flags) or "-"


def _versions(row: Row) -> str:
    return NA if row.versions is None else short(row.versions, _VERSIONS)


COLUMNS: Mapping[str, Column] = {
    "rank": Column("rank", "place by E; ranks with = are shared, null rows have none", _rank, 0),
    "vector": Column("vector", "name and first digits of its sha256; a null says which it is", _vector, 0),
    "method": Column("method", "how the vector was made", _method, 19, True),
    "model": Column("model", "name, revision and dtype", _model, 22, True),
    "layer": Column("layer", "the layer chosen, or with --all any", _layer, 2),
    "place": Column("place", "site, scope, operation and other labels", _place, 17, True),
    "multiplier": Column("λ*", "the multiplier chosen", _multiplier, 3),
    "relative_dose": Column("dose", "norm of λ*·v over the mean norm of the residual stream", _relative_dose, 16),
    "pairs": Column("pairs", "training pairs (share whose matching answer is the first letter)", _pairs, 18, True),
    "behaviour": Column("behaviour", "what the task measures", _behaviour, 20, True),
    "language": Column("language", "of the task", _language, 21, True),
    "n": Column("n", "items that E is over, of all", _items, 9, True),
    "p": Column("p(0) → p(λ*)", "mean score over all items, unsteered and steered", _levels, 5),
    "E": Column("E [95 %]", "paired change of the score on items that nothing was chosen on", _effect, 0),
    "E_selection": Column("E sel.", "the same on the items it was chosen on; it flatters", _effect_selection, 8),
    "S": Column("S [95 %]", "steerability, the slope of the logit difference on λ", _steerability, 4),
    "anti": Column("anti", "share of items that go the wrong way", _anti, 7),
    "monotone": Column("monotone", "whether the curve turns, and at which λ first", _monotone, 11),
    "delta_pb": Column("ΔPB", "change of the pull towards what stands first", _delta_position_bias, 10),
    "mass": Column("mass", "probability on the option letters", _mass, 12),
    "p_null": Column("p_null (K)", "share of K random directions that do as much", _p_null, 1),
    "off_target": Column("off-target", "root mean square of E on other behaviours", _off_target, 13),
    "delta_capability": Column("Δcapability [95 %]", "change of the capability task that fell most", _capability, 14),
    "perplexity_ratio": Column("ppl ratio", "perplexity over unsteered, on neutral text", _perplexity_ratio, 15),
    "kl": Column("KL", "of next tokens from the unsteered model's, nats, on neutral text", _kl, 15, optional=True),
    "brier": Column("Brier", "squared error of the choices' probabilities, 0 to 2", _brier, 13, optional=True),
    "delta_brier": Column("ΔBrier [95 %]", "its paired change; above 0 is worse", _delta_brier, 13, optional=True),
    "ece": Column("ECE [95 %]", "expected calibration error; biased upwards", _ece, 13, optional=True),
    "delta_ece": Column("ΔECE [95 %]", "its change; above 0 is worse", _delta_ece, 13, optional=True),
    "flags": Column("flags", "what to be careful about", _flags, 6),
    "versions": Column("versions", "of the task and of packages", _versions, 23, True),
}
