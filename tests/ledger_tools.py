"""Records and ledgers for tests, made without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_steer.files import content_id
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.records import CellRecord, Label


def record(cell: str = "", *, accuracy: float | None = 0.5, **labels: Label) -> CellRecord:
    """A record; its id is made from its labels unless given."""
    named: dict[str, Label] = {"vector": "v", "layer": 1, "multiplier": 1.0, "control": None, **labels}
    return CellRecord(
        cell_id=cell or content_id(named),
        plan={"id": content_id(named), "placements": []},
        labels=named,
        model={"id": "tiny", "revision": None, "fingerprint": {"config": "c"}, "dtype": "float32"},
        tasks={"t": {"version": 1.0, "n": 2, "limit": None, "metrics": {"acc,none": accuracy}}},
        status="ok" if accuracy is not None else "non_finite",
        path={"kind": "tree", "why": "self-check passed"},
    )


def samples(shift: float = 0.0) -> list[dict[str, Any]]:
    return [
        {"task": "t", "doc_id": i, "logp": [-1.5 + shift, -2.0 * i], "ok": i == 1, "doc": {"q": "é", "n": i}}
        for i in range(2)
    ]


def files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its place."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(folder: Path | str, blocks: int) -> list[str]:
    """Compute what a ledger lacks of ``blocks`` blocks, print each before it is computed, write some cells."""
    ledger, computed = Ledger.open(folder), []
    for number in range(blocks):
        with ledger.blocks.computing(f"b{number}") as mine:
            if mine:
                computed.append(f"b{number}")
                print(computed[-1], flush=True)
                ledger.blocks.put(computed[-1], {"x": np.random.default_rng(number).random(200_000)})
        if number % 4 == 0:
            ledger.write_cell(record(layer=number), samples(number))
    ledger.write_index()
    return computed
