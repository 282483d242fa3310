"""``lm-eval-steer try``: a prompt's continuation, unsteered and steered, side by side."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.trial import Trial

DEFAULT_VECTOR = "smollm2-positivity"
_DESCRIPTION = """\
Show what steering does to one prompt: the greedy continuation without and with the vector, for every layer and
multiplier, and the next tokens whose probability moved most. Without options it steers the embedded model with the
shipped positivity vector.
"""
_EPILOG = """\
examples:
  lm-eval-steer try "How was your day?"
  lm-eval-steer try "How was your day?" --layers 10,20 --multipliers=-2,2
  lm-eval-steer try "Tell me about rain." --pretrained DIR_OR_HUB --vector V.safetensors --layers 12 --scope all
  lm-eval-steer try "How was your day?" --json | jq '.trials[].text'

A negative first multiplier wants the equals sign: --multipliers=-1,1
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``try`` to the command line."""
    parser = add_command(
        subparsers, "try", "show a prompt's continuation unsteered and steered, side by side", _DESCRIPTION, _EPILOG
    )
    parser.add_argument("prompt", metavar="PROMPT", help="what to say to the model")
    parser.add_argument("--pretrained", default="embedded", help="folder or hub name; default: the embedded model")
    parser.add_argument("--vector", default=DEFAULT_VECTOR, help=f"shipped name or file; default: {DEFAULT_VECTOR}")
    parser.add_argument("--layers", default="20", help="12, 10-14 (one at a time), 10,12 or all; default: 20")
    parser.add_argument("--multipliers", default="-1,1", help="-1,1 or FIRST:LAST:STEP; default: -1,1")
    parser.add_argument("--scope", default="after_prompt", help="which tokens; default: after_prompt")
    parser.add_argument("--operation", default="add", help="add, add_norm_preserving, clamp, rotate …; default: add")
    parser.add_argument("--skip-first", action="store_true", help="leave the first token, the attention sink, alone")
    parser.add_argument("--plain", action="store_true", help="give the prompt as it is, without the chat template")
    parser.add_argument("--max-new-tokens", type=int, default=40, metavar="N", help="length of the texts; default: 40")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="next-token changes to show; default: 5")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16; default: float32")
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1, mps; default: the best there is")
    parser.add_argument("--json", action="store_true", help="print a JSON object, alone on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the trials and show them.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the vector, the model or the plan raises it.
    """
    from lm_eval_steer.axes import parse_layers, parse_multipliers
    from lm_eval_steer.layout import probe_layout
    from lm_eval_steer.loading import load_causal_lm
    from lm_eval_steer.model_args import parse_arguments
    from lm_eval_steer.plan import SteeringPlan
    from lm_eval_steer.store import find_vector
    from lm_eval_steer.trial import chat_prompt, run_trial

    if args.max_new_tokens < 1 or args.top < 0:
        raise ConfigError("--max-new-tokens must be at least 1 and --top at least 0.")
    layers = parse_layers(args.layers, find_vector(args.vector).vector.layers)
    multipliers = parse_multipliers(args.multipliers)
    common = {"vector": args.vector, "operation": args.operation, "scope": args.scope, "skip_first": args.skip_first}
    requests = [
        parse_arguments({**common, "layer": layer, "multiplier": multiplier})
        for layer in layers
        for multiplier in multipliers
    ]
    model, tokenizer = load_causal_lm(args.pretrained, dtype=args.dtype, device=args.device)
    layout = probe_layout(model)
    prompt = chat_prompt(tokenizer, args.prompt, chat=False if args.plain else None)
    trials: list[Trial] = []
    for plan in [SteeringPlan(), *(request.resolve(layout.n_layers) for request in requests)]:
        print(f"[{len(trials) + 1}/{len(requests) + 1}] {_title(plan)}", file=sys.stderr)
        trials.append(run_trial(model, tokenizer, layout, plan, prompt, new_tokens=args.max_new_tokens, top=args.top))
    if args.json:
        print(json.dumps({"prompt": prompt, "trials": [_as_json(trial) for trial in trials]}, ensure_ascii=False))
    else:
        _show(trials)
    return EXIT_OK


def _title(plan: Any) -> str:
    if not plan.placements:
        return "unsteered"
    first = plan.placements[0]
    return f"layer {first.source.layer}, λ = {first.multiplier:+g}"


def _as_json(trial: Trial) -> dict[str, Any]:
    return {
        "plan": trial.plan.to_dict(),
        "text": trial.text,
        "kl_nats": trial.kl,
        "next_token_changes": [vars(change) for change in trial.changes],
    }


def _show(trials: list[Trial]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lm_eval_steer.names import printable

    table = Table(title="greedy continuations", show_lines=True)
    for heading in ("plan", "text", "next tokens that moved most"):
        table.add_column(heading, overflow="fold")
    for trial in trials:
        moves = [f"{printable(c.token)!r} {c.before:.3f} → {c.after:.3f}" for c in trial.changes]
        if trial.plan.placements:
            moves.append(f"KL {trial.kl:.3f} nats")
        table.add_row(Text(_title(trial.plan)), Text(printable(trial.text)), Text("\n".join(moves)))
    Console().print(table)
