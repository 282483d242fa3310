"""``lm-eval-steer sweep``: many steering settings on the same tasks, in one run, into a ledger."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.cli.model_flags import add_model_flags
from lm_eval_steer.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.sweep.ledger import Ledger
    from lm_eval_steer.sweep.run import Swept
    from lm_eval_steer.sweep.spec import SweepSpec

_DESCRIPTION = """\
Run every combination of vectors, layers, multipliers, scopes and operations on lm-eval tasks. What the cells share is
computed once: the prompt before the first steered token, and the layers below the steered one. Each cell's numbers
are aggregated by lm-eval itself. The unsteered cell is always there.

The ledger is a folder. Stop the command at any time: the same command goes on where it stopped, and ends with the
same bytes. Several processes may share one ledger.
"""
_EPILOG = """\
examples:
  lm-eval-steer sweep --pretrained embedded --vector smollm2-positivity --layers 10,20 --multipliers=-1:1:0.5 \\
                      --scope all --skip-first --tasks control_positivity --limit 20 --ledger my_sweep
  lm-eval-steer sweep --pretrained embedded --vector smollm2-positivity --layers all --multipliers=-1,1 \\
                      --nulls random:20,letter,prompt --tasks control_positivity --ledger my_sweep --dry-run
  lm-eval-steer sweep --pretrained DIR_OR_HUB --spec sweep.yaml --ledger my_sweep --json > cells.json
  lm-eval-steer status my_sweep

nulls, --nulls:
  random:K             K random directions of the vector's norm, made here
  shuffled[:K] letter  from the files that extract --controls wrote beside the vector
  prompt               the unsteered model under each task's positive and negative system prompt
  other                the other vectors of the sweep; two or more, no cells of their own

a spec file holds the same words: vectors, layers, multipliers, scopes, operations, normalize, nulls, tasks, limit …
"""
_SPEC_FLAGS = {
    "vectors": "vector",
    "layers": "layers",
    "multipliers": "multipliers",
    "scopes": "scope",
    "operations": "operation",
    "normalize": "normalize",
    "site": "site",
    "orders": "orders",
    "nulls": "nulls",
    "system_prompts": "system_prompts",
    "tasks": "tasks",
    "include_path": "include_path",
    "limit": "limit",
    "num_fewshot": "num_fewshot",
    "batch_size": "batch_size",
    "seed": "seed",
}
_SPEC_SWITCHES = {"skip_first": "skip_first", "chat": "chat", "allow_foreign_vector": "allow_foreign_vector"}


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``sweep`` to the command line."""
    parser = add_command(
        subparsers, "sweep", "run layers × multipliers × vectors on lm-eval tasks in one go", _DESCRIPTION, _EPILOG
    )
    add = parser.add_argument
    add("--ledger", required=True, metavar="DIR", help="folder for the results; made where it is missing")
    add_model_flags(parser, required=False)
    add("--spec", metavar="FILE", help="YAML or JSON file, in place of the flags below")
    add("--vector", help="shipped names or files, joined by commas")
    add("--layers", help="all, 12, 10-14 or 4,10-14, one at a time; default: all of the vector's")
    add("--multipliers", help="-1,1 or FIRST:LAST:STEP (write --multipliers=-1,1); default: 1")
    add("--scope", help="which tokens, joined by semicolons; default: after_prompt")
    add("--operation", help="joined by commas; default: add")
    add("--normalize", help="none, unit, dose, set, joined by commas; default: none")
    add("--site", help="where in the block; default: the vector's own")
    add("--orders", help="other orders of the blocks, joined by commas: skip:15,repeat:5-8,first:27; no vector needed")
    add("--nulls", help="random:20,shuffled,letter,prompt,other (see below); default: none")
    add("--system-prompts", metavar="NAMES", help="pos, neg, none, joined by commas; default: none")
    add("--skip-first", action="store_true", default=None, help="leave the first token, the attention sink, alone")
    add("--tasks", help="lm-eval tasks, joined by commas")
    add("--include-path", metavar="DIR", help="folder with task files of your own")
    add("--limit", type=int, metavar="N", help="items a task; default: all")
    add("--num-fewshot", type=int, metavar="N", help="examples before an item; default: what the task says")
    add("--chat", action="store_true", default=None, help="apply the chat template")
    add("--batch-size", type=int, metavar="N", help="requests in one block; default: 8")
    add("--seed", type=int, help="of the few-shot draw and of the null directions; default: 1234")
    add("--allow-foreign-vector", action="store_true", default=None, help="accept vectors of other models")
    add("--force", action="store_true", help="replace cells that are there with another result")
    add("--lm-eval-output", metavar="DIR", help="write lm-eval's own result files too, a folder a cell")
    add("--dry-run", action="store_true", help="say which cells there would be, and how long and large, from a probe")
    add("--json", action="store_true", help="print the cells' records as JSON, alone on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sweep, or say what it would run and what that would cost.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the spec, the model, a task or the ledger raises it; finished cells are kept.
    """
    spec = _spec(args)
    spec.requests()  # every vector is read and every argument checked before the model is loaded
    from lm_eval_steer.cli.progress import quiet_libraries
    from lm_eval_steer.files import check_writable
    from lm_eval_steer.loading import load_causal_lm, model_label
    from lm_eval_steer.sweep.ledger import Ledger
    from lm_eval_steer.sweep.tasks import check_system_prompts

    check_system_prompts(spec)
    ledger = None if args.dry_run else Ledger.open(args.ledger)
    if args.lm_eval_output is not None and ledger is not None:
        check_writable(args.lm_eval_output)
    _say(f"loading {model_label(args.pretrained)}")
    quiet_libraries()
    model, tokenizer = load_causal_lm(args.pretrained, dtype=args.dtype, device=args.device, revision=args.revision)
    if ledger is None:
        _dry_run(model, tokenizer, spec, args)
    else:
        _sweep(model, tokenizer, spec, ledger, args)
    return EXIT_OK


def _sweep(model: Any, tokenizer: Any, spec: SweepSpec, ledger: Ledger, args: argparse.Namespace) -> None:
    from lm_eval_steer.cli.progress import sweep_progress
    from lm_eval_steer.loading import model_label
    from lm_eval_steer.sweep.run import run_sweep

    with sweep_progress() as (scored, step):
        swept = run_sweep(
            model,
            tokenizer,
            spec,
            ledger,
            model_id=model_label(args.pretrained),
            revision=args.revision,
            force=args.force,
            lm_eval_output=None if args.lm_eval_output is None else Path(args.lm_eval_output),
            progress=scored,
            step=step,
        )
    for problem in ledger.problems:
        _say(f"set aside: {problem.what}: {problem.reason}")
    _show(swept, args)


def _dry_run(model: Any, tokenizer: Any, spec: SweepSpec, args: argparse.Namespace) -> None:
    from lm_eval_steer.layout import probe_layout
    from lm_eval_steer.sweep.estimate import estimate_sweep

    cells = spec.cells(probe_layout(model).n_layers, tokenizer)
    if not args.json:
        for cell in cells:
            print(" ".join(f"{key}={value}" for key, value in cell.labels.items() if value is not None))
    _say("measuring a few cells on a few items")
    found = estimate_sweep(model, tokenizer, spec, cells)
    if args.json:
        plans = [{"plan": cell.plan.to_dict(), "labels": dict(cell.labels)} for cell in cells]
        print(json.dumps({"cells": plans, "estimate": vars(found)}, allow_nan=False))
    else:
        print(found.text())


def _spec(args: argparse.Namespace) -> SweepSpec:
    from lm_eval_steer.sweep.spec import SweepSpec

    names = {**_SPEC_FLAGS, **_SPEC_SWITCHES}
    given = {key: getattr(args, flag) for key, flag in names.items() if getattr(args, flag) is not None}
    if args.spec is None:
        return SweepSpec.from_dict(given)
    if given:
        flags = ", ".join("--" + names[key].replace("_", "-") for key in given)
        raise ConfigError(f"--spec and {flags} are both given; put everything into the spec.")
    return SweepSpec.from_file(args.spec)


def _show(swept: Swept, args: argparse.Namespace) -> None:
    why = f" ({swept.path['why']})" if swept.path["why"] else ""
    path = f"path: {swept.path['kind']}{why}; new blocks: {swept.computed_blocks}"
    _say(f"{len(swept.records)} cells in {args.ledger}/; {path}")
    if args.json:
        print(json.dumps([record.to_dict() for record in swept.records], ensure_ascii=False, allow_nan=False))
        return
    from lm_eval_steer.cli.cells import print_cells

    print_cells(swept.records)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
