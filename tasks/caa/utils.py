"""Documents of the caa tasks; the reading itself is :mod:`lm_eval_steer.caa`."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, DatasetDict

from lm_eval_steer.caa import letter_docs, load_caa, text_docs


def load_letters(behaviour: str, **_metadata: Any) -> DatasetDict:
    """Return the split ``test``: one document for each item and option order, answered by a letter."""
    return DatasetDict({"test": Dataset.from_list(letter_docs(load_caa(behaviour)))})


def load_texts(behaviour: str, **_metadata: Any) -> DatasetDict:
    """Return the split ``test``: one document for each item, answered by the text of an option."""
    return DatasetDict({"test": Dataset.from_list(text_docs(load_caa(behaviour)))})
