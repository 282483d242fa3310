"""Track: what one vector at one place does to every item of one task, read from a ledger once and then kept."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm_eval_steer.errors import WriteError
from lm_eval_steer.files import atomic_write, canonical_json, content_id
from lm_eval_steer.stats.arrays import Floats, run_lengths
from lm_eval_steer.stats.compute import read_panels
from lm_eval_steer.stats.crosslingual.family import Member
from lm_eval_steer.stats.curve import Curve
from lm_eval_steer.stats.groups import Group, group_cells
from lm_eval_steer.stats.panel import Panel
from lm_eval_steer.stats.slopes import FLOAT32_FLOOR
from lm_eval_steer.sweep.ledger import Ledger

_SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Items:
    """The items of one task, without steering.

    Attributes:
        names: of the items, cluster after cluster.
        clusters: the cluster of each.
        score: ``[items]``, the headline without steering.
        level: ``[items]``, what slopes are of without steering: the logit difference, or the score.
        floor: ε, the slope that noise alone makes.
    """

    names: tuple[str, ...]
    clusters: tuple[str, ...]
    score: Floats
    level: Floats
    floor: float

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """Place of each item by its name."""
        return {name: place for place, name in enumerate(self.names)}


@dataclass(frozen=True, eq=False)
class Track:
    """One curve, item by item.

    Attributes:
        curve: what it is of.
        member: language and family of its task.
        items: of its task.
        slopes: ``[items]``, ``s_i``; None under three multipliers.
    """

    curve: Curve
    member: Member
    items: Items
    slopes: Floats | None

    @property
    def dose(self) -> float | None:
        """Relative dose at λ = 1; None where the ledger does not know it, or the operation has none."""
        if self.curve.labels.get("operation") != "add":
            return None
        known = [p.relative_dose / abs(p.multiplier) for p in self.curve.points if p.multiplier and p.relative_dose]
        return known[-1] if known else None


def read_tracks(
    ledgers: Iterable[Ledger], curves: Sequence[Curve], members: Mapping[str, Sequence[Member]]
) -> list[Track]:
    """Return the tracks of the curves whose tasks are in ``members``, system prompts alone left out.

    What is read is kept in ``LEDGER/stats`` where that can be written.

    Args:
        ledgers: where the curves come from.
        curves: of these ledgers; random directions too.
        members: task → its places in families; a track for each.

    Raises:
        InputError: samples are missing or damaged.
    """
    wanted = {c.id: c for c in curves if c.task in members and c.labels.get("control") != "prompt"}
    found: _Rows = {}
    for ledger in ledgers:
        missing = {key: curve for key, curve in wanted.items() if key not in found}
        content = content_id([sorted(missing), _SCHEMA], 32)
        path = ledger.path / "stats" / f"items-{content}.npz"
        rows = _load(path)
        if rows is None:
            rows = _read(ledger, missing)
            _store(path, rows)
        found |= rows
    return [
        Track(wanted[key], member, items, slopes)
        for key, (items, slopes) in sorted(found.items(), key=lambda row: row[0])
        for member in members[wanted[key].task]
    ]


_Rows = dict[str, tuple[Items, Floats | None]]


def _read(ledger: Ledger, curves: Mapping[str, Curve]) -> _Rows:
    by_key = {_key(c.task, c.baseline, c.labels): c for c in curves.values()}
    mine: dict[str, Group] = {}
    for group in group_cells(ledger.read_cells()):
        curve = by_key.get(_key(group.task, group.base.cell_id, group.labels))
        part = None if curve is None else group.only(point.cell_id for point in curve.points)
        if curve is not None and part is not None:
            mine[curve.id] = part
    if not mine:
        return {}
    panels = read_panels(ledger, mine.values(), draws=100, seed=0)
    items = {key: _items(panel, _floor(mine, key)) for key, panel in panels.items()}
    return {
        curve: (items[group.panel], panels[group.panel].item_slopes(group, list(panels[group.panel].series(group))))
        for curve, group in mine.items()
        if group.panel in panels
    }


def _items(panel: Panel, floor: float) -> Items:
    layout = panel.layout
    names = np.asarray(layout.keys["item_id"].to_pylist(), dtype=object)[layout.kept][layout.starts]
    clusters = np.repeat(layout.clusters, run_lengths(layout.cluster_starts, len(layout.starts)))
    level = panel.sloped(panel.base)
    return Items(tuple(map(str, names)), tuple(map(str, clusters)), panel.base.score, level, floor)


def _floor(groups: Mapping[str, Group], panel: tuple[str, str]) -> float:
    base = next(group.base for group in groups.values() if group.panel == panel)
    measured = base.counts.get("noise_floor")
    return float(measured) if isinstance(measured, int | float) else FLOAT32_FLOOR


def _key(task: str, base: str, labels: Mapping[str, object]) -> str:
    return canonical_json([task, base, dict(labels)])


def _store(path: Path, rows: _Rows) -> None:
    """Write rows as arrays, the items of a task once; a folder that cannot be written is no error."""
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
    tasks: dict[int, list[str]] = {}
    for key, (items, _) in rows.items():
        tasks.setdefault(id(items), []).append(key)
    for number, keys in enumerate(sorted(tasks.values())):
        items = rows[keys[0]][0]
        nothing = np.full(len(items.names), np.nan)
        arrays |= {
            f"{number}.names": np.asarray(items.names, dtype=np.str_),
            f"{number}.clusters": np.asarray(items.clusters, dtype=np.str_),
            f"{number}.levels": np.stack([items.score, items.level, np.full_like(items.score, items.floor)]),
            f"{number}.curves": np.asarray(keys, dtype=np.str_),
            f"{number}.slopes": np.stack([nothing if (s := rows[key][1]) is None else s for key in keys]),
        }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    try:
        with atomic_write(path, "wb") as handle:
            handle.write(buffer.getvalue())
    except WriteError:
        return


def _load(path: Path) -> _Rows | None:
    """Return what :func:`_store` wrote; None where there is nothing, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        rows: _Rows = {}
        for number in range(len(arrays) // 5):
            names, clusters, levels, curves, slopes = (
                arrays[f"{number}.{part}"] for part in ("names", "clusters", "levels", "curves", "slopes")
            )
            items = Items(tuple(names.tolist()), tuple(clusters.tolist()), levels[0], levels[1], float(levels[2, 0]))
            for curve, own in zip(curves.tolist(), slopes, strict=True):
                rows[curve] = (items, None if np.isnan(own).any() else own)
        return rows
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile, EOFError):
        return None
