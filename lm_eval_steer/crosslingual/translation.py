"""Translation: a file of items into one language, resumed where it was left, stale rows made anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_steer.crosslingual.backend import Backend
from lm_eval_steer.crosslingual.items import Items, read_rows, write_rows
from lm_eval_steer.crosslingual.provenance import AUTHORED, back_texts, source_hash, without_provenance
from lm_eval_steer.crosslingual.segments import Segment, row_id
from lm_eval_steer.errors import ConfigError

_SECONDS = 5.0  # at most this much work is lost when a run is killed

Progress = Callable[[int, int], None]
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Standing:
    """How a translated file stands to its source.

    Attributes:
        current: id → row whose source is the one that it was made from, by the asked translator.
        stale: ids whose source text has changed since.
        other: ids by another translator than the asked one.
        missing: ids that are not there.
        unknown: ids that the source has not.
    """

    current: Rows
    stale: tuple[str, ...]
    other: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Translated:
    """What a run did: numbers of rows kept, made new, made anew because their source had changed."""

    kept: int
    made: int
    stale: int


def standing(source: Items, path: Path, translator: str | None = None) -> Standing:
    """Return how the rows of a file stand to their source.

    Args:
        source: the source rows.
        path: the translated file; it need not be there.
        translator: whose rows count as current; None for anybody's.

    Raises:
        ConfigError: the file holds rows that a person wrote, or rows without ``source_hash``.
    """
    rows = _rows(path)
    hashes = {name: source_hash(segments) for name, segments in zip(source.ids, source.segments, strict=True)}
    current: Rows = {}
    stale, other = [], []
    for name in source.ids:
        row = rows.get(name)
        if row is None:
            continue
        if row.get("source_hash") is None:
            raise ConfigError(
                f"{path}, row {name!r} has no source_hash. Stamp it first: translate check --write {path}"
            )
        if row["source_hash"] != hashes[name]:
            stale.append(name)
        elif translator is not None and row.get("translator") != translator:
            other.append(name)
        else:
            current[name] = row
    missing = tuple(name for name in source.ids if name not in rows)
    return Standing(current, tuple(stale), tuple(other), missing, tuple(sorted(rows.keys() - set(source.ids))))


def translate_items(
    source: Items,
    path: Path,
    src: str,
    tgt: str,
    backend: Backend,
    *,
    batch_size: int = 8,
    back_translate: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Translated:
    """Translate what is missing or stale in a file; the file is whole at every moment.

    Args:
        source: the source rows.
        path: where the translated rows go, in the order of the source.
        src: language of the source.
        tgt: language of the file.
        backend: what translates.
        batch_size: rows between two looks at the clock; the file is written every five seconds and at the end.
        back_translate: also translate back, into ``bt_text``; rows that lack only this keep their text.
        progress: called with rows done and rows to do.

    Raises:
        ConfigError: a row that a person wrote would be replaced or left out.
        SteerError: as the back-end raises it; what was done before is in the file.
    """
    found = standing(source, path, backend.identity)
    _protect_authored(path, (*found.stale, *found.other, *found.unknown))
    rows = _rows(path)  # a stale row stays until its new text is there
    places = [at for at, name in enumerate(source.ids) if name not in found.current]
    stale = [at for at in places if source.ids[at] in found.stale]
    lacking = [at for at, name in enumerate(source.ids) if name in found.current and not back_texts(rows[name])]
    todo, done, written = places + (lacking if back_translate else []), 0, time.monotonic()
    progress(0, len(todo))
    try:
        for batch in _batches(todo, batch_size):
            new = [at for at in batch if source.ids[at] not in found.current]
            rows |= _translated_rows(source, new, {at: rows.get(source.ids[at]) for at in new}, src, tgt, backend)
            if back_translate:
                rows |= _back_translated(
                    source, {name: rows[name] for name in _names(source, batch)}, src, tgt, backend
                )
            done += len(batch)
            progress(done, len(todo))
            if time.monotonic() - written > _SECONDS:
                _write(source, path, rows)
                written = time.monotonic()
    finally:
        if done or found.unknown:
            _write(source, path, rows)
    made_anew = sum(rows[source.ids[at]]["source_hash"] == source_hash(source.segments[at]) for at in stale)
    return Translated(len(found.current), len(places) - len(stale), made_anew)


def _translated_rows(
    source: Items,
    places: Sequence[int],
    before: Mapping[int, Mapping[str, Any] | None],
    src: str,
    tgt: str,
    backend: Backend,
) -> Rows:
    texts = _translated(source, places, src, tgt, backend)
    made = {at: _row(source, at, texts[at], tgt, backend) for at in places}
    return {source.ids[at]: _kept_stale(source, at, row, before[at], tgt, backend) for at, row in made.items()}


def _kept_stale(
    source: Items, at: int, row: dict[str, Any], before: Mapping[str, Any] | None, tgt: str, backend: Backend
) -> dict[str, Any]:
    """Return a row; with the hash of its former source where it was given the very texts that it had before."""
    schema, where = source.schema, source.where(at)
    given = any(backend.given(source.ids[at], each.name, tgt) is not None for each in source.segments[at])
    if before is None or not given or not schema.fits(before):
        return row
    same = schema.segments(row, where) == schema.segments(before, where)
    return {**row, "source_hash": before["source_hash"]} if same else row


def _back_translated(source: Items, rows: Rows, src: str, tgt: str, backend: Backend) -> Rows:
    segments = {name: source.schema.segments(row, name) for name, row in rows.items()}
    flat = [segment.text for each in segments.values() for segment in each]
    back = iter(_filled(flat, backend.translate([text for text in flat if text.strip()], tgt, src)))
    return {name: {**row, "bt_text": [next(back) for _ in segments[name]]} for name, row in rows.items()}


def _translated(source: Items, places: Sequence[int], src: str, tgt: str, backend: Backend) -> dict[int, list[str]]:
    """Return the translated texts of some rows: the given ones, and the others each text once."""
    given = {at: [backend.given(source.ids[at], each.name, tgt) for each in source.segments[at]] for at in places}
    open_texts = dict.fromkeys(
        segment.text
        for at in places
        for segment, text in zip(source.segments[at], given[at], strict=True)
        if text is None and segment.text.strip()
    )
    said = dict(zip(open_texts, backend.translate(list(open_texts), src, tgt), strict=True)) if open_texts else {}
    return {at: [_said(s, g, said) for s, g in zip(source.segments[at], given[at], strict=True)] for at in places}


def _said(segment: Segment, given: str | None, said: Mapping[str, str]) -> str:
    return given if given is not None else said.get(segment.text, segment.text)


def _row(source: Items, at: int, texts: Sequence[str], tgt: str, backend: Backend) -> dict[str, Any]:
    row = source.schema.rebuild(without_provenance(source.rows[at]), texts, source.where(at))
    return {
        **row,
        "lang": tgt,
        "src_doc_id": source.ids[at],
        "translator": backend.identity,
        "bt_text": [],
        "source_hash": backend.made_from(source.ids[at], tgt) or source_hash(source.segments[at]),
    }


def _filled(texts: Sequence[str], answers: Sequence[str]) -> list[str]:
    """Return an answer for each text, blank ones as they are."""
    left = iter(answers)
    return [next(left) if text.strip() else text for text in texts]


def _rows(path: Path) -> Rows:
    if not path.exists():
        return {}
    return {str(row.get("src_doc_id") or row_id(row, at)): row for at, row in enumerate(read_rows(path)[1])}


def _protect_authored(path: Path, names: Sequence[str]) -> None:
    rows = _rows(path)
    for name in names:
        if rows[name].get("translator") in (AUTHORED, None):
            raise ConfigError(
                f"{path}, row {name!r} was written by a person and would be replaced or left out. Choose another "
                "--out, or take the row out of the file."
            )


def _write(source: Items, path: Path, rows: Rows) -> None:
    write_rows(path, source.shape, (rows[name] for name in source.ids if name in rows))


def _names(source: Items, places: Sequence[int]) -> list[str]:
    return [source.ids[at] for at in places]


def _batches(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]
