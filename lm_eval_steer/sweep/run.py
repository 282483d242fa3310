"""run: a sweep from its spec to the ledger; lm-eval's own ``evaluate`` judges every cell."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from lm_eval.tasks import TaskManager

from lm_eval_steer import __version__
from lm_eval_steer.errors import DataError, NonFiniteError
from lm_eval_steer.evaluation import evaluate_plan, load_tasks
from lm_eval_steer.layout import probe_layout
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.sweep.cell import Cell
from lm_eval_steer.sweep.engine import Arrays, Progress, SweepLM
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.records import CellRecord, cell_id
from lm_eval_steer.sweep.requests import reuse_requests, task_identity
from lm_eval_steer.sweep.spec import SweepSpec

Step = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Swept:
    """What a sweep did.

    Attributes:
        records: of all its cells, the unsteered one first.
        computed_blocks: blocks that were scored in this run, not found.
        path: how the cells were computed, and why not faster.
    """

    records: tuple[CellRecord, ...]
    computed_blocks: int
    path: Mapping[str, Any]


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


def run_sweep(
    model: Any,
    tokenizer: Any,
    spec: SweepSpec,
    ledger: Ledger,
    *,
    model_id: str,
    revision: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    step: Step | None = None,
) -> Swept:
    """Score every cell of ``spec`` and write it to ``ledger``; finished blocks and cells are kept and not repeated.

    Args:
        model: a loaded causal LM.
        tokenizer: its tokenizer.
        spec: what to run.
        ledger: where it goes.
        model_id: the model's name for the records.
        revision: its revision for the records.
        force: replace cells that are there with another result.
        progress: called with (request, cell) pairs scored and their number.
        step: called with cells done, their number, and the next cell, before each cell is evaluated.

    Returns:
        The records, and how they were computed.

    Raises:
        SteerError: as plans, tasks and the ledger raise it; cells that are finished by then are kept.
    """
    tasks, cells = _tasks(spec, tokenizer), spec.cells(probe_layout(model).n_layers)
    lm = SweepLM(
        model,
        tokenizer=tokenizer,
        plans=[cell.plan for cell in cells],
        blocks=LedgerBlocks(ledger),
        progress=progress,
        batch_size=spec.batch_size,
        allow_foreign_vector=spec.allow_foreign_vector,
    )
    run = _Run(lm, tasks, spec, ledger, model_id, revision, force)
    records: list[CellRecord] = []
    for number, cell in enumerate(cells):
        if step is not None:
            step(number, len(cells), str(cell.labels))
        records.append(run.cell(number, cell))
        if number == 0:
            ledger.write_spec(spec.id, spec.to_dict(), [run.cell_id(each.plan) for each in cells])
    ledger.write_index()
    return Swept(tuple(records), lm.computed_blocks, run.path())


class _Run:
    """One sweep under way."""

    def __init__(
        self, lm: SweepLM, tasks: Any, spec: SweepSpec, ledger: Ledger, model_id: str, revision: str | None, force: bool
    ) -> None:
        self._lm, self._tasks, self._spec, self._ledger, self._force = lm, tasks, spec, ledger, force
        self._model = {
            "id": model_id,
            "revision": revision,
            "fingerprint": vars(lm.fingerprint),
            "dtype": str(lm.model.dtype).removeprefix("torch."),
        }
        self._versions = {name: version(name) for name in ("lm_eval", "torch", "transformers")}
        self._seeds = {"fewshot": spec.seed}
        self._identity: dict[str, dict[str, Any]] = {}

    def path(self) -> dict[str, Any]:
        """Return how cells are computed: the self-check's choice and reason."""
        chosen = self._lm.chosen
        return {"kind": "plain", "why": ""} if chosen is None else {"kind": chosen.path, "why": chosen.reason}

    def cell_id(self, plan: SteeringPlan) -> str:
        """Return the content id of a cell, once the first evaluation has told the tasks' identities."""
        return cell_id(
            plan.id,
            model={"fingerprint": self._model["fingerprint"], "dtype": self._model["dtype"]},
            tasks=self._identity,
            limit=self._spec.limit,
            seeds=self._seeds,
            chat=self._spec.chat,
            versions={**self._versions, "lm_eval_steer": __version__.rsplit(".", 1)[0]},
        )

    def cell(self, number: int, cell: Cell) -> CellRecord:
        """Evaluate one cell and write it, or return it from the ledger."""
        if number and not self._force and (found := self._ledger.read_cell(self.cell_id(cell.plan))) is not None:
            return found
        began = time.perf_counter()
        self._lm.cell = number
        try:
            results = evaluate_plan(
                self._lm, self._tasks, limit=self._spec.limit, chat=self._spec.chat, seed=self._spec.seed
            )
        except NonFiniteError:
            if number == 0:
                raise
            results = None
        if results is not None:
            self._lm.check_cell()
            self._check_identity(results["samples"])
        record = self._record(number, cell, results)
        samples = [] if results is None else _rows(results["samples"])
        self._ledger.write_cell(record, samples, timing={"seconds": time.perf_counter() - began}, force=self._force)
        return self._ledger.read_cell(record.cell_id) or record

    def _check_identity(self, samples: Mapping[str, list[Mapping[str, Any]]]) -> None:
        tasks = self._tasks["tasks"]
        identity = {name: task_identity(tasks[name], rows) for name, rows in sorted(samples.items())}
        if self._identity and identity != self._identity:
            raise DataError("the prompts of a task differ between cells; a task that draws them anew cannot be swept.")
        self._identity = identity

    def _record(self, number: int, cell: Cell, results: Mapping[str, Any] | None) -> CellRecord:
        return CellRecord(
            cell_id=self.cell_id(cell.plan),
            plan=cell.plan.to_dict(),
            labels=cell.labels,
            model=self._model,
            tasks={
                name: {**identity, "limit": self._spec.limit, "metrics": _metrics(results, name)}
                for name, identity in self._identity.items()
            },
            status="ok" if results is not None else "non_finite",
            path=self.path() if number else {"kind": self.path()["kind"], "why": ""},
            counts={"scoped_tokens": int(self._lm.scoped_tokens[number])},
            versions={**self._versions, "lm_eval_steer": __version__},
            seeds=self._seeds,
        )


def _tasks(spec: SweepSpec, tokenizer: Any) -> Any:
    """Return the spec's tasks; lm-eval's own are indexed, which takes seconds, only where ours do not do."""
    ours = set(TaskManager(include_path=str(tasks_dir()), include_defaults=False).all_tasks)
    tasks = load_tasks(spec.tasks, tokenizer, include_defaults=not set(spec.tasks) <= ours, seed=spec.seed)
    for task in tasks["tasks"].values():
        if spec.num_fewshot is not None and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=spec.num_fewshot)
        reuse_requests(task)
    return tasks


def _metrics(results: Mapping[str, Any] | None, task: str) -> dict[str, float | None]:
    if results is None:
        return {}
    found = {}
    for key, value in results["results"][task].items():
        name, _, scorer = key.partition(",")
        if scorer and not name.endswith("_stderr") and isinstance(value, int | float):
            found[name if scorer == "none" else key] = float(value) if math.isfinite(value) else None
    return found


def _rows(samples: Mapping[str, list[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return one flat row a (task, item): hashes, answers' log-probabilities, and every metric as a column."""
    names = sorted({name for rows in samples.values() for sample in rows for name in sample["metrics"]})
    result = []
    for task, rows in sorted(samples.items()):
        for sample in sorted(rows, key=lambda s: (s["doc_id"], s["filter"])):
            doc = sample["doc"]
            item = doc.get("item_id", sample["doc_id"]) if isinstance(doc, Mapping) else sample["doc_id"]
            order = doc.get("order", 0) if isinstance(doc, Mapping) else 0
            row: dict[str, Any] = {
                "task": task,
                "doc_id": int(sample["doc_id"]),
                "item_id": str(item),
                "order": int(order),
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
