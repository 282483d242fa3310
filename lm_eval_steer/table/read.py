"""read_curves: the curves that a table is made of, and the random directions that they are tested against."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.stats.analysis import curves
from lm_eval_steer.stats.crosslingual.alignment import read_alignments
from lm_eval_steer.stats.crosslingual.family import Member, members, parse_family
from lm_eval_steer.stats.crosslingual.result import CrossLingual
from lm_eval_steer.stats.curve import Curve
from lm_eval_steer.suggest import choice_message
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.where import Comparison, parse_where
from lm_eval_steer.table.keys import kind

# Terms that choose a vector and not a place; random directions are chosen by the place alone.
_OF_THE_VECTOR = frozenset({"vector", "control", "control_of", "cell"})


def read_curves(ledgers: Sequence[Ledger], where: str | None = None) -> list[Curve]:
    """Return the curves of the cells that ``where`` chooses, with the random directions at the same places.

    A choice such as ``vector=joy`` or ``control=none`` would leave out the directions that ``p_null`` is made from.

    Args:
        ledgers: opened ones.
        where: which cells, see ``sweep/where.py``; None for all.

    Raises:
        ConfigError: ``where`` cannot be read or names a label that no record has.
        InputError: samples are missing or damaged, or the unsteered cell is.
    """
    found = curves(ledgers, where)
    terms = [term for term in parse_where(where).comparisons if term.key not in _OF_THE_VECTOR]
    if len(terms) == len(parse_where(where).comparisons):
        return found
    nulls = curves(ledgers, ", ".join([*map(_spelled, terms), "control=random"]))
    known = {curve.id for curve in found}
    return [*found, *(curve for curve in nulls if kind(curve) == "random" and curve.id not in known)]


def read_cross_lingual(
    ledgers: Sequence[Ledger], curves: Sequence[Curve], families: Sequence[str] = (), alignments: Sequence[str] = ()
) -> CrossLingual:
    """Return what curves say across languages; empty where no family of tasks has two.

    Args:
        ledgers: where the curves come from.
        curves: of vectors and of random directions.
        families: ``NAME:LANGUAGE=TASK,...`` for tasks that do not say it themselves.
        alignments: files of ``lm-eval-steer align``.

    Raises:
        ConfigError: a family is spelt otherwise, or the ledgers have under two of its tasks.
        InputError: samples are missing or damaged, or a file is no alignment.
    """
    given: dict[str, Member] = {}
    for text in families:
        own = parse_family(text)
        known = {curve.task for curve in curves}
        missing = [task for task in own if task not in known]
        if len(own) - len(missing) < 2:
            raise ConfigError(f"--family {text!r}: {choice_message('task', missing[0], sorted(known))}")
        given |= own
    read = read_alignments(alignments)
    if not members(curves, given):
        return CrossLingual()
    from lm_eval_steer.stats.crosslingual.analysis import cross_lingual  # numpy; most ledgers do without

    return cross_lingual(ledgers, curves, given=given, alignments=read)


def _spelled(term: Comparison) -> str:
    mark = "'" if '"' in term.text else '"'
    value = f"{mark}{term.text}{mark}" if term.quoted else term.text
    return f"{term.key} {term.operator} {value}"
