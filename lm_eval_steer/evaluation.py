"""Evaluation: one plan on lm-eval tasks that are loaded once, scored by lm-eval's own ``evaluate``."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval.api.task
from lm_eval.evaluator import evaluate
from lm_eval.evaluator_utils import get_sample_size
from lm_eval.loggers import EvaluationTracker
from lm_eval.loggers.utils import add_tokenizer_info, get_git_commit_hash
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from lm_eval_steer.errors import ConfigError, WriteError
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.sample_log import SampleLog, item_hashes

Samples = Mapping[str, list[int]]


def load_tasks(
    names: Sequence[str],
    tokenizer: Any,
    *,
    include_defaults: bool | None = False,
    include_path: Path | None = None,
    num_fewshot: int | None = None,
    seed: int = 1234,
) -> Any:
    """Return lm-eval's task objects by name, ready for :func:`evaluate_plan`.

    Args:
        names: names of tasks or groups.
        tokenizer: of the model under test; tasks that count answer tokens need it.
        include_defaults: look at lm-eval's own tasks too, which takes seconds; None where the packaged do not do.
        include_path: folder of the user's own task files; None for none.
        num_fewshot: examples before an item; None for what a task says. A task that says 0 keeps it, as in lm-eval.
        seed: of the few-shot draw.

    Raises:
        ConfigError: no such task.
    """
    places = [str(tasks_dir()), *([] if include_path is None else [str(include_path)])]
    options: dict[str, Any] = {"include_path": places, "metadata": {"tokenizer": tokenizer}}
    manager = TaskManager(**options, include_defaults=bool(include_defaults))
    packaged = manager.all_tasks
    if include_defaults is None and not set(names) <= set(manager.all_tasks):
        manager = TaskManager(**options)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        there = "packaged" if include_path is None else f"packaged, or in {include_path},"
        raise ConfigError(f"no task {', '.join(unknown)}; {there} are {', '.join(packaged)}.")
    loaded = manager.load(list(names))
    for task in loaded["tasks"].values():
        says = task.get_config("num_fewshot")
        if says is None or (num_fewshot is not None and says != 0):
            task.set_config(key="num_fewshot", value=num_fewshot or 0)
        task.set_fewshot_seed(seed=seed)
    return loaded


def packaged_metadata(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what the packaged tasks among ``names`` (groups opened) say of themselves; no data is loaded."""
    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False)
    found: dict[str, dict[str, Any]] = {}
    waiting = [name for name in names if name in manager.all_tasks]
    while waiting:
        name = waiting.pop()
        config = load_yaml(manager.task_index[name].yaml_path, resolve_func=False)
        members = config.get("task")
        if isinstance(members, list):
            waiting += [member for member in members if member in manager.all_tasks]
        else:
            found[name] = config.get("metadata") or {}
    return found


def build_requests(
    lm: SteeredHF,
    tasks: Any,
    *,
    limit: int | None = None,
    chat: bool = False,
    seed: int = 1234,
    system_prompt: str | None = None,
    samples: Samples | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Build the requests of loaded tasks as ``evaluate`` does, run none, and return what its samples say of them.

    Args:
        lm: the model; its chat template and its tokenizer's name count.
        tasks: from :func:`load_tasks`.
        limit: first items only.
        chat: apply the chat template.
        seed: of the few-shot draw.
        system_prompt: as for :func:`evaluate_plan`.
        samples: as for :func:`evaluate_plan`.

    Returns:
        For each task one object an item: doc_id, the requests' arguments, and hashes of the document, the prompt and
        the target.
    """
    found = {}
    for name, task in tasks["tasks"].items():
        task.set_fewshot_seed(seed=seed)
        with _quiet():
            task.build_all_requests(
                limit=get_sample_size(task, limit),
                samples=None if samples is None else samples[name],
                rank=lm.rank,
                world_size=lm.world_size,
                cache_requests=False,
                rewrite_requests_cache=False,
                system_instruction=system_prompt,
                apply_chat_template=chat,
                fewshot_as_multiturn=False,
                chat_template=lm.apply_chat_template if chat else None,
                tokenizer_name=lm.tokenizer_name if chat else "",
            )
        items: dict[int, list[Any]] = {}
        for instance in sorted(task.instances, key=lambda each: each.idx):
            items.setdefault(instance.doc_id, []).append(instance)
        ids = None if samples is None else samples[name]
        found[name] = [item_hashes(task, items[n], n if ids is None else ids[n]) for n in sorted(items)]
    return found


def evaluate_plan(
    lm: SteeredHF,
    tasks: Any,
    *,
    limit: int | None = None,
    chat: bool = False,
    seed: int = 1234,
    system_prompt: str | None = None,
    samples: Samples | None = None,
) -> dict[str, Any]:
    """Return lm-eval's results, samples included, of a steered model on loaded tasks.

    Args:
        lm: the model with its plan.
        tasks: from :func:`load_tasks`.
        limit: first items only.
        chat: apply the chat template.
        seed: of the few-shot draw; set again, because drawing moves the generator.
        system_prompt: lm-eval's system instruction; the name of one for tasks that :func:`reuse_requests` has changed.
        samples: for each task the numbers of its items, in place of ``limit``.

    Raises:
        UntouchedError: a placement steered no token.
    """
    logs = _logs(tasks)
    for task in tasks["tasks"].values():
        task.set_fewshot_seed(seed=seed)
    with _quiet():
        results: dict[str, Any] = evaluate(
            lm=lm,
            task_dict=tasks,
            limit=limit,
            samples=None if samples is None else dict(samples),
            bootstrap_iters=0,
            log_samples=not logs,
            system_instruction=system_prompt,
            apply_chat_template=chat,
        )
    for name, log in logs.items():
        results.setdefault("samples", {})[name] = log.samples((samples or {}).get(name))
    lm.steering.check_touched()
    return results


def _logs(tasks: Any) -> dict[str, SampleLog]:
    """Return the logs of the tasks by name, all of them emptied; none where one of the tasks has none."""
    found = {name: getattr(task, "sample_log", None) for name, task in tasks["tasks"].items()}
    logs = {name: log for name, log in found.items() if isinstance(log, SampleLog)}
    for log in logs.values():
        log.clear()
    return logs if len(logs) == len(found) and all(log.complete for log in logs.values()) else {}


def write_result_files(folder: Path, results: Mapping[str, Any], lm: SteeredHF, config: Mapping[str, Any]) -> None:
    """Write lm-eval's own result files, ``results_*.json`` and one ``samples_*.jsonl`` a task, into a folder.

    The folder is there as a whole or not at all; one that was there is replaced.

    Args:
        folder: where; lm-eval puts a folder named after the model into it.
        results: from :func:`evaluate_plan`; not changed.
        lm: the model.
        config: what ``results["config"]`` says beside lm-eval's facts of the model; ``model_args``, ``limit`` and
            ``system_instruction`` must be in it.

    Raises:
        WriteError: a file is missing or not whole; lm-eval itself only logs that.
    """
    samples: dict[str, Any] = copy.deepcopy(results["samples"])  # the tracker changes what it is given
    whole = {key: value for key, value in results.items() if key != "samples"}
    whole["config"] = {**lm.get_model_info(), **config}
    whole |= {"date": time.time(), "git_hash": get_git_commit_hash()}
    whole |= {"lm_eval_version": version("lm_eval"), "transformers_version": version("transformers")}
    add_tokenizer_info(whole, lm)
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    tracker = EvaluationTracker(output_path=str(hidden))
    tracker.general_config_tracker.log_experiment_args(
        model_source="steered_hf",
        model_args=config["model_args"],
        system_instruction=config["system_instruction"],
        chat_template=lm.chat_template(True) if config.get("chat") else None,
        fewshot_as_multiturn=False,
    )
    try:
        tracker.save_results_aggregated(results=whole, samples=samples)
        for task, rows in samples.items():
            tracker.save_results_samples(task_name=task, samples=rows)
        _check_result_files(hidden, tracker, {task: len(rows) for task, rows in samples.items()})
        _move(hidden, folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def result_files(folder: Path) -> list[Path]:
    """Return the ``results_*.json`` that lm-eval left in a folder."""
    return sorted(folder.glob("*/results_*.json"))


@contextlib.contextmanager
def steered(model: Any, tokenizer: Any, plan: SteeringPlan, *, batch_size: int = 8) -> Iterator[SteeredHF]:
    """Give a :class:`SteeredHF` over a loaded model, and take its hooks out of the model afterwards.

    Its progress bars are off: whoever runs several has one of their own.
    """
    lm = SteeredHF(model, tokenizer=tokenizer, plan=plan, batch_size=batch_size)
    for request in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        setattr(lm, request, functools.partial(getattr(lm, request), disable_tqdm=True))
    try:
        yield lm
    finally:
        lm.steering.remove()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval's bar of "building contexts" off the screen; it has no switch for it."""
    bar = lm_eval.api.task.tqdm
    lm_eval.api.task.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        lm_eval.api.task.tqdm = bar


def _move(hidden: Path, folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(hidden, folder)
    except OSError as error:
        raise WriteError(f"cannot write {folder}: {error.strerror or error}; choose another folder.") from None


def _check_result_files(folder: Path, tracker: EvaluationTracker, wanted: Mapping[str, int]) -> None:
    place = folder / str(tracker.general_config_tracker.model_name_sanitized)
    date = getattr(tracker, "date_id", "?")
    try:
        path = place / f"results_{date}.json"
        json.loads(path.read_text(encoding="utf-8"))
        for task, count in wanted.items():
            path = place / f"samples_{task}_{date}.jsonl"
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
            if len(rows) != count:
                raise ValueError(f"it has {len(rows)} rows of {count}")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise WriteError(f"lm-eval could not write {path}: {why}; free some space, or choose another folder.") from None
