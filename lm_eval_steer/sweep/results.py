"""Results: what a record keeps of lm-eval's results, as metrics and as flat rows of items."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def metrics_of(results: Mapping[str, Any] | None, task: str) -> dict[str, float | None]:
    """Return a task's metrics by name, ``name,filter`` where lm-eval has a filter; None for what is no number."""
    if results is None:
        return {}
    found = {}
    for key, value in results["results"][task].items():
        name, _, scorer = key.partition(",")
        if scorer and not name.endswith("_stderr") and isinstance(value, int | float):
            found[name if scorer == "none" else key] = float(value) if math.isfinite(value) else None
    return found


def item_rows(samples: Mapping[str, list[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return one flat row a (task, item): hashes, answers' log-probabilities, and every metric as a column."""
    names = sorted({name for rows in samples.values() for sample in rows for name in sample["metrics"]})
    result = []
    for task, rows in sorted(samples.items()):
        for sample in sorted(rows, key=lambda s: (s["doc_id"], s["filter"])):
            doc = sample["doc"]
            said = doc if isinstance(doc, Mapping) else {}
            row: dict[str, Any] = {
                "task": task,
                "doc_id": int(sample["doc_id"]),
                "item_id": str(said.get("item_id", sample["doc_id"])),
                "order": int(said.get("order", 0)),
                **_belongs(said),
                **_right_choice(sample),
                "filter": str(sample["filter"]),
                "doc_hash": str(sample["doc_hash"]),
                "prompt_hash": str(sample["prompt_hash"]),
                "responses": str(sample["resps"]),
            }
            for name in names:
                value = sample.get(name)
                row[name] = float(value) if isinstance(value, int | float) and math.isfinite(value) else None
            result.append(row)
    return result


def _belongs(doc: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many orders a doc's item has, and what it is clustered by, where the doc says."""
    found: dict[str, Any] = {}
    if isinstance(doc.get("n_orders"), int):
        found["n_orders"] = int(doc["n_orders"])
    if isinstance(doc.get("cluster"), str):
        found["cluster"] = doc["cluster"]
    return found


def _right_choice(sample: Mapping[str, Any]) -> dict[str, int]:
    """Return the place of the right one of several choices, for tasks that say whether the likeliest is right."""
    target, answers, metrics = sample.get("target"), sample["resps"], set(sample["metrics"])
    if not {"acc", "pool_top1"} & metrics or not _is_place(target) or len(answers) < 2:
        return {}
    if "acc_mutual_info" in metrics:  # its answers are the choices, and the choices again without their context
        return {}
    scored = all(len(each) == 1 and isinstance(each[0], tuple | list) and len(each[0]) == 2 for each in answers)
    return {"target": int(str(target))} if scored and int(str(target)) < len(answers) else {}


def _is_place(target: object) -> bool:
    return not isinstance(target, bool) and str(target).isascii() and str(target).isdigit()
