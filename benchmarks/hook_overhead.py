"""What steering costs a forward: one placement, and one in every layer, against the same forward without hooks.

    python benchmarks/hook_overhead.py [--pretrained DIR] [--rounds 60] [--json FILE]

The model is the embedded one unless given. The three variants take turns in one process, in an order that rotates, so
that whatever else the machine does hits all of them; medians of the per-round ratios are reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import ExitStack
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from lm_eval_steer.attachment import attach
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layout import ModelLayout, probe_layout
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.positions import Batch
from lm_eval_steer.scope import RequestView, TokenScope
from lm_eval_steer.vector import Provenance, SteeringVector


def plan_for(layout: ModelLayout, layers: list[int]) -> SteeringPlan:
    """Return a plan that adds a random vector at the output of each of ``layers``, at all positions."""
    generator = torch.Generator().manual_seed(0)
    points = [Hookpoint(Site.BLOCK_OUT, layer) for layer in layers]
    tensors = {point: torch.randn(layout.d_model, generator=generator) for point in points}
    vector = SteeringVector("random", tensors, Provenance("random"))
    return SteeringPlan(tuple(Placement(vector, point, point, scope=TokenScope("all")) for point in points))


def timed(model: torch.nn.Module, layout: ModelLayout, plan: SteeringPlan | None, ids: torch.Tensor) -> float:
    """Return the seconds of one forward; attaching is not in them, resolving the scopes is."""
    rows, width = ids.shape
    with ExitStack() as stack, torch.no_grad():
        handle = stack.enter_context(attach(model, plan, layout=layout)) if plan else None
        requests = [RequestView(row, width // 2, "loglikelihood") for row in ids.tolist()]
        start = time.perf_counter()
        if handle is not None:
            spans = [handle.spans(request) for request in requests]
            stack.enter_context(handle.forward(Batch([width] * rows, [0] * rows, width), spans))
        model(input_ids=ids)
        return time.perf_counter() - start


def measure(model: torch.nn.Module, ids: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Return median seconds and median ratios to the plain forward."""
    layout = probe_layout(model)
    variants = {
        "plain": None,
        "one": plan_for(layout, [layout.n_layers // 2]),
        "all": plan_for(layout, list(range(layout.n_layers))),
        "plain again": None,
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(rounds + 3):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            taken = timed(model, layout, variants[name], ids)
            if number >= 3:  # the first rounds warm up
                seconds[name].append(taken)
    ratios = {
        name: statistics.median(a / b for a, b in zip(values, seconds["plain"], strict=True))
        for name, values in seconds.items()
    }
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = {name: min(values) / min(seconds["plain"]) for name, values in seconds.items()}
    return {
        "layers": layout.n_layers,
        "rounds": rounds,
        "median_seconds": medians,
        "median_ratio": ratios,
        "ratio_of_best": best,
        "ratio_of_medians": {name: value / medians["plain"] for name, value in medians.items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", help="folder or hub name; the embedded model unless given")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.pretrained is None:
        from lm_eval_steer.embedded import ensure

        args.pretrained = str(ensure())
    model = (
        AutoModelForCausalLM.from_pretrained(args.pretrained, dtype=getattr(torch, args.dtype)).to(args.device).eval()
    )
    ids = torch.randint(10, 1000, (args.rows, args.tokens), generator=torch.Generator().manual_seed(0)).to(args.device)
    result = {"rows": args.rows, "tokens": args.tokens, "dtype": args.dtype, **measure(model, ids, args.rounds)}
    for name in ("one", "all", "plain again"):
        print(
            f"{name:>12}: {result['median_ratio'][name]:.4f} times the plain forward (median of {args.rounds} rounds; "
            f"medians {result['ratio_of_medians'][name]:.4f}, best {result['ratio_of_best'][name]:.4f})"
        )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as handle:
            json.dump(result, handle, indent=1)


if __name__ == "__main__":
    main()
