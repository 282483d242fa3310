"""Evaluation: one plan on lm-eval tasks that are loaded once, scored by lm-eval's own ``evaluate``."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.plan import SteeringPlan


def load_tasks(names: Sequence[str], tokenizer: Any, *, include_defaults: bool = False, seed: int = 1234) -> Any:
    """Return lm-eval's task objects by name, ready for :func:`evaluate_plan`.

    Args:
        names: names of tasks or groups.
        tokenizer: of the model under test; tasks that count answer tokens need it.
        include_defaults: look at lm-eval's own tasks too, which takes seconds.
        seed: of the few-shot draw.

    Raises:
        ConfigError: no such task.
    """
    manager = TaskManager(
        include_path=str(tasks_dir()), include_defaults=include_defaults, metadata={"tokenizer": tokenizer}
    )
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise ConfigError(f"no task {', '.join(unknown)}; packaged are {', '.join(manager.all_tasks)}.")
    loaded = manager.load(list(names))
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=seed)
    return loaded


def evaluate_plan(
    lm: SteeredHF, tasks: Any, *, limit: int | None = None, chat: bool = False, seed: int = 1234
) -> dict[str, Any]:
    """Return lm-eval's results, samples included, of a steered model on loaded tasks.

    Args:
        lm: the model with its plan.
        tasks: from :func:`load_tasks`.
        limit: first items only.
        chat: apply the chat template.
        seed: of the few-shot draw; set again, because drawing moves the generator.

    Raises:
        UntouchedError: a placement steered no token.
    """
    for task in tasks["tasks"].values():
        task.set_fewshot_seed(seed=seed)
    results: dict[str, Any] = evaluate(
        lm=lm, task_dict=tasks, limit=limit, bootstrap_iters=0, log_samples=True, apply_chat_template=chat
    )
    lm.steering.check_touched()
    return results


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
