"""Invariants: what a translation must never change. Ids, their order, labels, letters and the number of choices."""

from __future__ import annotations

from lm_eval_steer.crosslingual.items import Items
from lm_eval_steer.errors import DataError

_SHOWN = 10


def violations(source: Items, target: Items) -> list[str]:
    """Return what is other in a translated file than in its source, a sentence each, rows named.

    Compared are: the schema; every id, once and in the same order; and in each row everything that is neither text nor
    provenance (split, labels, letters, answers, the number of choices).
    """
    if target.schema is not source.schema:
        return [f"{target.path} has rows of the schema {target.schema.name}, its source {source.schema.name}."]
    places, there = {name: at for at, name in enumerate(source.ids)}, set(target.ids)
    found = [f"{target.path}: row {name!r} is missing." for name in source.ids if name not in there]
    found += [f"{target.where(at)} is not in {source.path}." for at, n in enumerate(target.ids) if n not in places]
    if not found and target.ids != source.ids:
        at = next(i for i, (a, b) in enumerate(zip(target.ids, source.ids, strict=True)) if a != b)
        found.append(f"{target.where(at)} is at place {at}, where the source has {source.ids[at]!r}.")
    for at, name in enumerate(target.ids):
        if name in places:
            found += _row(source, places[name], target, at)
    return found


def check_invariants(source: Items, target: Items) -> None:
    """Raise where :func:`violations` finds any.

    Raises:
        DataError: naming the rows, ten at most.
    """
    if found := violations(source, target):
        more = f"\n… and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise DataError("\n".join(found[:_SHOWN]) + more)


def _row(source: Items, at: int, target: Items, index: int) -> list[str]:
    where = target.where(index)
    old = source.schema.frame(source.rows[at], source.where(at))
    new = target.schema.frame(target.rows[index], where)
    found = [f"{where}: {key} is missing." for key in old.keys() - new.keys()]
    found += [f"{where}: {key} is {new[key]!r}, which the source has not." for key in new.keys() - old.keys()]
    found += [
        f"{where}: {key} is {new[key]!r}; the source has {old[key]!r}."
        for key in old.keys() & new.keys()
        if new[key] != old[key]
    ]
    said = target.rows[index].get("src_doc_id")
    if said is not None and said != source.ids[at]:
        found.append(f"{where}: src_doc_id is {said!r}; the source row is {source.ids[at]!r}.")
    return sorted(found)
