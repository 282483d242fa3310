"""Stored: a ledger's curves kept in its folder, so that tables and gates need no samples and no resampling."""

from __future__ import annotations

import base64
import json
import sys
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lm_eval_steer.errors import WriteError
from lm_eval_steer.files import canonical_json, content_id, sha256_bytes, write_text
from lm_eval_steer.stats.curve import Curve
from lm_eval_steer.stats.curve_json import curve_from_dict, curve_to_dict
from lm_eval_steer.sweep.records import CellRecord

#: Raise it when a number or a field changes; what was stored before is then computed again.
SCHEMA_VERSION = 3

_START, _END = '{"content":', ',"sha256":"'


def stored_id(records: Iterable[CellRecord], selected: Sequence[str], where: str | None, draws: int, seed: int) -> str:
    """Return the content id of a ledger's curves: over everything that decides them, notes and paths left out."""
    cells = sorted(
        [
            r.cell_id,
            r.samples.get("sha256"),
            r.status,
            r.labels,
            r.plan,
            r.model,
            r.tasks,
            r.counts,
            r.seeds,
            r.versions,
        ]
        for r in records
    )
    asked = {"where": where, "selected": sorted(selected), "draws": draws, "seed": seed, "schema": SCHEMA_VERSION}
    return content_id([cells, asked], 32)


def load_curves(folder: Path, content: str) -> list[Curve] | None:
    """Return the stored curves, or None where there are none or the file is damaged."""
    try:
        text = (folder / f"{content}.json").read_text(encoding="utf-8")
        body, found, stated = text.removeprefix(_START).rpartition(_END)
        if not found or stated != f'{sha256_bytes(body.encode("ascii"))}"}}\n':
            return None
        data = json.loads(body)
        names = [tuple(each) for each in data["names"]]
        return [curve_from_dict(_unpacked(curve, names)) for curve in data["curves"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def store_curves(folder: Path, content: str, curves: Iterable[Curve]) -> bool:
    """Write curves, atomically; return False where the folder cannot be written, which is no error."""
    names: dict[tuple[str, ...], int] = {}
    rows = [_packed(curve_to_dict(curve), names) for curve in curves]
    body = canonical_json({"curves": rows, "names": [list(each) for each in names]})
    try:
        write_text(folder / f"{content}.json", f'{_START}{body}{_END}{sha256_bytes(body.encode("ascii"))}"}}\n')
    except WriteError:
        return False
    return True


def _packed(curve: dict[str, Any], names: dict[tuple[str, ...], int]) -> dict[str, Any]:
    """Put the number of a list of items in the list's place, most curves share theirs, and effects as base64."""
    number = names.setdefault(tuple(curve["items"]), len(names))
    selection = curve["selection"]
    if selection is not None:
        of_selection = names.setdefault(tuple(selection["selection_items"]), len(names))
        selection = {**selection, "selection_items": of_selection}
    effects = array("d", curve["item_effects"])
    if sys.byteorder == "big":
        effects.byteswap()
    packed = base64.b64encode(effects.tobytes()).decode("ascii")
    return {**curve, "items": number, "selection": selection, "item_effects": packed}


def _unpacked(curve: dict[str, Any], names: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    selection = curve["selection"]
    if selection is not None:
        selection = {**selection, "selection_items": names[selection["selection_items"]]}
    effects = array("d", base64.b64decode(curve["item_effects"], validate=True))
    if sys.byteorder == "big":
        effects.byteswap()
    return {**curve, "items": names[curve["items"]], "selection": selection, "item_effects": effects}
