"""Documents of french_share, and the share of an answer's words that are French function words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from lm_eval_steer.errors import DataError
from lm_eval_steer.files import sha256_file

DATA = Path(__file__).resolve().parent / "data" / "prompts.jsonl"
# Without those that English has too: a, ai, as, car, comment, me, on, or, par, plus, pour, son, ton …
_LIST = (
    "le la les un une des du au aux ce cet cette ces mon ma mes tes sa ses notre nos votre vos leur leurs je tu il "
    "elle nous vous ils elles moi toi lui eux se te y en et ou où mais donc ni que qui quoi dont quand comme si ne "
    "pas très aussi avec sans sous sur dans chez vers entre pendant depuis jusque parce de à est suis es sommes "
    "êtes sont été était étaient sera avons avez ont avait fait faire peut peuvent doit aujourd'hui"
)
FRENCH = frozenset(_LIST.split())
# A short word that lost its vowel stands before a letter: l'eau, qu'il; English has its letters behind the mark.
_WORD = re.compile(r"(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quelqu)'(?=[^\W\d_])|[^\W\d_]+(?:'[^\W\d_]+)*", re.IGNORECASE)


def load_prompts(**_metadata: Any) -> DatasetDict:
    """Return the split ``test``: one document for each prompt."""
    sha256 = sha256_file(DATA)
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    docs = [
        {"item_id": row["id"], "order": 0, "n_orders": 1, "question": row["question"], "data_sha256": sha256}
        for row in rows
    ]
    return DatasetDict({"test": Dataset.from_list(docs)})


def french_share(text: str) -> tuple[float, int]:
    """Return the share of words that are French function words, and how many words there are.

    A word is a run of letters, with what follows an apostrophe; a short French word before an apostrophe is one of its
    own and counts (``l'``, ``qu'``). Case does not matter, but a word in capitals only (UN) never counts. The share of
    a text without words is 0.
    """
    words = _WORD.findall(text.replace("’", "'"))
    french = sum(word.endswith("'") or (word.lower() in FRENCH and not (word.isupper() and word[1:])) for word in words)
    return (french / len(words) if words else 0.0), len(words)


def process_answer(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return ``french_share`` and ``words`` of one answer.

    Raises:
        DataError: there is not exactly one answer.
    """
    if len(results) != 1 or not isinstance(results[0], str):
        raise DataError(f"item {doc['item_id']}: one text is wanted, not {results!r}.")
    share, words = french_share(results[0])
    return {"french_share": share, "words": float(words)}
