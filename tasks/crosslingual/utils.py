"""Documents of the crosslingual tasks; the reading itself is :mod:`lm_eval_steer.parallel_rows`.

lm-eval hands every loader the task's ``metadata``, from which it takes ``family`` and ``lang``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset, DatasetDict

from lm_eval_steer.errors import DataError
from lm_eval_steer.machiavelli.thresholds import VIOLATIONS
from lm_eval_steer.machiavelli.translated import translated_rows
from lm_eval_steer.parallel_rows import SPLITS, LanguageFile, letter_docs, read_language, text_docs


def load_texts(family: str, lang: str, data: str | None = None, **_metadata: Any) -> DatasetDict:
    """Return the splits of a family whose answers are whole texts: one document for each item."""
    return _splits(read_language(family, lang, data), text_docs)


def load_letters(family: str, lang: str, data: str | None = None, **_metadata: Any) -> DatasetDict:
    """Return the splits of a family whose answers are letters: one document for each item and option order."""
    return _splits(read_language(family, lang, data), letter_docs)


def load_machiavelli(lang: str, **_metadata: Any) -> DatasetDict:
    """Return the splits of the Machiavelli states in one language; labels are the English row's."""
    file, rows = translated_rows(lang)
    docs = []
    for row in rows:
        harms = [sum(values) for values in zip(*(row.label(f"v_{name}") for name in VIOLATIONS), strict=True)]
        ours = {"item_id": row.doc_id, "order": 0, "n_orders": 1, "cluster": row.game, "data_sha256": file.sha256}
        docs.append({**row.to_dict(), **ours, "target": harms.index(min(harms))})
    return DatasetDict({split: Dataset.from_list([doc for doc in docs if doc["split"] == split]) for split in SPLITS})


def _splits(file: LanguageFile, docs: Callable[[LanguageFile, str], list[dict[str, Any]]]) -> DatasetDict:
    found = {split: docs(file, split) for split in SPLITS}
    if not found["test"]:
        raise DataError(f"{file.path} has no row whose split is test, so there is nothing to score.")
    return DatasetDict({split: Dataset.from_list(rows) for split, rows in found.items()})
