"""Transfer: what a vector of one language does in another, as a share of what that one's own vector does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lm_eval_steer.stats.arrays import Floats
from lm_eval_steer.stats.crosslingual.alignment import THRESHOLD, Alignment
from lm_eval_steer.stats.crosslingual.clusters import Clusters, without_value
from lm_eval_steer.stats.crosslingual.common import Common
from lm_eval_steer.stats.crosslingual.family import ALL
from lm_eval_steer.stats.crosslingual.result import Transfer, TransferCell
from lm_eval_steer.stats.curve import Estimate
from lm_eval_steer.stats.nulls import needed_nulls
from lm_eval_steer.sweep.records import Label

ALPHA = 0.05
NO_OWN, NOT_RUN = "no vector of this language", "not run"
NO_SLOPE, INCLUDES_ZERO = "insufficient grid", "the own vector's interval includes 0, or there is none"
TOO_FEW_NULLS = f"too few random directions for the own vector, {needed_nulls()} needed"
NO_NULL, WITHIN_NULL = "no random directions for the own vector", "the own vector does not beat random directions"


@dataclass(frozen=True, eq=False)
class Source:
    """One vector as a row of the matrix.

    Attributes:
        vector: name.
        id: content id.
        languages: of its data.
        slopes: language of the task → ``[items]``, ``s_i``.
        doses: language of the task → relative dose at λ = 1.
        p_null: language of the task → p against random directions.
        nulls: language of the task → S of each random direction at the same layer.
    """

    vector: str
    id: str
    languages: tuple[str, ...]
    slopes: Mapping[str, Floats]
    doses: Mapping[str, float | None]
    p_null: Mapping[str, float | None]
    nulls: Mapping[str, Sequence[float]]


def transfer(
    concept: str, sources: Sequence[Source], common: Common, layer: Label, alignment: Alignment | None = None
) -> Transfer:
    """Return ``T[x,y] = S[x,y] / S[y,y]`` over the common items.

    n/a unless the interval of ``S[y,y]`` excludes 0 and it beats random directions at 0.05. Columns are the languages
    that have a vector of their own.

    Args:
        concept: what the vectors stand for.
        sources: one vector for each set of languages.
        common: items of the family.
        layer: of the vectors.
        alignment: of the model; None where nobody measured it.
    """
    own = {source.languages[0]: source for source in sources if len(source.languages) == 1}
    columns = tuple(language for language in common.languages if language in own)
    rows = sorted(
        sources, key=lambda s: (ALL in s.languages, len(s.languages), s.languages != columns[:1], s.languages)
    )
    cells = {
        (number, language): _cell(row, own[language], language, common.clusters, layer, alignment)
        for number, row in enumerate(rows)
        for language in columns
    }
    cosines = {}
    if alignment is not None and isinstance(layer, int):
        for i, a in enumerate(rows):
            for j, b in enumerate(rows):
                cosine = 1.0 if i == j else alignment.cosines.get((layer, a.id, b.id))
                if cosine is not None:
                    cosines[i, j] = cosine
    return Transfer(
        concept,
        tuple(_name(row.languages, columns) for row in rows),
        tuple(row.vector for row in rows),
        columns,
        cells,
        cosines,
    )


def _cell(
    row: Source, own: Source, language: str, clusters: Clusters, layer: Label, alignment: Alignment | None
) -> TransferCell:
    is_own = row is own
    best = here = None
    if alignment is not None and not is_own:
        best, here = alignment.of_sources(row.languages, language, layer)
    known = None if best is None else best >= THRESHOLD
    why = _why_not(row, own, language, clusters)
    if why:
        missing = without_value(clusters, why)
        return TransferCell(missing, own=is_own, alignment=best, alignment_here=here, known=known)
    below = own.slopes[language]
    ratio = _ratio(row.slopes[language], below, clusters)
    size = float(np.mean(below))
    drawn = [null / size for null in row.nulls.get(language, ())]
    band = None
    if len(drawn) >= needed_nulls():
        low, high = np.quantile(drawn, [0.025, 0.975])
        band = (float(low), float(high))
    doses = row.doses.get(language), own.doses.get(language)
    return TransferCell(
        ratio=ratio,
        at_equal_dose=ratio.value * doses[1] / doses[0] if ratio.value is not None and doses[0] and doses[1] else None,
        band=band,
        nulls=len(drawn),
        beyond_null=None if band is None or ratio.value is None else not band[0] <= ratio.value <= band[1],
        own=is_own,
        alignment=best,
        alignment_here=here,
        known=known,
    )


def _why_not(row: Source, own: Source, language: str, clusters: Clusters) -> str:
    """Return why there is no ratio; "" where there is one."""
    if language not in own.slopes:
        return NO_SLOPE
    (found,) = clusters.means(own.slopes[language][:, None])
    p = own.p_null.get(language)
    if not found.excludes_zero:
        return INCLUDES_ZERO
    if p is None:
        return NO_NULL
    if p > ALPHA:
        return TOO_FEW_NULLS if len(own.nulls.get(language, ())) < needed_nulls() else WITHIN_NULL
    return "" if language in row.slopes else NOT_RUN


def _ratio(above: Floats, below: Floats, clusters: Clusters) -> Estimate:
    """Return the ratio of two means with its interval; both are drawn together. 1 where they are the same numbers."""
    value = float(np.mean(above) / np.mean(below))

    def resampled() -> Floats:
        sums = clusters.sums(np.column_stack([above, below]))
        ratio: Floats = np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] != 0)
        return ratio

    return clusters.around(value, resampled)


def _name(languages: Sequence[str], columns: Sequence[str]) -> str:
    if ALL in languages:
        return "all languages"
    missing = [language for language in columns if language not in languages]
    if len(languages) > 1 and len(missing) == 1 and len(languages) == len(columns) - 1:
        return f"all but {missing[0]}"
    return "+".join(languages)
