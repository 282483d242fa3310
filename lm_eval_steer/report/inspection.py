"""Inspection: the parts of a report that look inside vectors: words, leaks, sizes, cosines, SAE rows, the lens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from lm_eval_steer.report.heat_map import Shade, grid_marks
from lm_eval_steer.report.inspect_file import Features, InspectFile, Lens, Norm, Scored, View
from lm_eval_steer.report.labels import number, short
from lm_eval_steer.report.page import Section
from lm_eval_steer.report.palette import SERIES
from lm_eval_steer.report.panel import SMALL, WIDTH, Panel, legend, span
from lm_eval_steer.report.picture import Numbers, Picture
from lm_eval_steer.report.scene import Dot, Line, Mark, Scene, Text, fitted, text_width

_LEFT, _HEIGHT, _GAP, _CELL = 70, 210, 76, 27  # pixels
_MOST_ROWS = 30
_WORDS = (
    "The tokens that stand highest, with scores in logits above the mean token's. E·v: the unembedding alone. E·N(v): "
    "the model's own tail, the final norm with it. Middle layers do not speak the unembedding's language: read it with "
    "care."
)
_LEAKS = (
    "How far E·v raises the tokens of letters and of Yes and No, in standard deviations over the vocabulary. A vector "
    "that is far from 0 here may move answers by their letter or by agreeing, not by what they say."
)
_SINGULAR = (
    "Singular directions of the differences of the pairs, and the vector's cosine with each. Centring takes the mean "
    "difference out of them, which most vectors are. Signs are arbitrary, so the words of both are shown."
)
_FEATURES = (
    "The vector as a signed sum of the SAE's decoder rows, taken one after the other; cosine: of the sum so far with "
    "the vector. A steering vector lies outside what the encoder has seen: these are decoder rows only."
)
_SIZES = (
    "Left: the norm of the vector by layer. Right: its relative dose at λ = 1, ‖v‖ over the mean norm of the residual "
    "stream there, attention sinks left out. Norms grow with depth: compare layers at equal dose."
)
_COSINES = (
    "Cosines among vectors and layers. Blue: alike, orange: opposed. The last column of the table is the cosine "
    "between halves of a vector's own training pairs, where its file records it: two noisy directions have a small "
    "cosine however alike they are."
)
_LENS = (
    "The model's own tail on the output of every layer after the prompt, without steering: how far its answer is from "
    "the model's, KL(model ‖ lens) in nats. Where the line falls the answer takes shape; a vector at a later layer "
    "finds it made."
)

# A section's table: its title, the numbers, how to read them.
Table = tuple[str, Numbers, tuple[str, ...]]


def inspection_sections(files: Sequence[InspectFile]) -> tuple[Section, ...]:
    """Return a section for each file, in their order."""
    return tuple(_section(file, f"inspect-{place}") for place, file in enumerate(files, 1))


def _section(file: InspectFile, name: str) -> Section:
    facts = (
        ("file", file.name),
        ("sha256", file.sha256[:16]),
        *((f"vector {view.name}", f"{view.id} at {view.point}") for view in file.views),
        ("prompt of the lens", file.prompt),
    )
    pictures = (
        _sizes(file.norms, f"{name}-sizes"),
        _cosines(file, f"{name}-cosines"),
        _lens(file.lens, f"{name}-lens"),
    )
    looked_at = ("What was looked at", Numbers(("", ""), facts), ())
    return Section(
        id=name,
        title=f"Inside {short(', '.join(dict.fromkeys(view.name for view in file.views)), 80)}",
        pictures=tuple(picture for picture in pictures if picture is not None),
        notes=(),
        tables=(*(table for view in file.views for table in _of_vector(view)), looked_at),
    )


# ---------------------------------------------------------------------------------------------------- one vector


def _of_vector(view: View) -> list[Table]:
    named = f"{view.name} at {view.point}"
    tables: list[Table] = [(f"Words of {named}", _words(view), (_WORDS,))]
    if view.leaks:
        header = ("", *(_quoted(token) for token, _ in view.leaks))
        row = ("standard deviations", *(number(z, 2, sign=True) for _, z in view.leaks))
        tables.append((f"Leakage of {named}", Numbers(header, (row,)), (_LEAKS,)))
    if view.components:
        tables.append((f"Components of the pairs of {named}", _components(view), (_SINGULAR,)))
    if view.features is not None:
        tables.append((f"{named} as rows of {view.features.sae}", *_features(view.features)))
    return tables


def _features(found: Features) -> tuple[Numbers, tuple[str, ...]]:
    own = zip(("of the sum", "of the vector"), found.effects, strict=True)
    said = ", ".join(f"{number(value, 3, sign=True)} {whose}" for whose, value in own if value is not None)
    rows = tuple((str(row), number(c, 3, sign=True), number(cosine, 3)) for row, c, cosine in found.rows)
    effects = (f"Effect on the pairs, nats a token: {said}.",) if said else ()
    return Numbers(("row", "coefficient", "cosine"), rows), (_FEATURES, *effects)


def _words(view: View) -> Numbers:
    most = max((len(words.tokens) for words in view.words), default=0)
    rows = tuple((words.name, *_padded(words.tokens, most)) for words in view.words)
    return Numbers(("direction", *map(str, range(1, most + 1))), rows)


def _padded(tokens: Sequence[Scored], most: int) -> list[str]:
    return [*(f"{_quoted(token)} {number(score, 2)}" for token, score in tokens), *[""] * (most - len(tokens))]


def _components(view: View) -> Numbers:
    rows = tuple(
        (part.name, number(part.share, 2), number(part.cosine, 3, sign=True), _line(part.plus), _line(part.minus))
        for part in view.components
    )
    return Numbers(("component", "share", "cosine with v", "words", "words of its negative"), rows)


def _line(tokens: Iterable[Scored]) -> str:
    return " ".join(_quoted(token) for token, _ in tokens)


def _quoted(token: str) -> str:
    return f"‘{token}’"


# ---------------------------------------------------------------------------------------------------- all of them


def _sizes(norms: Sequence[Norm], name: str) -> Picture | None:
    if not norms:
        return None
    curves: dict[str, list[Norm]] = {}
    for each in norms:
        curves.setdefault(f"{each.vector} · {each.site}", []).append(each)
    shown = list(curves.items())[: len(SERIES)]
    note = f" The first {len(shown)} of {len(curves)} are drawn." if len(shown) < len(curves) else ""
    half = (WIDTH - _GAP) / 2
    sides: tuple[tuple[str, Callable[[Norm], float | None], float], ...] = (
        ("norm ‖v‖", lambda each: each.norm, _LEFT),
        ("relative dose at λ = 1", lambda each: each.relative_dose, half + _GAP),
    )
    marks: list[Mark] = []
    for title, get, left in sides:
        marks += _curves(
            [(label, [(n.layer, get(n)) for n in own]) for label, own in shown], title, left, left + half - _LEFT
        )
    samples: list[tuple[list[Mark], str]] = [
        ([Line(((-12.0, 0.0), (12.0, 0.0)), role, 1.5), Dot(0, 0, role, 3)], short(label, 60))
        for (label, _), role in zip(shown, SERIES, strict=False)
    ]
    names, height = legend(samples, _LEFT, _HEIGHT + 46, WIDTH - _LEFT)
    rows = tuple(
        (
            each.vector,
            each.point,
            *(number(value, 3) for value in (each.norm, each.stream_norm, each.relative_dose, each.split_half)),
            *(number(value, 3, sign=True) for value in (each.cos_letter, each.cos_yes)),
        )
        for each in norms
    )
    header = ("vector", "place", "‖v‖", "mean ‖h‖", "dose", "split half", "cos letter", "cos yes")
    return Picture(
        name=name,
        title="Norms and relative doses by layer",
        caption=_SIZES + note,
        alt=f"{len(shown)} curves of norm and of dose by layer; the table holds every number.",
        scene=Scene(WIDTH, _HEIGHT + 48 + height, (*marks, *names)),
        numbers=Numbers(header, rows),
    )


def _curves(
    curves: Sequence[tuple[str, Sequence[tuple[int, float | None]]]], title: str, left: float, right: float
) -> list[Mark]:
    """Return curves by layer on axes of their own; a layer without a number has no point."""
    found = [[(at, value) for at, value in sorted(own) if value is not None] for _, own in curves]
    layers = [at for own in found for at, _ in own]
    panel = Panel(span(map(float, layers), left, right, 0.03), span([v for own in found for _, v in own], _HEIGHT, 12))
    marks: list[Mark] = [*panel.x_axis("layer", 8), *panel.y_axis(title, 5)]
    for own, role in zip(found, SERIES, strict=False):
        places = panel.line([float(at) for at, _ in own], [value for _, value in own])
        marks += [Line(places, role, 1.5)] if len(places) > 1 else []
        marks += [
            Dot(x, y, role, 3, about=f"layer {at}: {number(value)}")
            for (x, y), (at, value) in zip(places, own, strict=True)
        ]
    return marks


def _cosines(file: InspectFile, name: str) -> Picture | None:
    count = len(file.labels)
    if count < 2:
        return None
    shown = min(count, _MOST_ROWS)
    note = f" The first {shown} of {count} are drawn." if shown < count else ""
    labels = [fitted(f"{place} {label}", 300) for place, label in enumerate(file.labels[:shown], 1)]
    left = 16 + max(map(text_width, labels))
    wide = min(58.0, (WIDTH - left) / shown)
    digits = 2 if wide >= 34 else 1
    cells = {
        (r, c): Shade(file.cosines[r][c], number(file.cosines[r][c], digits, sign=True))
        for r in range(shown)
        for c in range(shown)
    }
    heads = [str(place) for place in range(1, shown + 1)]
    marks = grid_marks(cells, labels, heads, 1.0, (left, 24), (wide, _CELL))
    marks += [Text(left + (c + 0.5) * wide, 15, head, SMALL, "muted", "middle") for c, head in enumerate(heads)]
    rows = tuple(
        (f"{place} {label}", *(number(v, 3, sign=True) for v in values), number(half, 3))
        for place, (label, values, half) in enumerate(zip(file.labels, file.cosines, file.reliability, strict=True), 1)
    )
    return Picture(
        name=name,
        title="Cosines among vectors and layers",
        caption=_COSINES + note,
        alt=f"A grid of {shown} by {shown} cosines; the table holds every number.",
        scene=Scene(left + wide * shown, 30 + _CELL * shown, tuple(marks)),
        numbers=Numbers(("", *map(str, range(1, count + 1)), "split half"), rows),
    )


def _lens(lens: Sequence[Lens], name: str) -> Picture | None:
    if not lens:
        return None
    marks = _curves(
        [("lens", [(row.layer, row.kl if math.isfinite(row.kl) else None) for row in lens])],
        "KL, nats",
        _LEFT,
        WIDTH - 16,
    )
    rows = tuple(
        (str(row.layer), " ".join(f"{_quoted(t)} {number(p, 2)}" for t, p in row.likely), number(row.kl), str(row.rank))
        for row in lens
    )
    return Picture(
        name=name,
        title="Logit lens by layer, unsteered",
        caption=_LENS,
        alt=f"KL from the model's answer over {len(lens)} layers; the table holds every number.",
        scene=Scene(WIDTH, _HEIGHT + 42, tuple(marks)),
        numbers=Numbers(("layer", "most likely", "KL, nats", "rank of the model's answer"), rows),
    )
