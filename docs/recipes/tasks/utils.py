"""Documents of beliefs: common misbeliefs, each with a true and a false answer; a stand-in for TruthfulQA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from lm_eval_steer.files import sha256_file

FILE = Path(__file__).resolve().parents[1] / "data" / "beliefs_test.jsonl"


def load_beliefs(**_metadata: Any) -> DatasetDict:
    """Return the split ``test``; the true answer is the matching one."""
    sha256 = sha256_file(FILE)
    docs = [
        {
            "item_id": row["id"],
            "order": 0,
            "n_orders": 1,
            "question": row["question"],
            "options": [row["positive"], row["negative"]],
            "matching": 0,
            "data_sha256": sha256,
        }
        for row in map(json.loads, FILE.read_text(encoding="utf-8").splitlines())
    ]
    return DatasetDict({"test": Dataset.from_list(docs)})
