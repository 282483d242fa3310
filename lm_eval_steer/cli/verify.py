"""``lm-eval-steer verify``: whether an edit is what it is said to be, seen from outside, and what is wrong if not."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.cli.model_flags import add_model_flags
from lm_eval_steer.errors import EXIT_INPUT, EXIT_OK, ConfigError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.inspection.verification import Verification

DEFAULT_PROMPT = "How was your day?"
_MARKS = {"good": "ok", "wrong": "WRONG", "not run": "-"}
_DESCRIPTION = """\
Apply a vector to one prompt and check from outside what the hooks did: which tokens were edited, at which layer and
site, by how much, in padded batches and while generating, with the cache and without, against an independent trace
(the extra nnsight), and at the layers beside it. With --pairs, also whether the file's tensor is the difference of
these pairs at the layer and site that it names, with its sign.
"""
_EPILOG = """\
examples:
  lm-eval-steer verify smollm2-positivity --pretrained embedded --layer 20
  lm-eval-steer verify smollm2-positivity --pretrained embedded --layer 20 --scope all --skip-first --pairs positivity
  lm-eval-steer verify V.safetensors --pretrained DIR_OR_HUB --prompt "How was your day?" --json

exit codes: 0 everything that was looked at is right; 3 something is wrong, and it is named
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``verify`` to the command line."""
    parser = add_command(
        subparsers, "verify", "check from outside that an edit is what it is said to be", _DESCRIPTION, _EPILOG
    )
    add = parser.add_argument
    add("vector", metavar="VECTOR", help="shipped name or file")
    add_model_flags(parser, required=True)
    add("--layer", help="12, 10-14 (together) or all; default: the vector's only one")
    add("--multiplier", type=float, default=1.0, help="default: 1")
    add("--scope", default="after_prompt", help="which tokens; default: after_prompt")
    add("--operation", default="add", help="default: add")
    add("--skip-first", action="store_true", help="leave the first token, the attention sink, alone")
    add("--prompt", default=DEFAULT_PROMPT, help=f"default: {DEFAULT_PROMPT!r}")
    add("--plain", action="store_true", help="give the prompt as it is, without the chat template")
    add("--pairs", help="contrast pairs of the behaviour: a packaged name, a CAA behaviour, or a file")
    add("--limit", type=int, default=16, help="pairs to measure the effect at the neighbours on; default: 16")
    add("--new-tokens", type=int, default=6, metavar="N", help="tokens to generate; default: 6")
    add("--json", action="store_true", help="print one JSON object, alone on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify and show what was found.

    Args:
        args: as :func:`add_parser` defines them.

    Returns:
        0 where nothing is wrong, else 3.

    Raises:
        SteerError: as the vector, the model, the pairs or the plan raises it.
    """
    from lm_eval_steer.extraction.pair_source import read_source
    from lm_eval_steer.inspection.pair_reading import read_pairs
    from lm_eval_steer.inspection.verify import verify
    from lm_eval_steer.layout import probe_layout
    from lm_eval_steer.loading import load_causal_lm
    from lm_eval_steer.model_args import parse_arguments
    from lm_eval_steer.trial import chat_prompt

    if args.limit < 2 or args.new_tokens < 2:
        raise ConfigError("--limit and --new-tokens must be at least 2.")
    names = ("vector", "layer", "multiplier", "scope", "operation")
    request = parse_arguments({**{name: getattr(args, name) for name in names}, "skip_first": args.skip_first})
    source = None if args.pairs is None else read_source(args.pairs)
    model, tokenizer = load_causal_lm(args.pretrained, dtype=args.dtype, device=args.device, revision=args.revision)
    layout = probe_layout(model)
    plan = request.resolve(layout.n_layers, layout.targets)
    prompt = chat_prompt(tokenizer, args.prompt, chat=False if args.plain else None)
    pairs = None if source is None else read_pairs(source, plan.placements[0].vector, tokenizer)
    found = verify(model, tokenizer, layout, plan, prompt, pairs=pairs, limit=args.limit, new_tokens=args.new_tokens)
    if args.json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        _show(found)
    return EXIT_INPUT if found.wrong else EXIT_OK


def _show(found: Verification) -> None:
    from rich.console import Console
    from rich.text import Text

    from lm_eval_steer.names import printable

    console = Console(highlight=False)
    console.print("prompt, steered tokens in [brackets]:", markup=False)
    line = Text()
    for token in found.tokens:
        text = printable(token.text.replace("\n", "↵"))
        line.append(f"[{text}]" if token.steered else text, style="bold cyan" if token.steered else "")
    console.print(line)
    for dose in found.doses:
        console.print(Text(_dose_line(dose)))
    for fired in found.fired[:8]:
        spots = f"{len(fired.positions)} of {len(found.tokens)} prompt tokens"
        console.print(Text(f"{fired.point}: changed {spots} and {fired.new_tokens} of {fired.forwards} new tokens"))
    if len(found.fired) > 8:
        console.print(Text(f"... and {len(found.fired) - 8} more places (all of them with --json)"))
    _show_effects(console, found)
    for check in found.checks:
        mark, style = _MARKS[check.status], {"good": "green", "wrong": "bold red"}.get(check.status, "")
        console.print(Text.assemble((f"{mark:>5}  ", style), f"{check.name}: {check.says}"))


def _dose_line(dose: Any) -> str:
    states = "" if dose.hidden_states is None else f" = hidden_states[{dose.hidden_states}]"
    size = (
        "" if dose.relative_dose is None else f", stream {dose.stream_norm:.1f}, relative dose {dose.relative_dose:.3f}"
    )
    return f"{dose.placement}{states}; norm {dose.norm:.2f}{size}; layers of the source: {dose.layer_base}"


def _show_effects(console: Any, found: Verification) -> None:
    from rich.table import Table

    if not found.effects:
        return
    table = Table(title="the same tensor at the layers beside it")
    for heading in ("layer", "KL, nats", "cosine with the pairs' difference", "effect, nats/token", "± se"):
        table.add_column(heading, justify="right")
    for each in found.effects:
        values = (each.cosine, each.effect, each.standard_error)
        table.add_row(str(each.layer), f"{each.kl:.4f}", *("-" if v is None else f"{v:.3f}" for v in values))
    console.print(table)
