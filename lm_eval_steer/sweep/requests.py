"""Requests of a task, built once and handed out afresh for every cell."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lm_eval_steer.files import content_id


def reuse_requests(task: Any) -> None:
    """Let a task build its requests once; every later evaluation gets fresh copies of them.

    lm-eval builds and tokenises all requests again for each evaluation, which costs more than scoring them. Copies,
    because answers stay on the objects they were given to, and old ones would win.
    """
    build = task.build_all_requests
    kept: list[Any] = []

    def once(**options: Any) -> None:
        if not kept:
            build(**options)
            kept.extend(task._instances)
        task._instances = [_fresh(instance) for instance in kept]

    task.build_all_requests = once


def task_identity(task: Any, samples: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what decides a task's numbers: version, few-shot count, items, and hashes of its data and prompts.

    Args:
        task: the lm-eval task.
        samples: its samples of any cell; documents and prompts are equal in all of them.
    """
    version = (task.get_config("metadata") or {}).get("version")
    docs = sorted({(sample["doc_id"], str(sample["doc_hash"])) for sample in samples})
    prompts = sorted((sample["doc_id"], str(sample["prompt_hash"]), str(sample["target_hash"])) for sample in samples)
    return {
        "version": version if isinstance(version, int | float | str) else None,
        "num_fewshot": task.get_config("num_fewshot") or 0,
        "n": len(docs),
        "data_hash": content_id(docs),
        "prompt_hash": content_id(prompts),
    }


def _fresh(instance: Any) -> Any:
    new = copy.copy(instance)
    new.resps, new.filtered_resps = [], {}
    return new
