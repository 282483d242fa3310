"""``lm-eval-steer convert``: other tools' vectors into vector files, and back into GGUF."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_steer.cli.command import add_command

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.formats.convert import Written

_DESCRIPTION = """\
Turn another tool's steering vectors into a vector file, once. Layers are renumbered to this project's rule (layer i is
the output of block i) and the old rule is recorded. Nothing in a file is ever executed, and nothing is downloaded.
"""

_EPILOG = """\
formats (--from; recognised by name and content when you leave it out):
  caa_pt             CAA's folder of vec_layer_<N>[_<model>].pt, or one of them
  steered_pt         the .pt of lm-eval's --model steered
  steered_csv        the .csv of lm-eval's --model steered; sparse_model is a local SAE folder (SAELens, sparsify)
  gguf               control vectors of llama.cpp and repeng; --layer-base hidden_states for those that llama.cpp's own
                     generator made, if you want them where they were measured
  plain_pt           a tensor or a dictionary layer -> tensor in a .pt; wants --layer-base (and --layer for one tensor)
  plain_safetensors  the same in a .safetensors of another tool

--layer-base, where a file does not say how it counts:
  block_out          N is the output of block N, counted from 0 (a hook on model.layers[N])
  hidden_states      N is hidden_states[N], the output of block N-1

what is written:
  OUT.safetensors    the vector (OUT-1.safetensors, OUT-2.safetensors ... where the source has several)
  OUT.yaml           beside it, where the source says how its vectors are applied (actions, coefficients)

examples:
  lm-eval-steer convert vectors/sycophancy --out sycophancy.safetensors --model-id meta-llama/Llama-2-7b-chat-hf
  lm-eval-steer convert happy.gguf --out happy.safetensors
  lm-eval-steer convert mine.pt --out mine.safetensors --layer-base hidden_states --layer 15
  lm-eval-steer convert steer_config.csv --out dogs.safetensors
  lm-eval-steer run --model_args pretrained=DIR,spec=dogs.yaml --tasks control_positivity
  lm-eval-steer convert happy.safetensors --to gguf --out happy.gguf --layer 1-29

--json prints one object: format, plan (or null) and vectors, each with out, id, name, layers, site, layer_base and
norms; of a lone vector these fields are beside them too.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``convert`` to the command line."""
    parser = add_command(
        subparsers,
        "convert",
        "turn other tools' vectors (CAA, SAE, GGUF, lm-eval steered) into vector files",
        _DESCRIPTION,
        _EPILOG,
    )
    parser.add_argument("source", metavar="IN", help="the file or folder to convert")
    parser.add_argument("--out", required=True, metavar="FILE", help="where the vector goes (.safetensors, or .gguf)")
    parser.add_argument("--from", dest="format", metavar="FORMAT", help="what IN is (default: recognised)")
    parser.add_argument("--to", choices=["safetensors", "gguf"], default="safetensors", help="default: %(default)s")
    parser.add_argument("--layer-base", metavar="BASE", help="block_out or hidden_states: how IN counts layers")
    parser.add_argument(
        "--layer",
        metavar="N",
        help="the layer of a lone tensor, as IN counts; with --to gguf the layers to write (1-29)",
    )
    parser.add_argument("--model-id", metavar="NAME", help="the model the vector was made on, for the record")
    parser.add_argument("--licence", metavar="TEXT", help="the vector's licence, for the record")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("--json", action="store_true", help="print what was written as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and say on stdout what was written.

    Args:
        args: as :func:`add_parser` defines them.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as :func:`lm_eval_steer.formats.convert.convert_file` and ``write_gguf_file`` do.
    """
    from lm_eval_steer.errors import EXIT_OK

    written = _write_gguf(args) if args.to == "gguf" else _write_native(args)
    if args.json:
        print(json.dumps(written.to_dict(), indent=2))
    else:
        _tell(written)
    return EXIT_OK


def _write_native(args: argparse.Namespace) -> Written:
    from lm_eval_steer.formats.base import Told
    from lm_eval_steer.formats.convert import convert_file

    out = Path(args.out)
    told = Told(out.stem, args.layer_base, _one(args.layer), args.model_id, args.licence)
    return convert_file(Path(args.source), out, told, args.format, force=args.force)


def _write_gguf(args: argparse.Namespace) -> Written:
    from lm_eval_steer.errors import ConfigError
    from lm_eval_steer.formats.convert import write_gguf_file

    for option in ("format", "layer_base", "licence"):
        if getattr(args, option) is not None:
            flag = "--from" if option == "format" else "--" + option.replace("_", "-")
            raise ConfigError(f"{flag} has no place with --to gguf, which writes a vector file of this project.")
    return write_gguf_file(Path(args.source), Path(args.out), _layers(args.layer), args.model_id, force=args.force)


def _layers(text: str | None) -> tuple[int, ...] | None:
    from lm_eval_steer.axes import parse_layers

    return None if text is None else parse_layers(text, option="--layer")


def _one(text: str | None) -> int | None:
    from lm_eval_steer.errors import LayerError

    layers = _layers(text)
    if layers is not None and len(layers) > 1:
        raise LayerError(f"--layer {text!r}: a lone tensor has one layer.")
    return None if layers is None else layers[0]


def _tell(written: Written) -> None:
    for item in written.to_dict()["vectors"]:
        site = item["site"] if isinstance(item["site"], str) else ", ".join(item["site"])
        layers = ", ".join(map(str, item["layers"]))
        print(f"{item['out']}: {site}, layers {layers} (source: {item['layer_base']}), id {item['id']}")
    if written.plan is not None:
        print(f"{written.plan}: how the source applies them; use it with --model_args spec={written.plan}")
