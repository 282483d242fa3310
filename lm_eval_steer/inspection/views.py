"""inspect: what is inside steering vectors: words, sizes, likeness, components, features, leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lm_eval_steer.attachment import attach
from lm_eval_steer.edit import SINK_FACTOR
from lm_eval_steer.errors import ShapeError
from lm_eval_steer.extraction.pair_source import PairSource
from lm_eval_steer.extraction.prompts import encode
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.inspection.difference_rows import Singular, singular
from lm_eval_steer.inspection.geometry import CosineMatrix, NormRow, cosine_matrix, norm_rows
from lm_eval_steer.inspection.lens import LensRow, logit_lens
from lm_eval_steer.inspection.observer import Observer
from lm_eval_steer.inspection.pair_reading import ReadPairs, differences, margins, read_pairs
from lm_eval_steer.inspection.sae_decoder import decompose, read_decoder
from lm_eval_steer.inspection.vocabulary import Decoded, Leak, decode, leaks
from lm_eval_steer.layout import ModelLayout, input_device
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.vector import Provenance, SteeringVector

COMPONENTS = 3


@dataclass(frozen=True)
class Features:
    """A vector as a signed sum of SAE decoder rows.

    Attributes:
        sae: name of the SAE's folder.
        features: the rows taken, and their coefficients.
        cosines: cosine of the reconstruction with the vector after 1, 2, ... rows.
        reconstruction_effect: mean change of log p(pos) − log p(neg) that the reconstruction makes at multiplier 1,
            scope all without the first token, nats a token; None without pairs.
        vector_effect: the same of the vector itself.
    """

    sae: str
    features: tuple[tuple[int, float], ...]
    cosines: tuple[float, ...]
    reconstruction_effect: float | None = None
    vector_effect: float | None = None


@dataclass(frozen=True)
class VectorView:
    """What one vector holds at the chosen layer.

    Attributes:
        name: of the vector.
        id: its content id.
        point: the hookpoint that was looked at.
        decoded: its words, both ways and both signs.
        leaks: how far it raises letters and Yes and No.
        singular: of the pairs' difference rows, uncentred and centred; empty without pairs.
        features: on an SAE; None without one.
    """

    name: str
    id: str
    point: str
    decoded: tuple[Decoded, ...]
    leaks: tuple[Leak, ...]
    singular: tuple[Singular, ...]
    features: Features | None


@dataclass(frozen=True)
class Inspection:
    """What was found in all vectors.

    Attributes:
        prompt: of the lens.
        vectors: one view each.
        norms: of every vector at every hookpoint.
        cosines: among vectors and layers.
        lens: of the model on the prompt, without steering.
    """

    prompt: str
    vectors: tuple[VectorView, ...]
    norms: tuple[NormRow, ...]
    cosines: CosineMatrix
    lens: tuple[LensRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return this as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Wanted:
    """What to look at.

    Attributes:
        layer: of the words, components and features.
        cosine_layers: of the matrix.
        prompt: of the lens, as the model gets it.
        top: tokens to show.
        pairs: difference rows come from these; None for none.
        sae: folder of a sparse autoencoder; None for none.
        features: rows of it to take.
    """

    layer: int
    cosine_layers: tuple[int, ...]
    prompt: str
    top: int = 8
    pairs: PairSource | None = None
    sae: Path | None = None
    features: int = 10


def inspect_vectors(
    model: Any, tokenizer: Any, layout: ModelLayout, vectors: Sequence[SteeringVector], wanted: Wanted
) -> Inspection:
    """Look inside ``vectors``.

    Args:
        model: the model they belong to, without hooks of ours.
        tokenizer: its tokenizer.
        layout: of the model.
        vectors: at least one.
        wanted: what to look at.

    Raises:
        LayerError: a vector lacks the layer.
        ShapeError: a vector has another width than the model, or rows.
        SteerError: as the pairs and the SAE raise it.
    """
    for vector in vectors:
        if vector.d_model != layout.d_model or vector.rows is not None or vector.site is Site.HEAD_Z:
            what = f"rows: {vector.rows}" if vector.rows else f"site {vector.site} and width {vector.d_model}"
            raise ShapeError(
                f"vector {vector.name!r} has {what}; one row in the residual stream, {layout.d_model} wide, is wanted."
            )
    measured = _prompt_norms(model, tokenizer, layout, wanted.prompt)
    return Inspection(
        wanted.prompt,
        tuple(_view(model, tokenizer, layout, vector, wanted) for vector in vectors),
        tuple(row for vector in vectors for row in norm_rows(vector, measured)),
        cosine_matrix(vectors, wanted.cosine_layers),
        tuple(logit_lens(model, tokenizer, layout, wanted.prompt, min(wanted.top, 5))),
    )


def _view(model: Any, tokenizer: Any, layout: ModelLayout, vector: SteeringVector, wanted: Wanted) -> VectorView:
    point = Hookpoint(vector.site, wanted.layer)
    tensor = vector.at(point.layer)
    found: list[Singular] = []
    pairs = None
    if wanted.pairs is not None:
        pairs = read_pairs(wanted.pairs, vector, tokenizer)
        rows = differences(model, layout, pairs, [point])[:, 0]
        for centred in (False, True):
            found.append(
                singular(model, tokenizer, rows, tensor, centred=centred, count=COMPONENTS, top=min(wanted.top, 5))
            )
    return VectorView(
        vector.name,
        vector.id,
        str(point),
        decode(model, tokenizer, layout, tensor, wanted.top),
        leaks(model, tokenizer, tensor),
        tuple(found),
        _features(model, layout, point, tensor, wanted, pairs),
    )


def _features(
    model: Any, layout: ModelLayout, point: Hookpoint, tensor: Tensor, wanted: Wanted, pairs: ReadPairs | None
) -> Features | None:
    if wanted.sae is None:
        return None
    made = decompose(tensor, read_decoder(wanted.sae).rows, wanted.features)
    effects: list[float | None] = [None, None]
    if pairs is not None:
        plain = margins(model, None, pairs)
        effects = [_effect(model, layout, point, value, pairs, plain) for value in (made.reconstruction, tensor)]
    features = tuple(zip(made.features, made.coefficients, strict=True))
    return Features(wanted.sae.resolve().name, features, made.cosines, *effects)


def _effect(model: Any, layout: ModelLayout, point: Hookpoint, value: Tensor, pairs: ReadPairs, plain: Tensor) -> float:
    vector = SteeringVector("v", {point: value}, Provenance("inspect"))
    plan = SteeringPlan((Placement(vector, point, point, scope=TokenScope("all"), skip_first=True),))
    with attach(model, plan, layout=layout) as handle:
        return float((margins(model, handle, pairs) - plain).mean())


def _prompt_norms(model: Any, tokenizer: Any, layout: ModelLayout, prompt: str) -> Mapping[Hookpoint, float]:
    """Return the mean norm of the residual stream at every hookpoint on a prompt, sinks left out."""
    ids = torch.tensor([encode(tokenizer, prompt)], device=input_device(model))
    observer = Observer(layout)
    with torch.no_grad(), observer.watching():
        model(input_ids=ids)
    found = {}
    for point, norms in observer.norms.items():
        real = norms[0, 1:] if norms.shape[1] > 1 else norms[0]
        found[point] = float(real[real <= SINK_FACTOR * real.median()].mean())
    return found
