"""``lm-eval-steer extract --method iti``: pairs in, a file for ``head_shift`` out."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from lm_eval_steer.axes import parse_layers
from lm_eval_steer.cli.extract_files import extract_progress, planned_files, say, unpack_embedded, write_files
from lm_eval_steer.errors import EXIT_OK, ConfigError
from lm_eval_steer.files import sha256_file

if TYPE_CHECKING:
    from lm_eval_steer.extraction.iti import ITI

METHOD = "iti"
_STRANGERS = ("read", "site", "prompts", "prompt_sets", "select", "position", "no_balance", "sae", "features")
_SHOWN = 10


def run_iti(args: argparse.Namespace) -> int:
    """Extract by ``iti``, write the file and print the heads.

    Args:
        args: of ``lm-eval-steer extract``.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the extraction, the loading of the model and the reading of pairs raise it.
    """
    from lm_eval_steer.extraction.iti import iti
    from lm_eval_steer.extraction.pair_source import read_source
    from lm_eval_steer.loading import load_causal_lm, model_label

    _check(args)
    files = planned_files(args.out, [""], "", force=args.force)[0]
    source = read_source(args.pairs).limited(args.limit)
    say(f"loading {args.pretrained}")
    unpack_embedded(args.pretrained)
    model, tokenizer = load_causal_lm(args.pretrained, args.dtype, args.device, args.revision)
    with extract_progress() as progress:
        found = iti(
            model,
            tokenizer,
            source,
            heads=args.heads,
            layers="all" if args.layers == "all" else parse_layers(args.layers),
            form=args.format,
            batch_size=args.batch_size,
            seed=args.seed,
            model_id=model_label(args.pretrained),
            revision=args.revision,
            progress=progress,
            capture=args.capture,
        )
    write_files(found.vector, {}, files)
    _show(found, files[""], as_json=args.json)
    return EXIT_OK


def _show(found: ITI, file: Path, *, as_json: bool) -> None:
    vector, notes = found.vector, found.vector.provenance.notes
    if as_json:
        record = {
            "file": str(file),
            "sha256": sha256_file(file),
            "id": vector.id,
            "layers": list(vector.layers),
            "head_dim": notes["head_dim"],
            "heads": [dataclasses.asdict(each) for each in found.chosen],
            "probes": [dataclasses.asdict(each) for each in found.probes],
            "provenance": vector.provenance.to_dict(),
        }
        print(json.dumps(record, indent=2, allow_nan=False))
        return
    pairs, held = vector.provenance.n_pairs, notes["items_validated"]
    size = f"{len(found.chosen)} of {len(found.probes)} heads in {len(vector.layers)} layers"
    print(f"{vector.name}: {size}, {pairs} pairs, {held} of them for validation")
    for each in found.chosen[:_SHOWN]:
        print(f"  layer {each.layer:>2} head {each.head:>2}: validation accuracy {each.accuracy:.3f}")
    if len(found.chosen) > _SHOWN:
        print(f"  … {len(found.chosen) - _SHOWN} more, the last at {found.chosen[-1].accuracy:.3f}")
    print(f"median accuracy of all heads {median(each.accuracy for each in found.probes):.3f}, chance 0.500")
    print(f"wrote {file}; apply it with operation=head_shift, the multiplier is α (15 in the paper)")


def _check(args: argparse.Namespace) -> None:
    """Refuse options that the method does not know, before anything is loaded.

    Raises:
        ConfigError: one of them.
    """
    from lm_eval_steer.extraction.prompts import FORMATS
    from lm_eval_steer.suggest import choice_message

    if args.pairs is None:
        raise ConfigError("--method iti wants --pairs: a packaged name, a CAA behaviour, or a file.")
    given = [name for name in _STRANGERS if getattr(args, name) is not None and getattr(args, name) is not False]
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} has no place with --method iti; leave it out.")
    if args.controls:
        raise ConfigError(
            "--controls has no place with --method iti: its null is another set of heads, which a sweep draws "
            "(nulls: random:K)."
        )
    if args.format not in FORMATS:
        raise ConfigError(choice_message("format", args.format, FORMATS))
    for name in ("heads", "batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value} is below 1.")
