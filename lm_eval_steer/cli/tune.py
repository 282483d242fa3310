"""``lm-eval-steer tune``: the best layer and multiplier of a vector under a damage budget."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.cli.model_flags import add_model_flags
from lm_eval_steer.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.sweep.ledger import Ledger
    from lm_eval_steer.sweep.records import CellRecord
    from lm_eval_steer.sweep.run import Swept
    from lm_eval_steer.sweep.spec import SweepSpec
    from lm_eval_steer.tune.candidate import Candidate, Measured
    from lm_eval_steer.tune.null import Against
    from lm_eval_steer.tune.run import Sweep, Tuned

_DESCRIPTION = """\
Find the layer and multiplier at which a vector moves a behaviour most, while a capability task loses no more points
than the budget. They are chosen on one half of the items and reported on the other half; both numbers are printed.

Without --trials the whole grid is swept. With it, Optuna chooses that many small sweeps, one layer and size of λ at a
time. All cells go into the ledger: stop the command at any time, and the same command goes on where it stopped.
"""
_EPILOG = """\
examples:
  lm-eval-steer tune --pretrained embedded --vector smollm2-positivity --tasks control_positivity \\
                     --layers 12-24 --multipliers=-2:2:0.5 --scope all --skip-first --limit 60 \\
                     --capability arc_easy --budget 2 --nulls random:20 --ledger my_tuning
  lm-eval-steer tune --pretrained DIR_OR_HUB --vector V.safetensors --tasks control_positivity \\
                     --multipliers=-4:4:0.25 --trials 60 --ledger my_tuning --json | jq -r .model_args
  lm-eval-steer report my_tuning --out tuning.html
"""
_SPEC_FLAGS = {
    "vectors": "vector",
    "layers": "layers",
    "multipliers": "multipliers",
    "scopes": "scope",
    "nulls": "nulls",
    "limit": "limit",
    "num_fewshot": "num_fewshot",
    "batch_size": "batch_size",
    "seed": "seed",
    "skip_first": "skip_first",
    "chat": "chat",
    "allow_foreign_vector": "allow_foreign_vector",
}
_BUDGET = 2.0


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``tune`` to the command line."""
    parser = add_command(
        subparsers, "tune", "find the best layer and multiplier under a damage budget", _DESCRIPTION, _EPILOG
    )
    add = parser.add_argument
    add("--ledger", required=True, metavar="DIR", help="folder for the results; made where it is missing")
    add_model_flags(parser, required=False)
    add("--vector", required=True, help="one shipped name or file")
    add("--tasks", required=True, metavar="TASK", help="the behaviour: one lm-eval task")
    add("--layers", help="all, 12, 10-14 or 4,10-14, one at a time; default: all of the vector's")
    add("--multipliers", default="-2:2:0.5", help="-1,1 or FIRST:LAST:STEP (--multipliers=-1,1); default: -2:2:0.5")
    add("--scope", help="which tokens, joined by semicolons; default: after_prompt")
    add("--skip-first", action="store_true", default=None, help="leave the first token, the attention sink, alone")
    add("--capability", metavar="TASK", help="lm-eval tasks with an accuracy, joined by commas; each has to stay whole")
    add("--budget", type=float, metavar="POINTS", help="how many points each may lose; default: 2")
    add("--trials", type=int, metavar="N", help="small sweeps that Optuna chooses, in place of the whole grid")
    add("--nulls", help="random:20 compares with random directions; as for sweep; default: none")
    add("--limit", type=int, metavar="N", help="items a task; default: all")
    add("--num-fewshot", type=int, metavar="N", help="examples before an item; default: what the task says")
    add("--chat", action="store_true", default=None, help="apply the chat template")
    add("--batch-size", type=int, metavar="N", help="requests in one block; default: 8")
    add("--seed", type=int, help="of the few-shot draw, the null directions and Optuna; default: 1234")
    add("--allow-foreign-vector", action="store_true", default=None, help="accept vectors of other models")
    add("--json", action="store_true", help="print a JSON object, alone on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Sweep, choose, and say what was chosen and what is not proven.

    Returns:
        The exit code 0, also where nothing could be chosen.

    Raises:
        SteerError: as the spec, the model, a task or the ledger raises it; finished cells are kept.
    """
    spec, budget = _spec(args), _budget(args)
    requests = spec.requests()  # every vector is read and every argument checked before the model is loaded
    if args.trials is not None:
        if args.trials < 1:
            raise ConfigError(f"--trials {args.trials}: at least one small sweep.")
        from lm_eval_steer.tune.search import load_optuna

        load_optuna()
    from lm_eval_steer.sweep.ledger import Ledger
    from lm_eval_steer.tune.outcome import choose_winner, make_outcome
    from lm_eval_steer.tune.read import read_candidates
    from lm_eval_steer.tune.text import to_json, to_text

    ledger = Ledger.open(args.ledger)
    tuned = _tune(spec, requests[0].entries[0].stored.vector.layers, ledger, budget, args)
    for problem in ledger.problems:
        _say(f"set aside: {problem.what}: {problem.reason}")
    measured = read_candidates(ledger, tuned.records, args.tasks)
    winner = choose_winner(measured, budget)
    outcome = make_outcome(measured, budget, _against(ledger, tuned.records, measured, winner))
    line = None if winner is None else _line(winner, spec, args)
    name = str(next((c.labels["vector"] for c in measured.candidates), args.vector))
    _say(f"{len(tuned.records)} cells in {args.ledger}/; sweeps: {tuned.sweeps}; new blocks: {tuned.new_blocks}")
    if args.json:
        more = {"sweeps": tuned.sweeps, "new_blocks": tuned.new_blocks}
        print(json.dumps({**to_json(outcome, name, line), **more}, ensure_ascii=False, allow_nan=False))
    else:
        print(to_text(outcome, name, line), end="")
    return EXIT_OK


def _spec(args: argparse.Namespace) -> SweepSpec:
    from lm_eval_steer.sweep.spec import SweepSpec

    if "," in args.tasks or "," in args.vector:
        raise ConfigError("tune takes one vector and one task; lm-eval-steer sweep and compare take several.")
    capability = [name.strip() for name in (args.capability or "").split(",") if name.strip()]
    given = {key: getattr(args, flag) for key, flag in _SPEC_FLAGS.items() if getattr(args, flag) is not None}
    spec = SweepSpec.from_dict({**given, "tasks": [args.tasks, *capability]})
    if not any(spec.multipliers):
        raise ConfigError("--multipliers: 0 alone steers nothing; name another.")
    return spec


def _budget(args: argparse.Namespace) -> float:
    if args.budget is None:
        return _BUDGET
    if args.capability is None:
        raise ConfigError("--budget is about a capability task; name one with --capability.")
    if not 0 <= args.budget <= 100:
        raise ConfigError(f"--budget {args.budget}: points of a score, from 0 to 100.")
    return float(args.budget)


def _tune(spec: SweepSpec, available: Any, ledger: Ledger, budget: float, args: argparse.Namespace) -> Tuned:
    """Load the model and run the grid or the search."""
    from lm_eval_steer.axes import parse_layers
    from lm_eval_steer.cli.progress import quiet_libraries
    from lm_eval_steer.loading import load_causal_lm, model_label
    from lm_eval_steer.sweep.tasks import check_system_prompts
    from lm_eval_steer.tune.run import run_grid, run_trials
    from lm_eval_steer.tune.space import Space

    check_system_prompts(spec)
    _say(f"loading {model_label(args.pretrained)}")
    quiet_libraries()
    loaded = load_causal_lm(args.pretrained, dtype=args.dtype, device=args.device, revision=args.revision)
    sweep = _sweeper(*loaded, ledger, args)
    space = Space(spec.scopes, parse_layers(spec.layers, available), spec.multipliers)
    if args.trials is None:
        return run_grid(spec, sweep)
    if args.trials >= len(space.asks):
        _say(f"--trials {args.trials}: there are {len(space.asks)} small sweeps in all, so the whole grid is run")
        return run_grid(spec, sweep)
    return run_trials(spec, space, args.trials, ledger, sweep, task=args.tasks, budget=budget)


def _sweeper(model: Any, tokenizer: Any, ledger: Ledger, args: argparse.Namespace) -> Sweep:
    from lm_eval_steer.cli.progress import sweep_progress
    from lm_eval_steer.loading import model_label
    from lm_eval_steer.sweep.run import run_sweep

    names = {"model_id": model_label(args.pretrained), "revision": args.revision}

    def sweep(spec: SweepSpec, words: str) -> Swept:
        _say(f"sweeping {words}")
        with sweep_progress() as (scored, step):
            return run_sweep(model, tokenizer, spec, ledger, progress=scored, step=step, **names)

    return sweep


def _against(ledger: Ledger, records: tuple[CellRecord, ...], measured: Measured, winner: Candidate | None) -> Against:
    """Return the winner's test against random directions; only their slopes are asked for."""
    from lm_eval_steer.stats.compute import compute_curves
    from lm_eval_steer.tune.null import Against, against_random
    from lm_eval_steer.tune.read import is_steered

    cells = [r.cell_id for r in records if is_steered(r) or r.labels.get("control") == "random"]
    if winner is None or len(cells) == len(measured.candidates) + len(measured.unusable):
        return Against()
    curves = compute_curves(ledger, records, cells, draws=100, seed=0)
    own = [curve for curve in curves if curve.task == measured.task]
    return against_random(own, winner.labels.get("layer"), winner.labels.get("scope"))


def _line(winner: Candidate, spec: SweepSpec, args: argparse.Namespace) -> str:
    from lm_eval_steer.loading import resolve
    from lm_eval_steer.tune.model_args import model_args_line

    arguments = {
        "pretrained": resolve(args.pretrained),
        "revision": args.revision,
        "dtype": args.dtype,
        "vector": args.vector,
        "layer": winner.labels.get("layer"),
        "multiplier": winner.multiplier,
        "scope": winner.labels.get("scope"),
        "skip_first": spec.skip_first or None,
        "allow_foreign_vector": spec.allow_foreign_vector or None,
    }
    fewshot = [] if spec.num_fewshot is None else [f"--num_fewshot {spec.num_fewshot}"]
    return " ".join([model_args_line(arguments), *fewshot, *(["--apply_chat_template"] if spec.chat else [])])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
