"""Sweep engine (b) against the plain in-process loop (a) and against upstream's ``steered`` once a cell (c).

Run: python benchmarks/sweep.py [--quick] [--json FILE] [--pretrained DIR] [--rounds N] [--upstream N]

Letter items: prompts of 80 to 208 random tokens (seeded), two one-token answers each, which share one forward. Text
items: two answers of 12 tokens. Cells: every layer × 7 multipliers, none of them 0. The plain loop is measured on one
cell a round and multiplied up: its cost does not depend on the cell. Everything is interleaved in one process; ratios
are of medians over rounds. (c) is real processes of lm-eval's own ``steered`` on packaged items, start-up counted on
both sides, multiplied up from a few cells; it runs only with --upstream N.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.loading import load_causal_lm
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.scored_rows import TokenRequest
from lm_eval_steer.sweep.engine import SweepLM
from lm_eval_steer.vector import Provenance, SteeringVector

MULTIPLIERS = (-2.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5)


def items(count: int, answer_len: int, vocabulary: int) -> list[TokenRequest]:
    chance = np.random.default_rng(0)
    requests: list[TokenRequest] = []
    for number in range(count):
        context = chance.integers(1000, vocabulary - 1, int(chance.integers(80, 209))).tolist()
        for option in (0, 1):
            tail = chance.integers(1000, vocabulary - 1, answer_len - 1).tolist()
            requests.append(((str(number), str(option)), context, [*tail, 330 + option]))
    return requests


def plans(model: Any, layers: int, scope: str) -> list[SteeringPlan]:
    generator = torch.Generator().manual_seed(0)
    width = model.config.get_text_config(decoder=True).hidden_size
    points = [Hookpoint(Site.BLOCK_OUT, i) for i in range(layers)]
    vector = SteeringVector(
        "random", {p: torch.randn(width, generator=generator) for p in points}, Provenance("random")
    )
    return [
        SteeringPlan((Placement(vector, p, p, multiplier=m, scope=TokenScope.parse(scope)),))
        for p in points
        for m in MULTIPLIERS
    ]


def seconds(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(
    model: Any, tokenizer: Any, scope: str, requests: list[TokenRequest], rounds: int, batch: int
) -> dict[str, Any]:
    layers = len(SteeredHF(model, tokenizer=tokenizer, plan=SteeringPlan()).steering.layout.blocks)
    cells = plans(model, layers, scope)
    probe = SweepLM(model, tokenizer=tokenizer, plans=[SteeringPlan(), *cells], batch_size=batch)
    probe._loglikelihood_tokens(requests[:6], disable_tqdm=True)
    assert probe.chosen is not None
    loop, engine = [], []
    for number in range(rounds):
        lm = SweepLM(
            model, tokenizer=tokenizer, plans=[SteeringPlan(), *cells], batch_size=batch, path=probe.chosen.path
        )
        engine.append(seconds(lambda lm=lm: lm._loglikelihood_tokens(requests, disable_tqdm=True)))
        plan = cells[(number * 37) % len(cells)]
        plain = SteeredHF(model, tokenizer=tokenizer, plan=plan, batch_size=batch)
        loop.append(len(cells) * seconds(lambda lm=plain: lm._loglikelihood_tokens(requests, disable_tqdm=True)))
        plain.steering.remove()
    ratio = statistics.median(loop) / statistics.median(engine)
    print(
        f"{scope}: {len(cells)} cells, {len(requests) // 2} items: loop {statistics.median(loop):.1f} s, engine "
        f"{statistics.median(engine):.1f} s ({probe.chosen.path}), ratio {ratio:.1f}",
        flush=True,
    )
    return {"ratio": ratio, "loop_s": loop, "engine_s": engine, "path": probe.chosen.path, "cells": len(cells)}


def matmul_peak(dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large square product, median of five."""
    n = 2048
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    torch.mm(a, b)
    return 2 * n**3 / statistics.median([seconds(lambda: torch.mm(a, b)) for _ in range(5)])


def upstream(folder: str, runs: int) -> dict[str, Any]:
    """Whole commands, start-up counted: upstream's class once a cell, our sweep once for all; 20 packaged items."""
    task = ["--tasks", "control_positivity", "--limit", "20"]
    with tempfile.TemporaryDirectory() as place:
        hook = {"layers.12": {"steering_vector": torch.randn(576), "steering_coefficient": 1.0, "action": "add"}}
        torch.save(hook, Path(place) / "steer.pt")
        one = [
            sys.executable,
            "-m",
            "lm_eval",
            "run",
            "--model",
            "steered",
            *task,
            "--device",
            "cpu",
            "--batch_size",
            "8",
        ]
        one += ["--model_args", f"pretrained={folder},steer_path={place}/steer.pt,dtype=float32"]
        ours = [
            sys.executable,
            "-m",
            "lm_eval_steer.cli.main",
            "sweep",
            "--pretrained",
            folder,
            *task,
            "--scope",
            "all",
        ]
        ours += ["--vector", "smollm2-positivity", "--layers", "all", "--multipliers=-2,-1.5,-1,-0.5,0.5,1,1.5"]
        theirs_s, ours_s = [], []
        quiet: dict[str, Any] = {"check": True, "capture_output": True, "env": {**os.environ, "HF_HUB_OFFLINE": "1"}}
        for number in range(runs):
            theirs_s.append(210 * seconds(lambda: subprocess.run(one, **quiet)))
            ours_s.append(seconds(lambda n=number: subprocess.run([*ours, "--ledger", f"{place}/{n}"], **quiet)))
    ratio = statistics.median(theirs_s) / statistics.median(ours_s)
    print(
        f"upstream, a process a cell (multiplied up from {runs}): {statistics.median(theirs_s):.0f} s, one sweep "
        f"{statistics.median(ours_s):.0f} s, ratio {ratio:.1f}; scope all, 20 text items"
    )
    return {"ratio": ratio, "upstream_s": theirs_s, "sweep_s": ours_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", default="embedded")
    parser.add_argument("--quick", action="store_true", help="4 items, one round, float32 only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--upstream", type=int, default=0, metavar="N", help="whole commands to run a side; default: none"
    )
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    rounds, count = (1, 4) if args.quick else (args.rounds, args.items)
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    }
    for name, dtype in (("fp32", "float32"), ("bf16", "bfloat16"))[: 1 if args.quick else 2]:
        model, tokenizer = load_causal_lm(args.pretrained, dtype=dtype)
        result[f"matmul_flops_{name}"] = matmul_peak(model.dtype)
        letters = items(count, 1, len(tokenizer))
        result[f"after_prompt_{name}"] = compare(model, tokenizer, "after_prompt", letters, rounds, args.batch_size)
        if name == "fp32":
            result["all_fp32"] = compare(
                model, tokenizer, "all", letters[: max(4, count // 2)], min(rounds, 2), args.batch_size
            )
            if not args.quick:
                text = items(max(2, count // 2), 12, len(tokenizer))
                result["text_fp32"] = compare(model, tokenizer, "after_prompt", text, min(rounds, 3), args.batch_size)
    if args.upstream:
        from lm_eval_steer.loading import resolve

        result["upstream"] = upstream(resolve(args.pretrained), args.upstream)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
