"""``lm-eval-steer inspect``: what is inside steering vectors: words, sizes, likeness, components, features, leaks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer.cli.command import add_command
from lm_eval_steer.cli.model_flags import add_model_flags
from lm_eval_steer.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from lm_eval_steer.cli.command import Subparsers
    from lm_eval_steer.inspection.views import Inspection, Wanted
    from lm_eval_steer.vector import SteeringVector

DEFAULT_PROMPT = "How was your day?"
_DESCRIPTION = """\
Look inside steering vectors: the words they speak for, their norms and doses by layer, the cosines among them, how far
they raise letters and Yes and No; with --pairs the components of the pairs' differences, with --sae a vector as a
signed sum of decoder rows. Beside them stands the model's logit lens on a prompt, without steering.
"""
_EPILOG = """\
examples:
  lm-eval-steer inspect smollm2-positivity --pretrained embedded --layer 20
  lm-eval-steer inspect smollm2-positivity smollm2-positivity-letter --pretrained embedded --layer 20 \\
                        --cosine-layers 10,20 --pairs positivity
  lm-eval-steer inspect V.safetensors --pretrained DIR_OR_HUB --sae layers.12 --features 20 --json
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the subcommand ``inspect`` to the command line."""
    parser = add_command(
        subparsers,
        "inspect",
        "look inside vectors: words, norms, cosines, components, SAE features",
        _DESCRIPTION,
        _EPILOG,
    )
    add = parser.add_argument
    add("vectors", metavar="VECTOR", nargs="+", help="shipped names or files")
    add_model_flags(parser, required=True)
    add("--layer", type=int, help="of words, components and features (default: the middle one of the first vector)")
    add("--cosine-layers", help="of the cosine matrix: 12, 10-14, 10,12 or all (default: --layer)")
    add("--prompt", default=DEFAULT_PROMPT, help=f"of the logit lens; default: {DEFAULT_PROMPT!r}")
    add("--plain", action="store_true", help="give the prompt as it is, without the chat template")
    add("--pairs", help="contrast pairs for the components: a packaged name, a CAA behaviour, or a file")
    add("--sae", type=Path, metavar="DIR", help="a local SAE folder (SAELens, sparsify) trained at --layer")
    add("--features", type=int, default=10, metavar="N", help="rows of the SAE to take; default: 10")
    add("--top", type=int, default=8, metavar="N", help="words to show; default: 8")
    add("--allow-foreign-vector", action="store_true", help="accept vectors made on another model")
    add("--json", action="store_true", help="print one JSON object, alone on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Inspect and show what was found.

    Args:
        args: as :func:`add_parser` defines them.

    Returns:
        The exit code 0.

    Raises:
        SteerError: as the vectors, the model, the pairs and the SAE raise it.
    """
    from lm_eval_steer.inspection.views import inspect_vectors
    from lm_eval_steer.layout import probe_layout
    from lm_eval_steer.loading import load_causal_lm
    from lm_eval_steer.store import find_vector

    if args.top < 1:
        raise ConfigError("--top must be at least 1.")
    vectors = [find_vector(label).vector for label in args.vectors]
    wanted = _wanted(args, vectors)
    for vector in vectors:
        vector.at(wanted.layer)
    model, tokenizer = load_causal_lm(args.pretrained, dtype=args.dtype, device=args.device, revision=args.revision)
    layout = probe_layout(model)
    _check_origin(args, model, tokenizer, layout, vectors)
    found = inspect_vectors(model, tokenizer, layout, vectors, _with_template(wanted, tokenizer, args))
    if args.json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        _show(found)
    return EXIT_OK


def _wanted(args: argparse.Namespace, vectors: Sequence[SteeringVector]) -> Wanted:
    from lm_eval_steer.axes import parse_layers
    from lm_eval_steer.extraction.pair_source import read_source
    from lm_eval_steer.inspection.views import Wanted

    own = vectors[0].layers
    layer = own[len(own) // 2] if args.layer is None else args.layer
    layers = (layer,) if args.cosine_layers is None else parse_layers(args.cosine_layers, own, option="--cosine-layers")
    pairs = None if args.pairs is None else read_source(args.pairs)
    return Wanted(layer, layers, args.prompt, args.top, pairs, args.sae, args.features)


def _with_template(wanted: Wanted, tokenizer: Any, args: argparse.Namespace) -> Wanted:
    import dataclasses

    from lm_eval_steer.trial import chat_prompt

    return dataclasses.replace(wanted, prompt=chat_prompt(tokenizer, wanted.prompt, chat=False if args.plain else None))


def _check_origin(
    args: argparse.Namespace, model: Any, tokenizer: Any, layout: Any, vectors: Sequence[SteeringVector]
) -> None:
    from lm_eval_steer.errors import ForeignVectorError
    from lm_eval_steer.fingerprint import fingerprint

    own = fingerprint(model, layout, tokenizer)
    for vector in vectors:
        made_on = vector.provenance.fingerprint
        if made_on is not None and (parts := made_on.differs_from(own)) and not args.allow_foreign_vector:
            raise ForeignVectorError(
                f"vector {vector.name!r} was made on {vector.provenance.model_id or 'another model'}; this one differs "
                f"in {' and '.join(parts)}. If you know that it fits, pass --allow-foreign-vector."
            )


def _show(found: Inspection) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for view in found.vectors:
        _show_view(console, view)
    _show_norms(console, found)
    _show_cosines(console, found)
    _show_lens(console, found)


def _show_view(console: Any, view: Any) -> None:
    from rich.text import Text

    console.print(Text(f"{view.name} (id {view.id}) at {view.point}", style="bold"))
    for each in view.decoded:
        console.print(Text(f"  {each.way:7} {each.sign}v  {_words(each.tokens)}"))
    raised = ", ".join(f"{_quoted(leak.token)} {leak.z:+.1f}" for leak in view.leaks)
    console.print(Text(f"  leakage, sd of E·v over the vocabulary: {raised or 'no such single tokens'}"))
    for each in view.singular:
        how = "centred" if each.centred else "not centred"
        console.print(Text(f"  components of {each.rows} difference rows, {how} (signs are arbitrary):"))
        for number, part in enumerate(each.components, start=1):
            console.print(Text(f"    {number}: share {part.share:.2f}, cosine with v {part.cosine:+.3f}"))
            console.print(Text(f"       + {_words(part.plus)}\n       - {_words(part.minus)}"))
    if view.features is not None:
        _show_features(console, view.features)


def _show_features(console: Any, found: Any) -> None:
    from rich.text import Text

    console.print(Text(f"  as {len(found.features)} rows of {found.sae}, cosine {found.cosines[-1]:.3f}:"))
    parts = zip(found.features, found.cosines, strict=True)
    console.print(Text("    " + ", ".join(f"{n} × {c:+.3f} (cosine {cosine:.2f})" for (n, c), cosine in parts)))
    if found.reconstruction_effect is not None:
        console.print(
            Text(
                f"    effect on the pairs, nats a token: reconstruction {found.reconstruction_effect:+.3f}, "
                f"vector {found.vector_effect:+.3f}"
            )
        )
    console.print(
        Text("    a steering vector lies outside what the SAE's encoder has seen; these are decoder rows only")
    )


def _show_norms(console: Any, found: Inspection) -> None:
    table = _table("norms and doses", ("vector", "place", "‖v‖", "‖h‖", "dose", "split half", "cos letter", "cos yes"))
    for row in found.norms:
        numbers = (row.norm, row.stream_norm, row.relative_dose, row.split_half, row.cos_letter, row.cos_yes)
        table.add_row(row.vector, row.point, *(_number(value) for value in numbers))
    console.print(table)


def _show_cosines(console: Any, found: Inspection) -> None:
    labels = found.cosines.labels
    if len(labels) < 2:
        return
    table = _table("cosines", ("", *(str(number) for number in range(1, len(labels) + 1)), "split half"))
    for number, (label, row) in enumerate(zip(labels, found.cosines.values, strict=True), start=1):
        table.add_row(f"{number} {label}", *(f"{v:+.2f}" for v in row), _number(found.cosines.reliability[number - 1]))
    console.print(table)


def _show_lens(console: Any, found: Inspection) -> None:
    table = _table("logit lens after the prompt, unsteered", ("layer", "most likely", "KL, nats", "rank of the answer"))
    for row in found.lens:
        likely = ", ".join(f"{_quoted(t)} {p:.2f}" for t, p in zip(row.tokens[:3], row.probabilities, strict=False))
        table.add_row(str(row.layer), likely, f"{row.kl:.3f}", str(row.final_rank))
    console.print(table)


def _table(title: str, headings: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table(title=title)
    for heading in headings:
        table.add_column(heading)
    return table


def _words(tokens: Sequence[Any]) -> str:
    return " ".join(f"{_quoted(each.token)} {each.score:.2f}" for each in tokens)


def _quoted(token: str) -> str:
    from lm_eval_steer.names import printable

    return f"'{printable(token)}'"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
