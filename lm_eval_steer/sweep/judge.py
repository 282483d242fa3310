"""Judge: lm-eval's own ``evaluate`` on one cell after the other, each written to the ledger."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from lm_eval_steer import __version__
from lm_eval_steer.errors import ConfigError, DataError, NonFiniteError
from lm_eval_steer.evaluation import Samples, build_requests, evaluate_plan, result_files, write_result_files
from lm_eval_steer.fingerprint import generation_facts
from lm_eval_steer.sweep.cell import Cell
from lm_eval_steer.sweep.dose import dose_counts
from lm_eval_steer.sweep.engine import Progress, SweepLM
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.records import CellRecord, cell_id
from lm_eval_steer.sweep.requests import task_identity
from lm_eval_steer.sweep.results import item_rows, metrics_of
from lm_eval_steer.sweep.shared import Path as SharedPath
from lm_eval_steer.sweep.spec import SweepSpec
from lm_eval_steer.sweep.tasks import SweepTasks
from lm_eval_steer.sweep.versions import numeric_versions
from lm_eval_steer.sweep.work import Arrays


class LedgerBlocks:
    """A ledger's blocks as the engine wants them."""

    def __init__(self, ledger: Ledger) -> None:
        self._store = ledger.blocks

    def get(self, block_id: str) -> Arrays | None:
        """Return a finished block, or None."""
        return self._store.get(block_id)

    def put(self, block_id: str, arrays: Arrays) -> None:
        """Keep a finished block."""
        self._store.put(block_id, arrays)

    def computing(self, block_id: str) -> AbstractContextManager[bool]:
        """Give True where this process has to compute the block."""
        return self._store.computing(block_id)

    def claimed(self, block_id: str) -> bool:
        """Say whether a living process works on the block."""
        return not self._store.has(block_id) and self._store.claims.alive(block_id)


class Judge:
    """One sweep under way: its tasks, its ledger, and what its cells are called.

    Args:
        model: a loaded causal LM.
        tokenizer: its tokenizer.
        spec: what to run.
        tasks: its tasks.
        ledger: where it goes.
        model_id: the model's name for the records.
        revision: its revision for the records.

    Attributes:
        force: replace cells that are there with another result.
        output: folder for lm-eval's own result files.
        progress: called with (request, cell) pairs scored and their number.
        samples: for each task the numbers of its items, in place of the spec's limit.
        path: a path to take without a self-check.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        spec: SweepSpec,
        tasks: SweepTasks,
        ledger: Ledger,
        *,
        model_id: str,
        revision: str | None = None,
    ) -> None:
        self._model, self._tokenizer, self._spec, self._tasks, self._ledger = model, tokenizer, spec, tasks, ledger
        self._facts: dict[str, Any] = {
            "id": model_id,
            "revision": revision,
            "dtype": str(model.dtype).removeprefix("torch."),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
        self._seeds = {"fewshot": spec.seed}
        self._identity: dict[str | None, dict[str, dict[str, Any]]] = {}
        self.force = False
        self.output: Path | None = None
        self.progress: Progress | None = None
        self.samples: Samples | None = None
        self.path: SharedPath | Literal["plain"] | None = None

    def prepare(self, cells: Sequence[Cell]) -> SweepLM:
        """Build the requests of every system prompt and learn from them what the cells' ids are.

        Returns:
            The model for the cells of the first system prompt.

        Raises:
            ConfigError: a system prompt does not reach the model, or two are the same.
            SteerError: a plan does not fit the model.
        """
        prompts = list(dict.fromkeys(cell.system_prompt for cell in cells))
        lm = self.open([cell for cell in cells if cell.system_prompt == prompts[0]])
        for prompt in prompts:
            found = build_requests(
                lm, self._tasks.loaded, **self._options(), system_prompt=prompt, samples=self.samples
            )
            if prompt is not None:
                self._check_reach(prompt)
            self._identity[prompt] = self._identities(found)
        twice = {self.cell_id(cell): cell for cell in cells}
        for cell in cells:
            if twice[self.cell_id(cell)] is not cell:
                raise ConfigError(
                    f"system prompts {cell.system_prompt!r} and {twice[self.cell_id(cell)].system_prompt!r} are the "
                    "same text; name one of them."
                )
        return lm

    def open(self, cells: Sequence[Cell]) -> SweepLM:
        """Return a model that answers for these cells, the first of them unsteered."""
        lm = SweepLM(
            self._model,
            tokenizer=self._tokenizer,
            plans=[cell.plan for cell in cells],
            blocks=LedgerBlocks(self._ledger),
            progress=self.progress,
            path=self.path,
            batch_size=self._spec.batch_size,
            allow_foreign_vector=self._spec.allow_foreign_vector,
        )
        self._facts["fingerprint"] = vars(lm.fingerprint)
        return lm

    def cell_id(self, cell: Cell) -> str:
        """Return the content id of a cell."""
        more: dict[str, Any] = {}
        if cell.system_prompt is not None:
            more["system_prompt"] = dict(self._tasks.texts[cell.system_prompt])
        if any(task.OUTPUT_TYPE == "generate_until" for task in self._tasks.loaded["tasks"].values()):
            more["generation"] = generation_facts(self._model)
        return cell_id(
            cell.plan.id,
            model={"fingerprint": self._facts["fingerprint"], "dtype": self._facts["dtype"]},
            tasks=self._identity[cell.system_prompt],
            limit=self._spec.limit,
            seeds=self._seeds,
            chat=self._spec.chat,
            versions=numeric_versions(),
            **more,
        )

    def cell(self, lm: SweepLM, number: int, cell: Cell) -> CellRecord:
        """Evaluate one cell and write it, or return it from the ledger.

        Args:
            lm: what :meth:`open` returned for the cells of its system prompt.
            number: the cell's number among them.
            cell: the cell.
        """
        key = self.cell_id(cell)
        found = None if self.force else self._ledger.read_cell(key)
        written = self.output is None or bool(result_files(self.output / key))
        if found is not None and (written or found.status != "ok"):
            return found
        began = time.perf_counter()
        lm.cell = number
        results = self._evaluate(lm, cell)
        record = self._record(lm, number, cell, results)
        if results is not None and self.output is not None:
            write_result_files(self.output / key, results, lm, self._config(record))
        samples = [] if results is None else item_rows(results["samples"])
        self._ledger.write_cell(record, samples, timing={"seconds": time.perf_counter() - began}, force=self.force)
        return self._ledger.read_cell(key) or record

    def _options(self) -> dict[str, Any]:
        limit = self._spec.limit if self.samples is None else None
        return {"limit": limit, "chat": self._spec.chat, "seed": self._spec.seed}

    def _evaluate(self, lm: SweepLM, cell: Cell) -> dict[str, Any] | None:
        """Return lm-eval's results of the selected cell; None where its logits are no numbers."""
        try:
            results = evaluate_plan(
                lm, self._tasks.loaded, **self._options(), system_prompt=cell.system_prompt, samples=self.samples
            )
        except NonFiniteError:
            if cell.plan.empty:
                raise
            return None
        lm.check_cell()
        if self._identities(results["samples"]) != self._identity[cell.system_prompt]:
            raise DataError("the prompts of a task differ between cells; a task that draws them anew cannot be swept.")
        return results

    def _identities(self, samples: Mapping[str, list[Any]]) -> dict[str, dict[str, Any]]:
        tasks = self._tasks.loaded["tasks"]
        return {name: task_identity(tasks[name], rows) for name, rows in sorted(samples.items())}

    def _check_reach(self, prompt: str) -> None:
        for name, task in self._tasks.loaded["tasks"].items():
            text = self._tasks.texts[prompt][name].strip()
            if not all(text in str(instance.arguments[0]) for instance in task.instances):
                raise ConfigError(
                    f"system prompt {prompt!r} is in no prompt of task {name}: the chat template drops it, or the task "
                    "scores text without a prompt. Leave out the task, the system prompt, or --chat."
                )

    def _record(self, lm: SweepLM, number: int, cell: Cell, results: Mapping[str, Any] | None) -> CellRecord:
        tasks = {
            name: {
                **identity,
                **_language(self._tasks.loaded["tasks"][name]),
                "limit": self._spec.limit,
                "metrics": metrics_of(results, name),
                "higher_is_better": _directions(self._tasks.loaded["tasks"][name]),
            }
            for name, identity in self._identity[cell.system_prompt].items()
        }
        if cell.system_prompt is not None:
            for name, text in self._tasks.texts[cell.system_prompt].items():
                tasks[name]["system_prompt"] = text
        return CellRecord(
            cell_id=self.cell_id(cell),
            plan=cell.plan.to_dict(),
            labels=cell.labels,
            model=self._facts,
            tasks=tasks,
            status="ok" if results is not None else "non_finite",
            path=lm.path(number),
            counts={
                "scoped_tokens": int(lm.scoped_tokens[number]),
                **dose_counts(cell.plan, (block[number].tolist() for block in lm.moved)),
            },
            versions={**numeric_versions(), "lm_eval_steer": __version__},
            seeds=self._seeds,
        )

    def _config(self, record: CellRecord) -> dict[str, Any]:
        """Return what lm-eval's result files say of how a cell was run."""
        texts = {name: task["system_prompt"] for name, task in record.tasks.items() if "system_prompt" in task}
        return {
            "model": "steered_hf",
            "model_args": {
                "pretrained": self._facts["id"],
                "revision": self._facts["revision"],
                "dtype": self._facts["dtype"],
                "batch_size": self._spec.batch_size,
            },
            "steering": {"version": __version__, "cell": record.cell_id, "plan": record.plan, "labels": record.labels},
            "system_instruction": next(iter(texts.values())) if len(set(texts.values())) == 1 else None,
            "system_instructions": texts,
            "chat": self._spec.chat,
            "limit": self._spec.limit,
            "num_fewshot": self._spec.num_fewshot,
            "batch_size": self._spec.batch_size,
            "device": str(self._model.device),
            "bootstrap_iters": 0,
            "fewshot_seed": self._spec.seed,
        }


def _language(task: Any) -> dict[str, str]:
    """Return of a task in one of several languages which family it is of, its language and its scaffold's."""
    said = task.get_config("metadata")
    known = said if isinstance(said, Mapping) else {}
    if not all(isinstance(known.get(name), str) for name in ("family", "lang")):
        return {}
    return {"family": known["family"], "language": known["lang"], "scaffold": str(known.get("scaffold", "native"))}


def _directions(task: Any) -> dict[str, bool]:
    """Return for each metric whether more of it is better, where the task says."""
    return {str(name): value for name, value in task.higher_is_better().items() if isinstance(value, bool)}
