"""SampleLog: the samples of an evaluation as lm-eval logs them, with all that is equal in every evaluation made once.

lm-eval writes every document as JSON and hashes it, its prompt and its target each time that it logs samples. A sweep
evaluates the same items once a cell.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from lm_eval.utils import handle_non_serializable, hash_string


def item_hashes(task: Any, instances: Sequence[Any], doc_id: int) -> dict[str, Any]:
    """Return what lm-eval's samples say of an item before it is answered.

    Args:
        task: the lm-eval task.
        instances: the item's requests in order.
        doc_id: its number among all documents.

    Returns:
        doc_id, the requests' arguments, and hashes of the document, the prompt and the target.
    """
    first = instances[0]
    doc = json.dumps(first.doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return {
        "doc_id": doc_id,
        "arguments": [instance.args for instance in instances],
        "doc_hash": hash_string(doc),
        "prompt_hash": hash_string(first.arguments[0]),
        "target_hash": hash_string(str(task.doc_to_target(first.doc))),
    }


class SampleLog:
    """Notes down what a task scores, and makes lm-eval's samples of it.

    Args:
        task: the lm-eval task; its ``process_results`` is wrapped.

    Attributes:
        key: what the requests in force were built for; items of one key are the same in every evaluation.
    """

    def __init__(self, task: Any) -> None:
        self.key: Hashable = None
        self._task = task
        self._score = task.process_results
        self._scored: list[tuple[Any, Mapping[str, Any]]] = []
        self._known: dict[Hashable, dict[int, dict[str, Any]]] = {}
        task.process_results = self._noted

    @property
    def complete(self) -> bool:
        """Whether the samples can be told from what is noted; lm-eval itself must log those of "bypass" metrics."""
        return "bypass" not in getattr(self._task, "_metric_fn_list", {})

    def clear(self) -> None:
        """Forget what was scored."""
        self._scored.clear()

    def samples(self, numbers: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the samples of the evaluation that has just been run, in lm-eval's order.

        Args:
            numbers: of the documents that were asked for; None where they were taken from the first on.
        """
        items: dict[int, list[Any]] = {}
        for instance in sorted(self._task.instances, key=lambda each: each.idx):
            items.setdefault(instance.doc_id, []).append(instance)
        order = [(each, n) for each in self._task.instances[0].filtered_resps for n in sorted(items)]
        known = self._known.setdefault(self.key, {})
        made = []
        for (name, n), (doc, metrics) in zip(order, self._scored, strict=True):
            if n not in known:
                target = self._task.doc_to_target(doc)
                fixed = item_hashes(self._task, items[n], numbers[n] if numbers else n)
                known[n] = {**fixed, "target": target, "target_hash": hash_string(str(target))}
            answers = {
                "resps": [instance.resps for instance in items[n]],
                "filtered_resps": [instance.filtered_resps[name] for instance in items[n]],
            }
            made.append({**known[n], "doc": doc, **answers, "filter": name, "metrics": list(metrics), **metrics})
        return made

    def _noted(self, doc: Any, results: Any) -> Any:
        metrics = self._score(doc, results)
        self._scored.append((doc, dict(metrics)))  # a task may go on with its own
        return metrics
