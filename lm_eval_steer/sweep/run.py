"""run: a sweep from its spec to the ledger."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_steer.layout import probe_layout
from lm_eval_steer.sweep.engine import Progress
from lm_eval_steer.sweep.judge import Judge
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.records import CellRecord
from lm_eval_steer.sweep.spec import SweepSpec
from lm_eval_steer.sweep.tasks import SweepTasks

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


def run_sweep(
    model: Any,
    tokenizer: Any,
    spec: SweepSpec,
    ledger: Ledger,
    *,
    model_id: str,
    revision: str | None = None,
    force: bool = False,
    lm_eval_output: Path | None = None,
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
        lm_eval_output: folder for lm-eval's own result files, a folder a cell; None for none.
        progress: called with (request, cell) pairs scored and their number, for each system prompt anew.
        step: called with cells done, their number, and the next cell in words, before each cell is evaluated.

    Returns:
        The records, and how they were computed.

    Raises:
        SteerError: as plans, tasks and the ledger raise it; cells that are finished by then are kept.
    """
    cells = spec.cells(probe_layout(model).n_layers, tokenizer)
    tasks = SweepTasks.load(spec, tokenizer)
    judge = Judge(model, tokenizer, spec, tasks, ledger, model_id=model_id, revision=revision)
    judge.force, judge.output, judge.progress = force, lm_eval_output, progress
    lm = judge.prepare(cells)
    ledger.write_spec(spec.id, spec.to_dict(), [judge.cell_id(cell) for cell in cells])
    records: list[CellRecord] = []
    blocks = 0
    for prompt, group in itertools.groupby(cells, key=lambda cell: cell.system_prompt):
        members = list(group)
        if prompt != cells[0].system_prompt:
            lm = judge.open(members)  # the answers of the prompt before go with its model
        for number, cell in enumerate(members):
            if step is not None:
                step(len(records), len(cells), cell.words)
            records.append(judge.cell(lm, number, cell))
        blocks += lm.computed_blocks
    ledger.write_index()
    steered = [record for record in records if record.plan["placements"]] or records
    return Swept(tuple(records), blocks, steered[0].path)
