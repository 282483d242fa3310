"""``lm-eval-steer machiavelli``: build the choice tasks from the benchmark's games, and play whole games."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.machiavelli.game import Game
    from lm_eval_steer.machiavelli.menu import Menu
    from lm_eval_steer.machiavelli.rollout import Scorer

_DESCRIPTION = """\
Choose-your-own-adventure games in the layout of the MACHIAVELLI benchmark.

build   makes rows, pairs and a manifest from your own copy of the benchmark's data, for the tasks machiavelli_*
play    lets a steered model play whole games, the original ones in this package or yours
"""
_EPILOG = """\
examples:
  lm-eval-steer machiavelli build --source demo --out my_choices
  lm-eval-steer machiavelli play --agent random --episodes 1000
"""
_BUILD = """\
Make the data of the tasks machiavelli_* from your own copy of the games. The games' texts belong to their authors and
are not in this package; docs/machiavelli.md says what a copy looks like. The benchmark's 30 test games are the split
test, all others are for extraction; a game is never in both. The folder appears whole or not at all.
"""
_BUILD_EPILOG = """\
sources, --source:
  FOLDER               with game_metadata.json, scenarios/, trees/, annotations_clean/; or with .jsonl or .parquet files
  FILE.zip             the same, packed; --password where it wants one
  FILE.jsonl           the flat set, one decision a line
  hf:OWNER/NAME        a data set on the Hub, of one of these shapes; downloaded to the Hub's cache
  demo                 the original games in this package; not the benchmark

examples:
  lm-eval-steer machiavelli build --source demo --out my_choices
  lm-eval-steer machiavelli build --source game_data.zip --password WORD --max-per-game 200
  MACHIAVELLI_DATA_DIR=my_choices lm-eval-steer run --model_args pretrained=DIR --tasks machiavelli_choices
  lm-eval-steer extract --pretrained DIR --pairs my_choices/ab/harm_train.json --method caa --out harm.safetensors
"""
_PLAY = """\
Let a model play whole games: at every decision it reads the scene and the options, and the letter's log-probability
decides. All games go in lock-step; a decision is scored once. Printed are percentages of the random agent's counts in
the same games: 100 is as much as by chance. For the original games the exact expectation stands beside the episodes.
On the benchmark's own games an episode stops where the game's script would decide the way, because the script's
variables are not in the data; so the numbers are not the paper's.
"""
_PLAY_EPILOG = """\
examples:
  lm-eval-steer machiavelli play --agent random --episodes 1000
  lm-eval-steer machiavelli play --model_args pretrained=DIR,vector=V.safetensors,layer=12,multiplier=-1
  lm-eval-steer machiavelli play --model_args pretrained=DIR --choose greedy --episodes 1 --json
"""
_SHOWN = ("score", "harm", "power", "disutility")


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``machiavelli`` to the command line."""
    parser = add_command(
        subparsers,
        "machiavelli",
        "choices with a price: build the tasks' data, play whole games",
        _DESCRIPTION,
        _EPILOG,
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    _add_build(actions)
    _add_play(actions)


def build(args: argparse.Namespace) -> int:
    """Build the data set, and print what is in it.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as :func:`lm_eval_steer.machiavelli.source.open_source` and
            :func:`lm_eval_steer.machiavelli.dataset.build_dataset` raise it.
    """
    from lm_eval_steer.machiavelli.dataset import build_dataset, data_dir
    from lm_eval_steer.machiavelli.source import open_source

    if args.max_per_game < 1:
        raise ConfigError(f"--max-per-game {args.max_per_game}: at least 1.")
    out = args.out or data_dir()
    source = open_source(args.source, args.password)
    print(f"reading {source.archive.where}", file=sys.stderr, flush=True)
    manifest = build_dataset(source, out, seed=args.seed, max_per_game=args.max_per_game, force=args.force)
    if args.json:
        print(json.dumps({"folder": str(out), **manifest}, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(_text(manifest, out), end="")
    return EXIT_OK


def play(args: argparse.Namespace) -> int:
    """Play, and print what came of it.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the games, the model or its steering raise it.
    """
    from lm_eval_steer.machiavelli.percent import summary
    from lm_eval_steer.machiavelli.rollout import Agent, rollout

    if (args.model_args is None) == (args.agent is None):
        raise ConfigError("give either --model_args of a model or --agent random.")
    if args.agent and args.choose == "greedy":
        raise ConfigError("--agent random has no likeliest letter; leave --choose greedy out.")
    games = _games(args.source, args.password, args.games)
    scorer, facts = _scorer(args)
    agent = Agent(games, scorer, args.choose, args.seed)
    episodes = rollout(games, agent, episodes=args.episodes, seed=args.seed, max_steps=args.max_steps)
    found = summary(games, agent, episodes, seed=args.seed, max_steps=args.max_steps)
    settings = {"choose": args.choose, "seed": args.seed, "max_steps": args.max_steps, "chat": args.apply_chat_template}
    found = {**settings, "model": facts(), **found, "batches": len(agent.batches)}
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(_played(found), end="")
    return EXIT_OK


def _games(source: str, password: str | None, names: str | None) -> dict[str, Game]:
    from lm_eval_steer.machiavelli.source import GameSource, open_source
    from lm_eval_steer.suggest import choice_message

    found = open_source(source, password)
    if not isinstance(found, GameSource):
        raise ConfigError(f"--source {source!r} has rows and no graphs; whole games need the game_data layout.")
    wanted = found.data.names if names is None else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in found.data.names:
            raise ConfigError(choice_message("game", name, found.data.names))
    return {name: found.data.read(name) for name in dict.fromkeys(wanted)}


def _scorer(args: argparse.Namespace) -> tuple[Scorer, Callable[[], Any]]:
    """Return what scores menus, and what says afterwards what did."""
    if args.agent:
        from lm_eval_steer.machiavelli.rollout import uniform_scorer

        return uniform_scorer, lambda: "random"
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.utils import simple_parse_args_string

    from lm_eval_steer.cli.progress import quiet_libraries
    from lm_eval_steer.cli.run import check_repeated_keys, plain
    from lm_eval_steer.machiavelli.prompts import LEAD
    from lm_eval_steer.model import SteeredHF

    check_repeated_keys(["--model_args", args.model_args])
    given = simple_parse_args_string(args.model_args)
    if "pretrained" not in given:
        raise ConfigError(f"--model_args {args.model_args!r} names no model; add pretrained=FOLDER_OR_HUB_NAME.")
    quiet_libraries()
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = SteeredHF(**{"batch_size": args.batch_size, "device": device, **given})
    except OSError as error:
        raise ConfigError(f"cannot load {given['pretrained']!r}: {error}") from error

    def context(menu: Menu) -> str:
        if not args.apply_chat_template:
            return menu.prompt + LEAD
        turns = [{"role": "user", "content": menu.prompt}, {"role": "assistant", "content": LEAD}]
        return str(model.apply_chat_template(turns, add_generation_prompt=False))

    def score(shown: Sequence[Menu]) -> list[list[float]]:
        asked = [(context(menu), letter) for menu in shown for letter in menu.letters]
        requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(asked)]
        answers = iter(model.loglikelihood(requests, disable_tqdm=True))
        return [[float(next(answers)[0]) for _ in menu.letters] for menu in shown]

    return score, lambda: plain(model.get_model_info())


def _add_build(actions: Subparsers) -> None:
    parser = add_command(actions, "build", "make the data of the tasks machiavelli_*", _BUILD, _BUILD_EPILOG)
    add = parser.add_argument
    add("--source", required=True, metavar="SOURCE", help="folder, .zip, .jsonl, .parquet, hf:OWNER/NAME or demo")
    add("--password", metavar="WORD", help="of an encrypted zip")
    add("--out", type=Path, metavar="DIR", help="default: MACHIAVELLI_DATA_DIR, else the user's cache folder")
    add("--max-per-game", type=int, default=200, metavar="N", help="decisions of a game; default: 200, drawn")
    add("--seed", type=int, default=0, help="of the order of options and every draw; default: 0")
    add("--force", action="store_true", help="replace a data set that is there")
    add("--json", action="store_true", help="print the manifest as JSON, alone on stdout")
    parser.set_defaults(run=build)


def _add_play(actions: Subparsers) -> None:
    parser = add_command(actions, "play", "let a steered model play whole games", _PLAY, _PLAY_EPILOG)
    add = parser.add_argument
    add("--model_args", metavar="KEY=VALUE,...", help="of steered_hf, as for lm-eval-steer run")
    add("--agent", choices=["random"], help="in place of a model: every option equally likely")
    add("--source", default="demo", help="folder or zip in the game_data layout; default: the original games")
    add("--password", metavar="WORD", help="of an encrypted zip")
    add("--games", metavar="A,B", help="only these; default: all")
    add("--episodes", type=int, default=20, metavar="N", help="a game; default: 20")
    add("--choose", choices=["sample", "greedy"], default="sample", help="a letter; default: sample")
    add("--max-steps", type=int, default=100, metavar="N", help="choices of an episode; default: 100")
    add("--apply_chat_template", action="store_true", help="put the prompt into the chat template")
    add("--batch_size", default="8", metavar="N", help="default: 8")
    add("--device", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    add("--seed", type=int, default=0, help="of the order of options and the draws; default: 0")
    add("--json", action="store_true", help="print every count of every game as JSON, alone on stdout")
    parser.set_defaults(run=play)


def _played(found: dict[str, Any]) -> str:
    """Return a table: percentages of the random agent by game, a mean over games below."""
    head = ["game", *_SHOWN]
    rows = [[name, *(_percent(game["percent"][count]) for count in _SHOWN)] for name, game in found["games"].items()]
    rows.append(["mean", *(_percent(found["percent"][count]) for count in _SHOWN)])
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["percent of the random agent: played ± standard error (exact expectation)"]
    for row in [head, *rows]:
        lines.append("  ".join([row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))]).rstrip())
    stops = ", ".join(f"{count} {stop}" for stop, count in found["stops"].items() if count)
    lines.append(f"{found['episodes']} episodes, {found['steps']} choices; stopped: {stops}")
    lines.append(f"loops: {found['loops']}; answered at random because unparseable: {found['unparseable']}")
    return "\n".join([*lines, ""])


def _percent(each: dict[str, float | None]) -> str:
    if each["value"] is None:
        return "n/a"
    exact = "" if each["exact"] is None else f" ({each['exact']:.1f})"
    error = "" if each["se"] is None else f" ± {each['se']:.1f}"
    return f"{each['value']:.1f}{error}{exact}"


def _text(manifest: dict[str, Any], out: Path) -> str:
    rows, split = manifest["rows"], manifest["split"]
    lines = [
        f"{rows['train']} decisions of {len(split['train'])} games for extraction, "
        f"{rows['test']} of {len(split['test'])} for tests (games {split['how']})"
    ]
    lines += [f"dropped, {reason}: {count}" for reason, count in manifest["dropped"].items() if count]
    lines += [f"pairs, {kind}: {each['train']} train, {each['test']} test" for kind, each in manifest["pairs"].items()]
    if absent := manifest["source"]["labels_absent"]:
        lines.append(f"not in this source, so n/a: {', '.join(absent)}")
    return "\n".join([*lines, f"wrote {out}", ""])
