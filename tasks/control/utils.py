"""Documents of control_positivity, read from the files beside this module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from lm_eval_steer.files import sha256_file

DATA = Path(__file__).resolve().parent / "data"


def load_positivity(**_metadata: Any) -> DatasetDict:
    """Return the splits ``train`` and ``test``; lm-eval passes the model's arguments, which change nothing here."""
    return DatasetDict({split: Dataset.from_list(_docs(split)) for split in ("train", "test")})


def _docs(split: str) -> list[dict[str, Any]]:
    path = DATA / f"positivity_{split}.jsonl"
    sha256 = sha256_file(path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        {
            "item_id": row["id"],
            "order": 0,
            "n_orders": 1,
            "topic": row["topic"],
            "question": row["question"],
            "options": [row["positive"], row["negative"]],
            "matching": 0,
            "data_sha256": sha256,
        }
        for row in rows
    ]
