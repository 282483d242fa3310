"""extract: a model and contrast pairs in; steering vectors, their controls and their statistics out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lm_eval_steer.errors import ConfigError, DataError, LayerError, ShapeError
from lm_eval_steer.extraction import Method, get_estimator, get_method
from lm_eval_steer.extraction.base import Estimator, PairActivations, Reading
from lm_eval_steer.extraction.capture import Progress
from lm_eval_steer.extraction.controls import (
    Control,
    parse_controls,
    random_direction,
    rescaled,
    shuffled_direction,
)
from lm_eval_steer.extraction.pair_source import PairSource
from lm_eval_steer.extraction.pairs import PairSet, letter_pairs, text_pairs
from lm_eval_steer.extraction.prompts import Position, check_format
from lm_eval_steer.extraction.reading import LETTER_ITEMS, Reader
from lm_eval_steer.extraction.record import as_control, provenance
from lm_eval_steer.extraction.statistics import PointStatistics, point_statistics, split_half
from lm_eval_steer.extraction.yes import yes_direction
from lm_eval_steer.fingerprint import fingerprint
from lm_eval_steer.hookpoint import Hookpoint, Site, check_layer
from lm_eval_steer.layout import ModelLayout, probe_layout
from lm_eval_steer.vector import Provenance, SteeringVector

__all__ = ["LETTER_ITEMS", "Extraction", "Options", "check_methods", "extract", "extract_each", "hookpoints"]


@dataclass(frozen=True)
class Extraction:
    """What an extraction made.

    Attributes:
        vector: the steering vector.
        controls: name (``random-3``, ``letter``) → a null vector of the same norms.
        statistics: the numbers of every hookpoint, in the order of the layers.
        pairs: what the model was shown.
    """

    vector: SteeringVector
    controls: Mapping[str, SteeringVector]
    statistics: tuple[PointStatistics, ...]
    pairs: PairSet


@dataclass(frozen=True)
class Options:
    """How to extract.

    Attributes:
        method: a preset or an estimator.
        read: which tokens of an answer an estimator reads; None for the method's own.
        layers: ``all``, or the layers.
        site: where in a block to read.
        form: ``chat`` or ``plain``.
        balance: let every letter pair enter in both orders.
        controls: which null directions to make, as :func:`parse_controls` reads them.
        batch_size: rows of a forward.
        seed: of controls, split halves and whatever an estimator draws.
    """

    method: str = "mean_text"
    read: Position | None = None
    layers: str | Sequence[int] = "all"
    site: Site = Site.BLOCK_OUT
    form: str = "plain"
    balance: bool = True
    controls: str = ""
    batch_size: int = 8
    seed: int = 0


def extract(
    model: nn.Module,
    tokenizer: Any,
    source: PairSource,
    options: Options | None = None,
    *,
    model_id: str | None = None,
    revision: str | None = None,
    layout: ModelLayout | None = None,
    progress: Progress | None = None,
    capture: Path | None = None,
) -> Extraction:
    """Extract a steering vector from contrast pairs.

    Args:
        model: a causal LM in evaluation mode; it is left as it was.
        tokenizer: its tokenizer.
        source: the items, see :func:`lm_eval_steer.extraction.pair_source.read_source`.
        options: how; the defaults of :class:`Options` for None.
        model_id: the model's name for the record.
        revision: the model's revision for the record.
        layout: of the model, when it is known; else it is probed.
        progress: called with sequences done and their number, for the pairs and then for the letter control.
        capture: a capture file: read instead of running the pairs, or written.

    Returns:
        The vector, its controls and statistics; equal inputs on one machine give equal bytes.

    Raises:
        ConfigError: an unknown method, format or control.
        LayerError, SiteError: the model lacks a layer or a site.
        DataError: no pair can be used, there are too few, or one is too long.
        NonFiniteError: an activation is NaN or infinite.
        VectorValueError: the pairs' activations do not differ at some layer.
        ForeignCacheError: the capture file holds other activations.
    """
    options = options or Options()
    (found,) = extract_each(
        model,
        tokenizer,
        source,
        [options.method],
        options,
        model_id=model_id,
        revision=revision,
        layout=layout,
        progress=progress,
        capture=capture,
    )
    return found


def extract_each(
    model: nn.Module,
    tokenizer: Any,
    source: PairSource,
    methods: Sequence[str],
    options: Options | None = None,
    *,
    model_id: str | None = None,
    revision: str | None = None,
    layout: ModelLayout | None = None,
    progress: Progress | None = None,
    capture: Path | None = None,
) -> tuple[Extraction, ...]:
    """Extract a vector by each of several methods; those that read the same tokens share one pass over the pairs.

    Args:
        methods: presets or estimators, each once; they take the place of ``options.method``. The name of each vector
            ends in its method where there are several.

    The other arguments and the errors are those of :func:`extract`.
    """
    options = options or Options()
    chosen = check_methods(methods, options.read, capture=capture is not None)
    controls = parse_controls(options.controls)
    layout = probe_layout(model) if layout is None else layout
    points, form = hookpoints(layout, options.layers, options.site), check_format(options.form, tokenizer)
    own = fingerprint(model, layout, tokenizer)
    reader = Reader(model, tokenizer, layout, points, form, options.batch_size, own, progress)
    readings: dict[tuple[str, str], tuple[PairSet, Reading]] = {}
    found = []
    for method in chosen:
        key = (method.kind, method.position)
        if key not in readings:
            letters = method.kind == "letter"
            pairs = letter_pairs(source, balance=options.balance) if letters else text_pairs(source)
            readings[key] = pairs, reader.read(source, pairs, method.position, capture)
        name = source.name if len(chosen) == 1 else f"{source.name}-{method.name}"
        each = _extraction(name, reader, *readings[key], method, controls, options.seed)
        found.append(_named(each, model_id, revision))
    return tuple(found)


def check_methods(names: Sequence[str], read: Position | None, *, capture: bool) -> tuple[Method, ...]:
    """Return the methods called ``names``.

    Raises:
        ConfigError: none, an unknown one or one twice; or one capture file for methods that read different tokens.
    """
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"methods {', '.join(names) or 'none'}: name at least one, and each once.")
    methods = tuple(get_method(name, read) for name in names)
    readings = {(method.kind, method.position) for method in methods}
    if capture and len(readings) > 1:
        told = ", ".join(f"{method.name} reads {method.kind} at {method.position}" for method in methods)
        raise ConfigError(f"one capture file holds one reading, and {told}. Extract them one after the other.")
    return methods


def _extraction(
    name: str,
    reader: Reader,
    pairs: PairSet,
    reading: Reading,
    method: Method,
    controls: Sequence[Control],
    seed: int,
) -> Extraction:
    """Return the vector of one method with all that goes with it; no forward is run."""
    estimator = get_estimator(method.estimator).seeded(seed)
    activations = reading.activations
    vector = _estimate(estimator, activations)
    halves, yes = split_half(estimator, activations, seed), yes_direction(activations)
    statistics = point_statistics(reader.points, vector, reading.norms, halves, reading.letter, yes)
    record = provenance(reader, pairs, method, estimator, statistics, seed)
    null = {str(each): _control(each, activations, vector, reading.letter, seed) for each in controls}
    return Extraction(
        _vector(name, reader.points, vector, record),
        {
            str(each): _vector(f"{name}-{each}", reader.points, null[str(each)], as_control(record, each))
            for each in controls
        },
        statistics,
        pairs,
    )


def _named(found: Extraction, model_id: str | None, revision: str | None) -> Extraction:
    """Return the extraction with the model's name in every record."""

    def named(vector: SteeringVector) -> SteeringVector:
        record = dataclasses.replace(vector.provenance, model_id=model_id, model_revision=revision)
        return dataclasses.replace(vector, provenance=record)

    controls = {name: named(control) for name, control in found.controls.items()}
    return dataclasses.replace(found, vector=named(found.vector), controls=controls)


def hookpoints(layout: ModelLayout, layers: str | Sequence[int], site: Site) -> tuple[Hookpoint, ...]:
    """Return the hookpoints of one site at ``all`` or some layers, in their order.

    Raises:
        LayerError, SiteError: the model lacks a layer or the site there, or a layer is given twice.
    """
    if isinstance(layers, str):
        if layers != "all":
            raise LayerError(f"layers {layers!r}: give 'all' or a sequence of layers.")
        found = list(range(layout.n_layers))
    else:
        found = [check_layer(layer, layout.n_layers) for layer in layers]
    if not found or len(set(found)) != len(found):
        raise LayerError(f"layers {layers!r}: name at least one, and each once.")
    points = tuple(Hookpoint(site, layer) for layer in sorted(found))
    for point in points:
        layout.target(point)
    return points


def _estimate(estimator: Estimator, activations: PairActivations) -> Tensor:
    n_items = int(activations.items.max()) + 1
    if n_items < estimator.min_items:
        raise DataError(f"{estimator.name} needs at least {estimator.min_items} items and got {n_items}; give more.")
    vector = estimator.estimate(activations)
    wanted = (len(activations.points), activations.positive.shape[-1])
    if tuple(vector.shape) != wanted:
        raise ShapeError(
            f"estimator {estimator.name!r} returned {tuple(vector.shape)}, not [n_points, d_model] = {wanted}."
        )
    return vector


def _control(each: Control, activations: PairActivations, vector: Tensor, letter: Tensor | None, seed: int) -> Tensor:
    if each.kind == "zero":
        return torch.zeros_like(vector)
    if each.kind == "random":
        return random_direction(vector, activations.points, seed, each.number)
    if each.kind == "shuffled":
        return shuffled_direction(activations, vector, seed, each.number)
    if letter is None:
        raise DataError("no item can be shown with letters, so there is no letter control; leave it out.")
    return rescaled(letter, vector)


def _vector(name: str, points: tuple[Hookpoint, ...], rows: Tensor, record: Provenance) -> SteeringVector:
    return SteeringVector(name, dict(zip(points, rows, strict=True)), record)
