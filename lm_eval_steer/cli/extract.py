"""``lm-eval-steer extract``: contrast pairs in, a steering vector with its controls and statistics out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.axes import parse_layers
from lm_eval_steer.cli.command import add_command
from lm_eval_steer.cli.extract_files import (
    control_path,
    extract_progress,
    planned_files,
    say,
    unpack_embedded,
    write_files,
)
from lm_eval_steer.cli.extract_iti import METHOD as ITI
from lm_eval_steer.cli.extract_iti import run_iti
from lm_eval_steer.cli.extract_prompts import METHODS, run_prompts
from lm_eval_steer.cli.extract_sae import METHOD as SAE
from lm_eval_steer.cli.extract_sae import run_sae
from lm_eval_steer.cli.model_flags import add_model_flags
from lm_eval_steer.errors import EXIT_OK, ConfigError
from lm_eval_steer.files import sha256_file

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.extraction.extract import Extraction, Options

__all__ = ["add_parser", "control_path", "run", "summary"]

_DESCRIPTION = """\
Extract a steering vector from contrast pairs: prompts with one answer that shows a behaviour and one that does not.

By default the vector is the mean difference of the residual stream between the two answers, at every layer in one
pass; --method names other estimators, and several of them share that pass. Beside a vector go, for each layer: its
norm, its dose (norm over the residual stream's), its split-half cosine (is it stable?), and its cosines to the "say A"
and the "say Yes" direction (is it only a letter, or only a yes?).
"""

_EPILOG = """\
examples:
  lm-eval-steer extract --pretrained embedded --pairs positivity --out positivity.safetensors
  lm-eval-steer extract --pretrained embedded --pairs positivity --method mean_text,pca,logistic \\
                        --capture positivity.capture --out positivity.safetensors
  lm-eval-steer extract --pretrained DIR_OR_HUB --pairs refusal --method caa --format chat --layers 10-14 \\
                        --controls random:20,shuffled,letter --out refusal.safetensors
  lm-eval-steer extract --pretrained embedded --pairs positivity --method iti --heads 48 --out iti.safetensors
  lm-eval-steer extract --pretrained embedded --method actadd --prompts " weddings" "" --layers 18 \\
                        --out weddings.safetensors
  lm-eval-steer extract --pretrained DIR --method unpaired --prompt-sets harmful.txt harmless.txt --format chat \\
                        --select refusal --out refusal_direction.safetensors
  lm-eval-steer extract --pretrained DIR --method sae --sae layers.12 --features 12,77 --out features.safetensors
  lm_eval --model steered_hf --tasks control_positivity \\
          --model_args pretrained=$(lm-eval-steer embedded-model),vector=positivity.safetensors,layer=20

pairs, --pairs:
  positivity           packaged
  xl_positivity_fr     train items of a crosslingual task; xl_positivity: of all its languages; _native: native words
  refusal, ...         a CAA behaviour, from the folder CAA_DATA_DIR or the pinned upstream file
  FILE.jsonl           {"question" (gets "Answer:") or "prompt" (as it stands), "positive", "negative"} a line
  FILE.json            a list of such rows, or of CAA's {"question", "answer_matching_behavior", ...}

methods, --method (one, or several with commas; what each computes: docs/extraction.md):
  mean_text            no options shown; mean over the tokens of the whole answer
  caa                  options shown, answered by a letter, read at the letter; every pair enters in both orders
  mean_difference      the mean difference, read where --read says
  pca                  first principal component of pair-centred activations
  lat                  first component of randomly signed differences (Representation Engineering)
  logistic             weights of a logistic probe, brought back to activation space
  linear_discriminant  Fisher's direction with a shrunk covariance
  ccs                  Contrast-Consistent Search: found without labels; they only set the sign
The last five estimate a direction only, which gets the norm of the mean difference, so that one multiplier means the
same under every method. --read says what the last six read: answer (every token of the answer, the default), last (its
last token) or letter (options shown, read at the letter).

  iti                  inference-time intervention: the --heads K attention heads whose probes read the last token of
                       held-out answers best, each with its own direction; for operation=head_shift; no --controls
  actadd               one prompt minus another, a row for each position; --prompts, no pairs
  unpaired             mean of one set of prompts minus mean of another, read behind the instruction; --prompt-sets, no
                       pairs. --select refusal holds a quarter of the prompts out and picks layer and token: the lowest
                       refusal score with the direction ablated, at a KL of at most 0.1, below 0.8 of the depth
  sae                  the sum of decoder rows of a sparse autoencoder in a local folder (SAELens, sparsify), --sae and
                       --features; its layer is what the folder says, or --layers N

--capture FILE keeps the activations. Where FILE is there it is read, and no pair is run again whatever the method;
where it is not, it is written. A FILE of another model, other pairs or other tokens is refused.

files:
  FILE.safetensors and, for each control, FILE.random-0.safetensors, FILE.letter.safetensors ... in the same folder;
  with several methods FILE.pca.safetensors, FILE.pca.letter.safetensors, FILE.lat.safetensors ...
"""

# Methods that read something else than pairs of answers in the shared pass, and the options that are theirs.
_ALONE = {**dict.fromkeys(METHODS, run_prompts), ITI: run_iti, SAE: run_sae}
_OWNERS = {
    **dict.fromkeys(("prompts", "prompt_sets", "select", "position"), METHODS),
    "heads": (ITI,),
    **dict.fromkeys(("sae", "features"), (SAE,)),
}


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``extract`` to the command line."""
    parser = add_command(subparsers, "extract", "make a steering vector from contrast pairs", _DESCRIPTION, _EPILOG)
    add = parser.add_argument
    add_model_flags(parser, required=True)
    add("--pairs", help="a packaged name, a CAA behaviour, or a file")
    add("--prompts", nargs=2, metavar=("PLUS", "MINUS"), help="of --method actadd: two prompts")
    add("--prompt-sets", nargs=2, metavar=("FILE", "FILE"), help="of --method unpaired: two files of prompts")
    add("--out", required=True, type=Path, help="the vector file to write (.safetensors)")
    add("--method", "--methods", default="mean_text", metavar="M,M", help="see below (default: %(default)s)")
    add("--read", metavar="WHERE", help="answer, last or letter: what estimators read (default: answer)")
    add("--layers", default="all", help="all, 12, 10-14 or 10,12 (default: %(default)s)")
    add("--site", help="block_out, block_in, attn_out, mlp_out, head_z (default: block_out; block_in for actadd)")
    add("--heads", type=int, metavar="K", help="of iti: how many heads (default: 48, or all where there are fewer)")
    add("--position", type=int, metavar="I", help="of unpaired: which token, counted from a prompt's end (default: -1)")
    add("--select", metavar="WHAT", help="of unpaired: refusal, which picks layer and token")
    add("--sae", type=Path, metavar="DIR", help="of sae: a local SAE folder (SAELens, sparsify)")
    add("--features", metavar="N,N", help="of sae: rows of its decoder, which add up")
    add("--format", default="plain", help="plain, or chat: the tokenizer's chat template (default: %(default)s)")
    add("--controls", default="", help="null directions of equal norm: random:K,shuffled,letter,zero (default: none)")
    add("--no-balance", action="store_true", help="letters as the data has them, as in the paper (default: balanced)")
    add("--limit", type=int, help="only the first N items")
    add("--batch-size", type=int, default=8, help="rows of a forward (default: %(default)s)")
    add("--seed", type=int, default=0, help="of controls, splits, lat and ccs (default: %(default)s)")
    add("--capture", type=Path, metavar="FILE", help="keep the activations in FILE, or take them from there")
    add("--force", action="store_true", help="overwrite files that exist")
    add("--json", action="store_true", help="print files and statistics as JSON, alone on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Extract, write the files and print what was found.

    Args:
        args: as :func:`add_parser` defines them.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as :func:`lm_eval_steer.extraction.extract.extract` and the loading of model and pairs raise it.
    """
    from lm_eval_steer.extraction.extract import extract_each
    from lm_eval_steer.extraction.pair_source import read_source
    from lm_eval_steer.loading import load_causal_lm, model_label

    if args.method in _ALONE:
        return _ALONE[args.method](args)
    methods, options = _options(args)
    paths = planned_files(args.out, methods if len(methods) > 1 else [""], args.controls, force=args.force)
    source = read_source(args.pairs).limited(args.limit)
    say(f"loading {args.pretrained}")
    unpack_embedded(args.pretrained)
    model, tokenizer = load_causal_lm(args.pretrained, args.dtype, args.device, args.revision)
    name = model_label(args.pretrained)
    with extract_progress() as progress:
        found = extract_each(
            model,
            tokenizer,
            source,
            methods,
            options,
            model_id=name,
            revision=args.revision,
            progress=progress,
            capture=args.capture,
        )
    for each, files in zip(found, paths, strict=True):
        write_files(each.vector, each.controls, files)
    told = [summary(each, files) for each, files in zip(found, paths, strict=True)]
    if args.json:
        print(json.dumps(told[0] if len(told) == 1 else told, indent=2, allow_nan=False))
    else:
        for each, files in zip(found, paths, strict=True):
            _show(each, list(files.values()))
    return EXIT_OK


def summary(found: Extraction, paths: dict[str, Path]) -> dict[str, Any]:
    """Return what ``--json`` prints: the files with their hashes, the data and the numbers of every layer."""
    return {
        "file": str(paths[""]),
        "sha256": sha256_file(paths[""]),
        "id": found.vector.id,
        "controls": {
            name: {"file": str(path), "sha256": sha256_file(path), "id": found.controls[name].id}
            for name, path in paths.items()
            if name
        },
        "layers": list(found.vector.layers),
        "d_model": found.vector.d_model,
        "letter_balance": found.pairs.letter_balance,
        "n_pairs": len(found.pairs.pairs),
        "items_left_out": list(found.pairs.left_out),
        "provenance": found.vector.provenance.to_dict(),
        "statistics": [each.to_dict() for each in found.statistics],
    }


def _options(args: argparse.Namespace) -> tuple[list[str], Options]:
    """Return the methods and the options, refusing before the model is loaded what can be refused without it."""
    from lm_eval_steer.extraction.extract import Options, check_methods
    from lm_eval_steer.extraction.prompts import FORMATS
    from lm_eval_steer.hookpoint import parse_site
    from lm_eval_steer.suggest import choice_message

    for name, owners in _OWNERS.items():
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} belongs to --method {' or '.join(owners)}; leave it out.")
    if args.pairs is None:
        raise ConfigError(f"--method {args.method} wants --pairs: a packaged name, a CAA behaviour, or a file.")
    if args.format not in FORMATS:
        raise ConfigError(choice_message("format", args.format, FORMATS))
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size {args.batch_size} is below 1.")
    names = [name.strip() for name in args.method.split(",") if name.strip()]
    alone = [name for name in names if name in _ALONE]
    if alone:
        raise ConfigError(f"--method {args.method}: {alone[0]} shares no pass with others; extract it alone.")
    methods = check_methods(names, args.read, capture=args.capture is not None)
    if args.no_balance and all(method.kind != "letter" for method in methods):
        raise ConfigError(f"--no-balance is about letters, and --method {args.method} shows none; leave it out.")
    return names, Options(
        method=names[0],
        read=args.read,
        layers="all" if args.layers == "all" else parse_layers(args.layers),
        site=parse_site(args.site or "block_out"),
        form=args.format,
        balance=not args.no_balance,
        controls=args.controls,
        batch_size=args.batch_size,
        seed=args.seed,
    )


def _show(found: Extraction, paths: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    vector, pairs = found.vector, found.pairs
    balance = "text answers" if pairs.letter_balance is None else f"letter balance {pairs.letter_balance:.3f}"
    left = f", {len(pairs.left_out)} items left out" if pairs.left_out else ""
    size = f"{len(vector.layers)} layers × {vector.d_model}, {len(pairs.pairs)} pairs"
    table = Table(title=f"{vector.name}: {size}, {balance}{left}")
    for heading in ("layer", "norm", "dose at λ=1", "split-half cos", "cos to letter", "cos to yes"):
        table.add_column(heading, justify="right")
    for each in found.statistics:
        numbers = (each.relative_dose, each.split_half, each.cos_letter, each.cos_yes)
        table.add_row(str(each.layer), f"{each.norm:.2f}", *("–" if n is None else f"{n:.3f}" for n in numbers))
    console = Console()
    console.print(table)
    for path in paths:
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
