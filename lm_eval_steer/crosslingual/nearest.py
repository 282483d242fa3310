"""Nearest: which source row a text is most like, to find translations that stand in the wrong row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LEAST_ROWS = 4
_BLOCK = 512


def nearest_rows(
    ids: Sequence[str], sources: Sequence[str], texts: Sequence[str], margin: float
) -> Mapping[str, str | None] | None:
    """Return for each row the other source row that its text is nearer to, None where it is its own.

    Nearness is the cosine of tf-idf weighted character 3- to 5-grams, less the means of the source and of the text, so
    that rows which are like all others win nothing. A text without an n-gram of any source is left out.

    Args:
        ids: of the rows.
        sources: a text for each row.
        texts: its translation in the same script, or its back-translation.
        margin: by which the other row must be nearer.

    Returns:
        id → id or None; None where there are fewer than :data:`LEAST_ROWS` rows.
    """
    if len(ids) < LEAST_ROWS or not any(map(str.strip, texts)):
        return None
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

    vectors = TfidfVectorizer(analyzer="char", ngram_range=(3, 5), sublinear_tf=True).fit([*sources, *texts])
    old, new = vectors.transform(sources), vectors.transform(texts)
    source_means = np.asarray(old @ new.mean(axis=0).T).reshape(-1, 1)
    found: dict[str, str | None] = {}
    for start in range(0, len(ids), _BLOCK):
        cosines = np.asarray((old @ new[start : start + _BLOCK].T).todense())  # [source, text of the block]
        shares = cosines.max(axis=0) > 0
        nearness = cosines - cosines.mean(axis=0, keepdims=True) - source_means
        places = np.arange(nearness.shape[1])
        own = nearness[start + places, places].copy()
        nearness[start + places, places] = -np.inf
        best, far = nearness.argmax(axis=0), nearness.max(axis=0) - own > margin
        found |= {ids[start + at]: ids[best[at]] if far[at] and shares[at] else None for at in places}
    return found
