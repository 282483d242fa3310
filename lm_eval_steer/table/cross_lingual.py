"""Cross-lingual: what vectors do in several languages, as tables for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.files import content_id
from lm_eval_steer.names import slug
from lm_eval_steer.stats.crosslingual.alignment import THRESHOLD, UNKNOWN
from lm_eval_steer.stats.crosslingual.levels import Gap
from lm_eval_steer.stats.crosslingual.result import (
    Agreement,
    CrossLingual,
    Family,
    LayerResult,
    Place,
    ScalingRow,
    Transfer,
    TransferCell,
    VectorEffect,
)
from lm_eval_steer.stats.crosslingual.scaling import MIN_SIZES, TOO_FEW_MODELS
from lm_eval_steer.stats.curve import Estimate
from lm_eval_steer.table.digits import NA, interval, number, plain, short
from lm_eval_steer.table.grid import Grid, Part, grids_to_latex, grids_to_markdown, grids_to_text

_WRITERS = {"table": grids_to_text, "md": grids_to_markdown, "tex": grids_to_latex}
_NOT_KNOWN = "not known"
_TRANSFER_NOTE = (
    "T = S of the row's vector / S of the column's own vector, both on the column's task. null: outside (out) or "
    "inside (in) the band of 95 % of the random directions of the row's norm. A T that is in, or whose interval holds "
    "0, shows no transfer."
)


def with_cross_lingual(text: str, found: CrossLingual, form: str) -> str:
    """Return a rendered table with what there is across languages; as it is where there is nothing.

    CSV has one row a curve and no room for it, and stays as it is.

    Args:
        text: the table.
        found: the analysis.
        form: ``table``, ``md``, ``tex``, ``json`` or ``csv``.
    """
    if not found.families or form == "csv":
        return text
    if form == "json":
        content = {**json.loads(text), "crosslingual": to_dict(found)}
        return json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    if form not in _WRITERS:
        raise ConfigError(f"--format {form!r} has no way to write languages; use {', '.join(_WRITERS)} or json.")
    return f"{text}\n{_WRITERS[form](parts(found))}"


def to_dict(found: CrossLingual) -> dict[str, Any]:
    """Return an analysis as JSON values; the places of a matrix become a list."""
    content: dict[str, Any] = _plain(found)
    return {"alignment_threshold": THRESHOLD, **content}


def parts(found: CrossLingual) -> list[Part]:
    """Return the tables of an analysis, a part for each family on each model, and one for the sizes."""
    made = [_family(family) for family in found.families]
    return [*made, _scaling(found.scaling)] if found.scaling else made


def _family(family: Family) -> Part:
    names = ", ".join(language.name for language in family.languages)
    model = f"{short(str(family.model.get('id')))} {family.model.get('dtype')}"
    out = ", ".join(f"{language.name} {language.left_out}" for language in family.languages if language.left_out)
    notes = [
        f"{family.items} items that all languages have, in {family.clusters} clusters; the reference is "
        f"{family.reference}. Left out: {out or 'none'}."
    ]
    if family.set_apart:
        notes.append(
            f"Runs of {', '.join(map(short, family.set_apart))} with other items, examples or prompts are left out; "
            "the one with most items counts."
        )
    grids = [] if family.note else [_unsteered(family)]
    for place in family.places:
        grids += place_grids(family, place)
    title = (
        f"{short(family.family)} in {len(family.languages)} languages ({names}), scaffold {family.scaffold}, {model}"
    )
    said = (*notes, *([f"Nothing is compared: {family.note}."] if family.note else []))
    return Part(title, said, tuple(grids), family_id(family))


def family_id(family: Family) -> str:
    """Return a file name for a family on a model as it ran."""
    model = family.model
    ran = content_id([model.get(name) for name in ("id", "revision", "dtype", "fingerprint")], 8)
    return slug(f"{family.family}-{family.scaffold}-{model.get('id')}-{model.get('dtype')}-{ran}")


def _unsteered(family: Family) -> Grid:
    rows = []
    margin = ""
    for language in family.languages:
        pair = None if family.unsteered is None else family.unsteered.pairs.get(language.name)
        gap = language.gap
        margin = margin if gap is None else f" equivalent: the 90 % interval lies within ±{plain(gap.margin)}."
        rows.append(
            (
                language.name,
                short(language.task),
                _share(language.score),
                NA if gap is None else interval(gap.difference),
                "reference" if gap is None else _level(gap),
                *(
                    (NA, NA, NA)
                    if pair is None
                    else (interval(pair.rank), _share(pair.same_sign), interval(pair.kappa))
                ),
            )
        )
    header = ("language", "task", family.metric, "D [90 %]", "level", "rank corr.", "same sign", "kappa")
    notes = [f"D: level gap against {family.reference};{margin}"] if margin else []
    return Grid("Without steering", header, tuple(rows), (*notes, *_agreement_notes(family.unsteered)))


def _level(gap: Gap) -> str:
    if gap.equivalent is None:
        return _NOT_KNOWN
    if gap.equivalent:
        return "equivalent"
    return "differs" if gap.difference.excludes_zero else _NOT_KNOWN


def _agreement_notes(found: Agreement | None) -> Iterable[str]:
    if found is None:
        return ()
    v = found.variance
    return (
        f"All languages: Krippendorff's alpha of signs {interval(found.alpha_nominal)}, of numbers "
        f"{interval(found.alpha_interval)}. Share of the variance: language {_share(v.language_share)}, item "
        f"{_share(v.item_share)}, rest {_share(v.residual_share)}.",
    )


def place_grids(family: Family, place: Place) -> list[Grid]:
    """Return the tables of one place at the layer that is shown."""
    here = place.layers[place.shown]
    where = ", ".join(f"{name} {value}" for name, value in place.labels.items() if value is not None)
    chosen = "" if len(place.layers) == 1 else f"; of {len(place.layers)} layers the one with the largest mean |S|"
    title = f"layer {here.layer} ({where}{chosen})"
    grids = [_vectors(family, here, title)]
    agreeing = [effect for effect in here.vectors if effect.agreement is not None]
    if agreeing:
        grids.append(_agreement(agreeing, title))
    for each in here.transfers:
        grids += [transfer_grid(each, title), *_cosines(each, here)]
    return grids


def _vectors(family: Family, here: LayerResult, title: str) -> Grid:
    rows = []
    for effect in here.vectors:
        for language, steerability in effect.steerability.items():
            pair = None if effect.agreement is None else effect.agreement.pairs.get(language)
            rows.append(
                (
                    _vector(effect),
                    "+".join(effect.extracted) or NA,
                    language,
                    interval(steerability),
                    interval(effect.difference[language]) if language in effect.difference else NA,
                    _p(effect, language),
                    NA if pair is None else interval(pair.rank),
                    NA if pair is None else _share(pair.same_sign),
                )
            )
    header = ("vector", "made in", "tested in", "S [95 %]", f"S − S {family.reference}", "p_null (K)", "rank corr.")
    return Grid(f"Every vector in every language, {title}", (*header, "same sign"), tuple(rows))


def _vector(effect: VectorEffect) -> str:
    return f"{short(effect.vector)} {(effect.sha256 or effect.id)[:8]}"


def _p(effect: VectorEffect, language: str) -> str:
    p = effect.p_null.get(language)
    return "no null" if p is None else f"{plain(p)} (K={effect.nulls[language]})"


def _agreement(effects: Iterable[VectorEffect], title: str) -> Grid:
    rows = []
    for effect in effects:
        assert effect.agreement is not None
        found, v = effect.agreement, effect.agreement.variance
        alphas = map(interval, (found.alpha_nominal, found.alpha_interval))
        shares = map(_share, (v.language_share, v.item_share, v.residual_share))
        rows.append((_vector(effect), *alphas, *shares))
    header = ("vector", "alpha of signs", "alpha of s", "share: language", "share: item", "share: rest")
    return Grid(f"Agreement of each item's slope over all languages, {title}", header, tuple(rows))


def transfer_grid(found: Transfer, title: str) -> Grid:
    """Return a transfer matrix as a table."""
    rows = [
        (source, short(vector), *(transfer_text(found.cells[number, language]) for language in found.languages))
        for number, (source, vector) in enumerate(zip(found.sources, found.vectors, strict=True))
    ]
    notes = [_TRANSFER_NOTE]
    for language in found.languages:
        reasons = {cell.ratio.why for (_, y), cell in found.cells.items() if y == language and cell.ratio.value is None}
        notes += [f"{language}: n/a, {reason}." for reason in sorted(reasons)]
    if any(cell.alignment is not None for cell in found.cells.values()):
        notes.append(
            "P@1: share of items that the model finds in the other language, at its best layer (in brackets: at this "
            f"one). Under {THRESHOLD:g}: {UNKNOWN}; a vector that does not transfer there is no finding."
        )
    header = ("made in", "vector", *(f"tested in {language}" for language in found.languages))
    return Grid(f"Transfer of {short(found.concept)}, {title}", header, tuple(rows), tuple(notes))


def transfer_text(cell: TransferCell) -> str:
    """Return one place of the matrix in words."""
    if cell.own:
        return NA if cell.ratio.value is None else "1 (own)"
    told = [NA if cell.ratio.value is None else interval(cell.ratio)]
    if cell.ratio.value is not None:
        band = {None: "null unknown", True: "null: out", False: "null: in"}[cell.beyond_null]
        told.append(band)
    if cell.alignment is not None:
        here = "" if cell.alignment_here is None else f" ({number(cell.alignment_here, 2)})"
        told.append(f"P@1 {number(cell.alignment, 2)}{here}")
    if cell.known is False:
        told.append(UNKNOWN)
    return "; ".join(told)


def _cosines(found: Transfer, here: LayerResult) -> list[Grid]:
    if not any(i != j for i, j in found.cosines):
        return []
    places = range(len(found.sources))
    rows = tuple((found.sources[i], *(number(found.cosines.get((i, j)), 2, sign=True) for j in places)) for i in places)
    return [Grid(f"Cosines of the vectors of {short(found.concept)}, layer {here.layer}", ("", *found.sources), rows)]


def _share(estimate: Estimate) -> str:
    """Return a number that is mostly above 0, without its plus signs."""
    return interval(estimate).replace("+", "")


def _scaling(rows: Sequence[ScalingRow]) -> Part:
    if all(row.scaling.slope.why == TOO_FEW_MODELS for row in rows):
        most = max(len(set(row.scaling.sizes)) for row in rows)
        note = f"S against the number of parameters: {TOO_FEW_MODELS} ({most} of at least {MIN_SIZES} sizes)."
        return Part("Size of the model", (note,), (), "model-sizes")
    body = tuple(
        (
            f"{short(row.family)} ({row.scaffold})",
            short(row.concept),
            row.language,
            ", ".join(f"{size / 1e6:.4g} M" for size in row.scaling.sizes),
            ", ".join(number(value, 3, sign=True) for value in row.scaling.steerability),
            row.unit,
            interval(row.scaling.slope) if row.scaling.slope.value is not None else row.scaling.slope.why,
        )
        for row in rows
    )
    header = ("family", "concept", "language", "parameters", "S", "per", "slope of S on ln(parameters) [95 %]")
    return Part("Size of the model", (), (Grid("Own vector of each language", header, body),), "model-sizes")


def _plain(value: Any) -> Any:
    """Return dataclasses as dicts, all the way down."""
    if isinstance(value, Transfer):
        cells = [
            {"source": value.sources[at], "vector": value.vectors[at], "language": language, **_plain(cell)}
            for (at, language), cell in value.cells.items()
        ]
        cosines = [{"a": value.sources[i], "b": value.sources[j], "cosine": c} for (i, j), c in value.cosines.items()]
        kept = {name: list(getattr(value, name)) for name in ("sources", "vectors", "languages")}
        return {"concept": value.concept, **kept, "cells": cells, "cosines": cosines}
    if isinstance(value, Estimate) or dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
