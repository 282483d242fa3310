"""Sweep engine (b) against the plain in-process loop (a) and against upstream's ``steered`` once a cell (c).

Run: python benchmarks/sweep.py [--quick] [--json FILE] [--pretrained DIR] [--rounds N] [--items N] [--upstream N]

A/B items: prompts of 80 to 208 random tokens, two one-token answers, which share one forward; text items have two
answers of 12 tokens. Cells: every layer × 7 multipliers, none of them 0. The plain loop is measured on one cell a
round, another one each time, and multiplied up: its cost does not depend on the cell. Everything is interleaved in one
process; ratios are of medians. (c) is whole commands, start-up counted on both sides, upstream's multiplied up from a
few cells; upstream steers every position, which is all it can. ``--quick`` takes few items, one round, layers 5, 15
and 25 for all but one-token answers after the prompt, the paths without a self-check, and leaves (c) out.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from work import MULTIPLIERS, items, machine, matmul_peak, plans, ratio, seconds, write_task

from lm_eval_steer.loading import load_causal_lm, resolve
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.scored_rows import TokenRequest
from lm_eval_steer.sweep.choice import choose_path
from lm_eval_steer.sweep.engine import SweepLM

Raw = dict[str, Any]


class Bench:
    """One model, and the measurements on it."""

    def __init__(self, model: Any, tokenizer: Any, rounds: int, batch: int, *, check: bool = True) -> None:
        self.model, self.tokenizer, self.rounds, self.batch, self.check = model, tokenizer, rounds, batch, check
        self.layers = range(int(model.config.num_hidden_layers))
        self.peak = matmul_peak(model.dtype)

    def sweep(self, cells: Sequence[SteeringPlan], **options: Any) -> SweepLM:
        every = [SteeringPlan(), *cells]
        return SweepLM(self.model, tokenizer=self.tokenizer, plans=every, batch_size=self.batch, **options)

    def plain(self, plan: SteeringPlan, requests: list[TokenRequest]) -> float:
        lm = SteeredHF(self.model, tokenizer=self.tokenizer, plan=plan, batch_size=self.batch)
        taken = seconds(lambda: lm._loglikelihood_tokens(requests, disable_tqdm=True))
        lm.steering.remove()
        return taken

    def scored(
        self, scope: str, requests: list[TokenRequest], layers: Sequence[int], multipliers: Sequence[float]
    ) -> Raw:
        """The engine against the loop. The self-check, once a sweep, picks the path and is timed beside."""
        cells = plans(self.model, scope, layers, multipliers)
        loop, engine, share = [], [], []
        default = math.nan, "rows" if scope == "all" else "tree"
        check, path = self.self_check(cells, requests) if self.check else default
        for number in range(self.rounds):
            lm = self.sweep(cells, path=path)
            engine.append(seconds(functools.partial(lm._loglikelihood_tokens, requests, disable_tqdm=True)))
            share.append(self.work(lm, requests, len(cells)) / engine[-1] / self.peak)
            loop.append(len(cells) * self.plain(cells[(number * 37) % len(cells)], requests))
        return {
            **{"ratio": ratio(loop, engine), "loop_s": loop, "engine_s": engine, "path": path, "cells": len(cells)},
            **{
                "self_check_s": check if self.check else None,
                "items": len(requests) // 2,
                "share_of_matmul_peak": round(statistics.median(share), 3),
            },
        }

    def self_check(self, cells: Sequence[SteeringPlan], requests: list[TokenRequest]) -> tuple[float, Any]:
        """Seconds of the check that compares the paths, and what it chose."""
        lm, found = self.sweep(cells), []
        groups = _groups(lm, requests)
        taken = seconds(lambda: found.append(choose_path(lm.scorer, groups, requests, self.model.dtype)))
        return taken, found[0].path

    def work(self, lm: SweepLM, requests: list[TokenRequest], cells: int) -> float:
        """Floating-point operations of the engine's matrix products: blocks and output embedding, no attention."""
        blocks = lm.steering.layout.blocks
        per_token = 2 * sum(p.numel() for p in blocks[0].parameters())
        groups = lm.scorer.items(_groups(lm, requests), "rows")
        trunk = sum(len(item.tokens) for item in groups)
        head = 2 * self.model.get_output_embeddings().weight.numel()
        reads = sum(len(item.reads()) for item in groups)
        return per_token * (lm.token_layers + trunk * len(blocks)) + head * (trunk + reads * cells)

    def one_cell(self, scope: str, requests: list[TokenRequest]) -> Raw:
        """A sweep of one cell and the unsteered one against two plain evaluations."""
        cell = plans(self.model, scope, [12], [1.0])
        two, one = [], []
        for _ in range(self.rounds):
            lm = self.sweep(cell)
            one.append(seconds(functools.partial(lm._loglikelihood_tokens, requests, disable_tqdm=True)))
            two.append(self.plain(SteeringPlan(), requests) + self.plain(cell[0], requests))
        return {"ratio": ratio(one, two), "sweep_s": one, "two_plain_s": two, "items": len(requests) // 2}

    def generation(self, count: int, tokens: int) -> Raw:
        """Texts of ``count`` cells together against one cell's, multiplied up."""
        cells = plans(self.model, "after_prompt", [12], [0.1 * n for n in range(1, count + 1)])
        context = torch.tensor([items(1, 1, len(self.tokenizer))[0][1][:80]])
        call = {"max_length": 80 + tokens, "stop": [], "do_sample": False}
        one, together = [], []
        for number in range(self.rounds):
            lm = self.sweep(cells)
            lm.cell = 1
            together.append(seconds(functools.partial(lm._model_generate, context, **call)))
            plain = SteeredHF(self.model, tokenizer=self.tokenizer, plan=cells[number % count], batch_size=1)
            one.append(count * seconds(functools.partial(plain._model_generate, context, **call)))
            plain.steering.remove()
        return {"ratio": ratio(one, together), "loop_s": one, "engine_s": together, "cells": count, "tokens": tokens}

    def upstream_class(self, requests: list[TokenRequest]) -> Raw:
        """One cell: our class against upstream's, on equal requests and an equal edit."""
        from lm_eval.models.hf_steered import SteeredModel

        (plan,) = plans(self.model, "all", [12], [1.0])
        vector = plan.placements[0].direction()
        with tempfile.TemporaryDirectory() as place:
            hook = {"layers.12": {"steering_vector": vector, "steering_coefficient": 1.0, "action": "add"}}
            torch.save({k: {**v, "bias": None, "head_index": None} for k, v in hook.items()}, f"{place}/s.pt")
            theirs = SteeredModel(
                self.model, f"{place}/s.pt", tokenizer=self.tokenizer, batch_size=self.batch, device="cpu"
            )
        ours_s, theirs_s = [], []
        for _ in range(self.rounds):
            run = functools.partial(theirs._loglikelihood_tokens, requests, disable_tqdm=True)
            theirs_s.append(seconds(run))
            ours_s.append(self.plain(plan, requests))
        return {"ratio": ratio(theirs_s, ours_s), "upstream_s": theirs_s, "ours_s": ours_s}


def _groups(lm: SweepLM, requests: list[TokenRequest]) -> Any:
    from lm_eval_steer.scored_rows import group_requests

    return group_requests(requests, lm.max_length, share=True)


def overhead(model: Any, tokenizer: Any, cells: int) -> Raw:
    """Seconds that lm-eval's own ``evaluate`` takes for a cell whose 200 items are answered already."""
    from lm_eval_steer.evaluation import evaluate_plan, load_tasks
    from lm_eval_steer.sweep.requests import reuse_requests

    with tempfile.TemporaryDirectory() as place:
        name = write_task(Path(place), 200)
        tasks = load_tasks([name], tokenizer, include_path=Path(place))
        for task in tasks["tasks"].values():
            reuse_requests(task)
        every = [SteeringPlan(), *plans(model, "after_prompt", [28], [0.1 * n for n in range(1, cells)])]
        lm = SweepLM(model, tokenizer=tokenizer, plans=every, batch_size=16)
        evaluate_plan(lm, tasks)
        taken = []
        for cell in range(1, cells):
            lm.cell = cell
            taken.append(seconds(lambda: evaluate_plan(lm, tasks)))
    return {"seconds": round(statistics.median(taken), 4), "raw_s": taken, "items": 200}


def memory(folder: str, batch: int) -> Raw:
    """Peak memory above the loaded model, each in a process of its own."""
    found = {}
    for what in ("plain", "engine"):
        command = [sys.executable, __file__, "--peak", what, "--pretrained", folder, "--batch-size", str(batch)]
        found[what] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    return {"ratio": round(found["engine"] / found["plain"], 3), "bytes": found}


def peak(what: str, folder: str, batch: int) -> None:
    """Print by how many bytes the peak grew while a batch was scored: one plain cell, or 210 by the engine."""
    model, tokenizer = load_causal_lm(folder, dtype="float32")
    bench = Bench(model, tokenizer, 1, batch)
    requests = items(batch, 1, len(tokenizer))
    cells = plans(model, "after_prompt", bench.layers)
    with torch.no_grad():
        model(input_ids=torch.tensor([[1]]))  # weights are read from the file when they are first used
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far, loading's may be higher
    before = _kib("VmRSS")
    if what == "plain":
        bench.plain(cells[0], requests)
    else:
        lm = bench.sweep(cells, path="tree")
        lm._loglikelihood_tokens(requests, disable_tqdm=True)
    print((_kib("VmHWM") - before) * 1024)


def _kib(name: str) -> int:
    (line,) = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(f"{name}:")]
    return int(line.split()[1])


def upstream(folder: str, runs: int, count: int) -> Raw:
    """Whole commands: upstream's class once a cell, our sweep of 210 cells once."""
    quiet: dict[str, Any] = {"check": True, "capture_output": True, "env": {**os.environ, "HF_HUB_OFFLINE": "1"}}
    with tempfile.TemporaryDirectory() as place:
        common = ["--tasks", write_task(Path(place), count), "--include_path", place, "--device", "cpu"]
        hook = {"steering_vector": torch.randn(576), "steering_coefficient": 1.0, "action": "add"}
        torch.save({"layers.12": {**hook, "bias": None, "head_index": None}}, f"{place}/s.pt")
        theirs = [sys.executable, "-m", "lm_eval", "run", "--model", "steered", *common, "--batch_size", "16"]
        theirs += ["--model_args", f"pretrained={folder},steer_path={place}/s.pt,dtype=float32"]
        ours = [sys.executable, "-m", "lm_eval_steer.cli.main", "sweep", "--pretrained", folder, "--batch-size", "16"]
        ours += ["--vector", "smollm2-positivity", "--layers", "all", f"--multipliers={_joined(MULTIPLIERS)}"]
        ours += [word.replace("include_path", "include-path") for word in common]
        theirs_s, ours_s = [], []
        for number in range(runs):
            theirs_s.append(210 * seconds(lambda: subprocess.run(theirs, **quiet)))
            ours_s.append(seconds(lambda n=number: subprocess.run([*ours, "--ledger", f"{place}/{n}"], **quiet)))
    return {"ratio": ratio(theirs_s, ours_s), "upstream_s": theirs_s, "sweep_s": ours_s, "items": count, "runs": runs}


def _joined(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def measurements(args: argparse.Namespace) -> list[tuple[str, Callable[[], Raw]]]:
    """Names and what measures them, in the order in which they run."""
    model, tokenizer = load_causal_lm(args.pretrained, dtype="float32")
    make = functools.partial(Bench, rounds=args.rounds, batch=args.batch_size, check=not args.quick)
    bench = make(model, tokenizer)
    ab, text = items(args.items, 1, len(tokenizer)), items(max(2, args.items // 2), 12, len(tokenizer))
    every = bench.layers
    few, some = (ab[:4], every[5::10]) if args.quick else (ab[: max(6, args.items)], every)

    def bf16() -> Raw:
        half, _ = load_causal_lm(args.pretrained, dtype="bfloat16")
        return make(half, tokenizer).scored("after_prompt", ab, every, MULTIPLIERS)

    found: list[tuple[str, Callable[[], Raw]]] = [
        ("after_prompt_fp32", lambda: bench.scored("after_prompt", ab, every, MULTIPLIERS)),
        ("after_prompt_bf16", bf16),
        ("all_fp32", lambda: bench.scored("all", few, some, MULTIPLIERS)),
        ("text_fp32", lambda: bench.scored("after_prompt", text, some, MULTIPLIERS)),
    ]
    if args.quick:
        return found
    many = items(max(48, args.items), 1, len(tokenizer))
    return [
        *found,
        ("text_all_fp32", lambda: bench.scored("all", text, every, MULTIPLIERS)),
        ("small_3x3_fp32", lambda: bench.scored("after_prompt", many, (8, 16, 24), (-1.0, 1.0, 2.0))),
        ("one_cell_after_prompt", lambda: bench.one_cell("after_prompt", many)),
        ("one_cell_all", lambda: bench.one_cell("all", many)),
        ("generation_40", lambda: bench.generation(40, 32)),
        ("single_cell_over_upstream", lambda: bench.upstream_class(many)),
        ("lm_eval_overhead", lambda: overhead(model, tokenizer, 8)),
        ("peak_memory", lambda: memory(resolve(args.pretrained), 8)),
    ]


def _detail(raw: Raw) -> str:
    if "path" not in raw:
        return ""
    share = f"{raw['share_of_matmul_peak']:.0%} of the matrix-product peak"
    return f"  ({raw['cells']} cells, {raw['items']} items, {raw['path']}, {share})"


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", default="embedded")
    parser.add_argument("--quick", action="store_true", help="a smaller run, under a minute")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--upstream", type=int, default=2, metavar="N", help="whole commands to run a side; 0: none")
    parser.add_argument("--only", help="names of measurements, joined by commas")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--peak", choices=("plain", "engine"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        return peak(args.peak, args.pretrained, args.batch_size)
    if args.quick:
        args.rounds, args.items, args.batch_size = 1, 3, 3
    todo = measurements(args)
    if args.upstream and not args.quick:
        todo.append(("upstream", lambda: upstream(resolve(args.pretrained), args.upstream, 50)))
    result: Raw = {"machine": machine(), "quick": args.quick, "raw": {}}
    for name, measure in todo:
        if args.only and name not in args.only.split(","):
            continue
        raw = measure()
        result["raw"][name], result[name] = raw, raw.get("ratio", raw.get("seconds"))
        print(f"{name}: {result[name]}{_detail(raw)}", flush=True)
        if args.json:
            Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
