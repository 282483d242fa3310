"""``lm-eval-steer extract`` for prompts without pairs of answers: ``actadd`` (two prompts), ``unpaired`` (two sets)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.axes import parse_layers
from lm_eval_steer.cli.extract_files import extract_progress, planned_files, say, unpack_embedded, write_files
from lm_eval_steer.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from lm_eval_steer.extraction.prompt_sets import PromptSets
    from lm_eval_steer.extraction.unpaired import Unpaired
    from lm_eval_steer.vector import SteeringVector

METHODS = ("actadd", "unpaired")


def run_prompts(args: argparse.Namespace) -> int:
    """Extract by ``actadd`` or ``unpaired``, write the files and print what was found.

    Args:
        args: of ``lm-eval-steer extract``.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the extraction, the loading of the model and the reading of prompt files raise it.
    """
    from lm_eval_steer.extraction.prompt_sets import read_prompt_sets
    from lm_eval_steer.loading import load_causal_lm

    _check(args)
    files = planned_files(args.out, [""], args.controls, force=args.force)[0]
    sets = None
    if args.method == "unpaired":
        sets = read_prompt_sets(Path(args.prompt_sets[0]), Path(args.prompt_sets[1]), args.limit)
    say(f"loading {args.pretrained}")
    unpack_embedded(args.pretrained)
    model, tokenizer = load_causal_lm(args.pretrained, args.dtype, args.device, args.revision)
    if sets is None:
        vector, controls, told, lines = _actadd(args, model, tokenizer)
    else:
        vector, controls, told, lines = _unpaired(args, model, tokenizer, sets)
    write_files(vector, controls, files)
    if args.json:
        record: dict[str, Any] = {
            "file": str(files[""]),
            "id": vector.id,
            "layers": list(vector.layers),
            "rows": vector.rows,
        }
        record |= {"controls": {name: str(path) for name, path in files.items() if name}, **told}
        print(json.dumps({**record, "provenance": vector.provenance.to_dict()}, indent=2, allow_nan=False))
    else:
        print("\n".join([*lines, *(f"wrote {path}" for path in files.values())]))
    return EXIT_OK


_Made = tuple["SteeringVector", "Mapping[str, SteeringVector]", dict[str, Any], list[str]]


def _actadd(args: argparse.Namespace, model: Any, tokenizer: Any) -> _Made:
    from lm_eval_steer.extraction.actadd import SITE, actadd
    from lm_eval_steer.hookpoint import parse_site
    from lm_eval_steer.loading import model_label

    found = actadd(
        model,
        tokenizer,
        *args.prompts,
        layers="all" if args.layers == "all" else parse_layers(args.layers),
        site=parse_site(args.site) if args.site else SITE,
        controls=args.controls,
        seed=args.seed,
        model_id=model_label(args.pretrained),
        revision=args.revision,
    )
    k = len(found.pair.plus)
    lines = [f"{found.vector.name}: {k} positions × {found.vector.d_model}; apply it with scope=front:{k}"]
    lines += [f"  {at}: {one!r} − {two!r}" for at, (one, two) in enumerate(found.pair.tokens)]
    norms = found.vector.norms()
    lines += [f"  {point}: norm {norms[str(point)]:.2f}" for point in found.vector.tensors]
    return found.vector, found.controls, {"scope": f"front:{k}", "norms": norms}, lines


def _unpaired(args: argparse.Namespace, model: Any, tokenizer: Any, sets: PromptSets) -> _Made:
    from lm_eval_steer.extraction.refusal_choice import select
    from lm_eval_steer.extraction.unpaired import prepare, unpaired
    from lm_eval_steer.hookpoint import parse_site
    from lm_eval_steer.loading import model_label

    record = {"seed": args.seed, "model_id": model_label(args.pretrained), "revision": args.revision}
    with extract_progress() as progress:
        shown = None if args.select else progress
        prompts = prepare(model, tokenizer, sets, form=args.format, batch_size=args.batch_size, progress=shown)
        if args.select:
            chosen = select(prompts, controls=args.controls, progress=progress, **record)
            found, best = chosen.made, chosen.best
            told: dict[str, Any] = {"selection": vars(best), "candidates": [vars(each) for each in chosen.tried]}
            line = (
                f"chosen of {len(chosen.tried)}: layer {best.layer}, token {best.position}; refusal score "
                f"{best.bypass:.2f} ablated, {best.induce:.2f} added; KL {best.kl:.3f}"
            )
        else:
            found = unpaired(
                prompts,
                layers="all" if args.layers == "all" else parse_layers(args.layers),
                site=parse_site(args.site or "block_out"),
                position=-1 if args.position is None else args.position,
                controls=args.controls,
                **record,
            )
            told, line = {}, f"read at token {found.position} of the last {found.positions} that all prompts share"
    told |= {"statistics": [each.to_dict() for each in found.statistics], "position": found.position}
    return found.vector, found.controls, told, [*_rows(found), line]


def _rows(found: Unpaired) -> list[str]:
    rows = [f"{found.vector.name}: layer, norm, dose at λ=1, split-half cos"]
    for each in found.statistics:
        numbers = (each.relative_dose, each.split_half)
        rows.append(
            f"  {each.layer:>3} {each.norm:>9.2f} " + " ".join("–" if n is None else f"{n:.3f}" for n in numbers)
        )
    return rows


def _check(args: argparse.Namespace) -> None:
    """Refuse options that the method does not know, before anything is loaded.

    Raises:
        ConfigError: one of them.
    """
    wanted, other = ("prompts", "prompt_sets") if args.method == "actadd" else ("prompt_sets", "prompts")
    if getattr(args, wanted) is None:
        example = '" love" " hate"' if wanted == "prompts" else "harmful.txt harmless.txt"
        raise ConfigError(f"--method {args.method} wants --{wanted.replace('_', '-')} {example}.")
    strangers = [other, "pairs", "read", "capture", "heads", "sae", "features"]
    if args.method == "actadd":
        strangers += ["select", "position", "limit"]
    given = [name for name in strangers if getattr(args, name) is not None]
    given += ["no_balance"] if args.no_balance else []
    given += ["format"] if args.method == "actadd" and args.format != "plain" else []
    if args.select:
        given += [name for name in ("position", "site") if getattr(args, name) is not None]
        given += ["layers"] if args.layers != "all" else []
    if given:
        how = f"--method {args.method}" + (" --select" if args.select else "")
        raise ConfigError(f"--{given[0].replace('_', '-')} has no place with {how}; leave it out.")
    if args.select not in (None, "refusal"):
        raise ConfigError(f"--select {args.select!r}: only refusal.")
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size {args.batch_size} is below 1.")
