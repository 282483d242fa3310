"""Variance: how much of what items differ in is the language's, how much the item's, how much neither's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.crosslingual.clusters import Clusters, without_value
from lm_eval_steer.stats.curve import Estimate

_PARTS = ("language", "item", "residual")


@dataclass(frozen=True)
class Components:
    """Crossed variance parts of one number per item and language, each with its interval over items.

    Attributes:
        language: ``s²_lang``, the variance of the languages' means; 0 is the least.
        item: ``s²_item``, what an item has in every language.
        residual: ``s²_res``, item by language, and noise.
        language_share: ``s²_lang`` over the sum of the three.
        item_share: of the item.
        residual_share: of the residual.
    """

    language: Estimate
    item: Estimate
    residual: Estimate
    language_share: Estimate
    item_share: Estimate
    residual_share: Estimate


def components(values: Floats, clusters: Clusters) -> Components:
    """Return the crossed variance parts of L languages by n items, both random, one value a cell.

    ``s²_lang = (MSL − MSE)/n``, ``s²_item = (MSI − MSE)/L``, ``s²_res = MSE``, floored at 0. The interval draws items.
    A resample's language means vary once more by drawing, by MSE/n, and its other mean squares shrink by (n − 1)/n;
    both are taken out of the resamples. Languages are not drawn: the interval is about these languages.

    Args:
        values: ``[items, languages]``, none missing.
        clusters: of the items.

    Source: Searle, Casella and McCulloch 1992, "Variance Components", section 4.3 (two-way crossed, balanced).
    """
    items, languages = values.shape
    if items < 2 or languages < 2:
        nothing = without_value(clusters, "needs two items and two languages")
        return Components(*[nothing] * 6)
    centred = values - np.mean(values)
    total = np.sum(centred, axis=1)
    columns = np.column_stack([centred, total**2, np.sum(centred**2, axis=1)])
    whole = _parts(np.sum(columns, axis=0)[None, :], np.asarray([float(items)]), languages)[0]
    found: list[Floats] = []

    def resampled() -> Floats:
        if not found:
            sums = clusters.sums(np.column_stack([columns, np.ones(items)]))
            drawn = _parts(sums[:, :-1], sums[:, -1], languages)
            drawn[:, 0] -= whole[2] / items
            drawn[:, 1:] *= items / (items - 1)
            found.append(np.maximum(drawn, 0.0))
        return found[0]

    floored = np.maximum(whole, 0.0)
    sizes = [clusters.around(float(floored[at]), lambda at=at: resampled()[:, at], 0.0) for at in range(3)]  # type: ignore[misc]
    shares = [
        clusters.around(_share(floored, at), lambda at=at: _shares(resampled(), at), 0.0)  # type: ignore[misc]
        for at in range(3)
    ]
    return Components(*sizes, *shares)


def _parts(sums: Floats, items: Floats, languages: int) -> Floats:
    """Return ``s²_lang, s²_item, s²_res`` of each resample, ``[draws, 3]``, not floored.

    Args:
        sums: ``[draws, languages + 2]``: of each language's values, of items' squared totals, of all squares.
        items: ``[draws]``, how many there are.
        languages: how many there are.
    """
    of_language, squared_totals, squares = sums[:, :languages], sums[:, -2], sums[:, -1]
    grand = np.sum(of_language, axis=1) ** 2 / (items * languages)
    by_language = np.sum(of_language**2, axis=1) / items - grand
    by_item = squared_totals / languages - grand
    rest = np.maximum(squares - grand - by_language - by_item, 0.0)
    mean_language, mean_item = by_language / (languages - 1), by_item / (items - 1)
    error = rest / ((items - 1) * (languages - 1))
    return np.column_stack([(mean_language - error) / items, (mean_item - error) / languages, error])


def _share(parts: Floats, at: int) -> float | None:
    total = float(np.sum(parts))
    return float(parts[at]) / total if total > 0 else None


def _shares(parts: Floats, at: int) -> Floats:
    total = np.sum(parts, axis=1)
    result: Floats = np.divide(parts[:, at], total, out=np.full(len(parts), np.nan), where=total > 0)
    return result
