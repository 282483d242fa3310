"""Requests of a task, built once and handed out afresh for every cell."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from lm_eval_steer.files import content_id, sha256_bytes
from lm_eval_steer.sample_log import SampleLog


def reuse_requests(task: Any, system_prompts: Mapping[str, str] | None = None) -> None:
    """Let a task build its requests once a prompt; every later evaluation gets fresh copies of them.

    What makes another prompt: the system prompt, the chat template, the few-shot draw, and which items are asked.

    lm-eval reads all documents and builds and tokenises all requests again for each evaluation, which costs more than
    scoring them. Copies, because answers stay on the objects they were given to, and old ones would win. Whatever else
    a task notes down while it builds (the number of tokens in its answers) comes back with the requests. Its samples
    are logged by a :class:`~lm_eval_steer.sample_log.SampleLog`, ``task.sample_log``.

    Args:
        task: the lm-eval task; changed in place.
        system_prompts: texts by name. lm-eval's ``evaluate(system_instruction=...)`` is then given a name, so that
            each task of one evaluation can have its own text.
    """
    build = task.build_all_requests
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}

    def once(*, system_instruction: str | None = None, **options: Any) -> None:
        draw = None if task.fewshot_rnd is None else hash(task.fewshot_rnd.getstate())
        chat = bool(options.get("apply_chat_template"))
        key = (system_instruction, options.get("limit"), str(options.get("samples")), chat, draw)
        if key not in kept:
            text = None if system_instruction is None else (system_prompts or {})[system_instruction]
            before = dict(vars(task))
            build(system_instruction=text, **options)
            kept[key] = {name: value for name, value in vars(task).items() if before.get(name) is not value}
        vars(task).update(kept[key])
        task.sample_log.key = key
        task._instances = [_fresh(instance) for instance in kept[key]["_instances"]]

    task.sample_log = SampleLog(task)
    task.build_all_requests = once
    task.doc_iterator = _remembered(task.doc_iterator)
    task.dump_config = _remembered_config(task.dump_config)


def _remembered(read: Any) -> Any:
    """Return ``task.doc_iterator`` with a memory; documents come as copies, because a task may change what it gets."""
    kept: dict[str, list[tuple[int, Any]]] = {}

    def documents(**options: Any) -> Iterator[tuple[int, Any]]:
        key = str(sorted(options.items()))
        if key not in kept:
            kept[key] = list(read(**options))
        return ((number, copy.copy(doc)) for number, doc in kept[key])

    return documents


def _remembered_config(dump: Any) -> Any:
    """Return ``task.dump_config`` with a memory: lm-eval copies the whole tokenizer with every dump, half a second."""
    kept: list[dict[str, Any]] = []

    def dump_config() -> dict[str, Any]:
        if not kept:
            kept.append(dump())
        return {key: copy.copy(value) for key, value in kept[0].items()}

    return dump_config


def task_identity(task: Any, samples: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what decides a task's numbers: version, few-shot count, items, and hashes of its data and requests.

    ``prompt_hash`` is over prompts, targets, and all that is asked: every option of an item, and how texts are
    generated. What a task makes of the answers is in none of them; its version stands for that.

    Args:
        task: the lm-eval task.
        samples: its samples of any cell; documents and requests are equal in all cells of a system prompt.
    """
    version = (task.get_config("metadata") or {}).get("version")
    docs = sorted({(sample["doc_id"], str(sample["doc_hash"])) for sample in samples})
    prompts = sorted({(sample["doc_id"], *_asked(sample)) for sample in samples})
    return {
        "version": version if isinstance(version, int | float | str) else None,
        "num_fewshot": task.get_config("num_fewshot") or 0,
        "n": len(docs),
        "data_hash": content_id(docs),
        "prompt_hash": content_id(prompts),
    }


def _asked(sample: Mapping[str, Any]) -> tuple[str, str, str]:
    arguments = sha256_bytes(str(sample["arguments"]).encode("utf-8", "surrogatepass"))
    return str(sample["prompt_hash"]), str(sample["target_hash"]), arguments


def _fresh(instance: Any) -> Any:
    """Return a shallow copy without answers; ``copy.copy`` takes several times as long, for each request of a cell."""
    new = object.__new__(type(instance))
    vars(new).update(vars(instance), resps=[], filtered_resps={})
    return new
