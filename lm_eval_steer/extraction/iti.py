"""``iti``: inference-time intervention, the heads that a probe reads best, each with a direction of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lm_eval_steer.errors import ConfigError, DataError, UnsupportedModelError, VectorValueError
from lm_eval_steer.extraction.base import PairActivations
from lm_eval_steer.extraction.capture import Progress
from lm_eval_steer.extraction.controls import stream
from lm_eval_steer.extraction.extract import hookpoints
from lm_eval_steer.extraction.pair_source import PairSource
from lm_eval_steer.extraction.pairs import text_pairs
from lm_eval_steer.extraction.prompts import check_format
from lm_eval_steer.extraction.reading import Reader
from lm_eval_steer.extraction.record import versions
from lm_eval_steer.fingerprint import fingerprint
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layout import ModelLayout, probe_layout
from lm_eval_steer.vector import Provenance, SteeringVector

METHOD = "iti"
HEADS = 48
MIN_ITEMS = 10
VALIDATION = 0.2
ITERATIONS = 1000


@dataclass(frozen=True)
class HeadProbe:
    """A probe on one attention head.

    Attributes:
        layer: the head's layer.
        head: its number there.
        accuracy: share of the validation answers that the probe puts into the right set; chance is 0.5.
        loss: its mean logistic loss on them, in nats.
    """

    layer: int
    head: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class ITI:
    """What :func:`iti` made.

    Attributes:
        vector: ``[n_heads · head_dim]`` at ``head_z`` of every layer that has a chosen head.
        chosen: the probes of the chosen heads, best first.
        probes: of all heads, best first.
    """

    vector: SteeringVector
    chosen: tuple[HeadProbe, ...]
    probes: tuple[HeadProbe, ...]


def iti(
    model: nn.Module,
    tokenizer: Any,
    source: PairSource,
    *,
    heads: int | None = None,
    layers: str | Sequence[int] = "all",
    form: str = "plain",
    batch_size: int = 8,
    seed: int = 0,
    model_id: str | None = None,
    revision: str | None = None,
    layout: ModelLayout | None = None,
    progress: Progress | None = None,
    capture: Path | None = None,
) -> ITI:
    """Return the ITI vector of contrast pairs, for the operation ``head_shift`` with the paper's α as multiplier.

    Every head is read at the last token of both answers of every pair. The K heads whose probes are right most often on
    held-out items are chosen (:func:`probe_heads`); slice j of the vector is ``σ_j·θ_j`` (:func:`head_shifts`), zero
    for a head that is not chosen.

    Args:
        model: a causal LM in evaluation mode.
        tokenizer: its tokenizer.
        source: the items, asked without options.
        heads: K; None for 48, or all heads where there are fewer.
        layers: ``all`` that have attention heads, or the layers to choose from.
        form: ``chat`` or ``plain``.
        batch_size: rows of a forward.
        seed: of the split into fit and validation.
        model_id: the model's name for the record.
        revision: the model's revision for the record.
        layout: of the model, when it is known; else it is probed.
        progress: called with sequences done and their number.
        capture: a capture file: read instead of running the pairs, or written.

    Raises:
        ConfigError: an unknown format, or more heads than there are.
        LayerError, SiteError: the model lacks a layer or has no heads there.
        UnsupportedModelError: the layers' heads differ in number or width.
        DataError: fewer than ten items, or an answer is too long.
        NonFiniteError: an activation is NaN or infinite.
        VectorValueError: a chosen head has the same mean in both sets.
        ForeignCacheError: the capture file holds other activations.

    Source: Li et al. 2023, "Inference-Time Intervention: Eliciting Truthful Answers from a Language Model", arXiv
    2306.03341, sections 3.2 (probes) and 3.3 (shift).
    """
    layout = probe_layout(model) if layout is None else layout
    points, count, head_dim = _places(layout, layers)
    k = _k(heads, len(points) * count)
    pairs = text_pairs(source)
    own = fingerprint(model, layout, tokenizer)
    reader = Reader(model, tokenizer, layout, points, check_format(form, tokenizer), batch_size, own, progress)
    held = validation_items(len(pairs.pairs), seed)
    reading = reader.read(source, pairs, "last", capture)
    probes = probe_heads(reading.activations, head_dim, held)
    tensors = head_shifts(reading.activations, probes[:k], head_dim)
    record = Provenance(
        method=METHOD,
        model_id=model_id,
        model_revision=revision,
        fingerprint=own,
        data_sha256=pairs.sha256,
        n_pairs=len(pairs.pairs),
        activation_norms={str(point): reading.norms[point] for point in tensors if point in reading.norms},
        seed=seed,
        licence=pairs.licence,
        versions={**versions(), "scikit-learn": version("scikit-learn")},
        notes={
            "data": pairs.source,
            "norm": "own",
            "position": "last",
            "format": reader.form,
            "dtype": reader.dtype,
            "head_dim": head_dim,
            "heads": [dataclasses.asdict(each) for each in probes[:k]],
            "items_validated": int(held.sum()),
            "items_left_out": len(pairs.left_out),
        },
    )
    return ITI(SteeringVector(f"{pairs.source}-{METHOD}", tensors, record), probes[:k], probes)


def validation_items(n_items: int, seed: int) -> Tensor:
    """Return which items probes are validated on, ``[n_items]`` bool: a seeded fifth; the others are fitted.

    Raises:
        DataError: fewer than ten items.
    """
    if n_items < MIN_ITEMS:
        raise DataError(
            f"{METHOD} fits probes on some items and validates them on others: it needs at least {MIN_ITEMS} items and "
            f"got {n_items}; give more."
        )
    return torch.randperm(n_items, generator=stream(seed, f"{METHOD}/split")) < round(VALIDATION * n_items)


def probe_heads(activations: PairActivations, head_dim: int, held: Tensor) -> tuple[HeadProbe, ...]:
    """Fit a probe on each head and return them, best first.

    A probe is a logistic regression with intercept on the head's slice of the activation as it is,
    ``½‖w‖² + C Σ log(1 + e^(−y(w·z + b)))``, C = 1, y = +1 for the matching answer of a pair and −1 for the other. All
    pairs of an item are on one side of the split. The order is that of validation accuracy; ties, which are many where
    few items are held out, go to the lower validation loss, so that no layer is favoured, then to the lower layer and
    head.

    Args:
        activations: of pairs at ``head_z``.
        head_dim: width of a head.
        held: ``[n_items]`` bool, see :func:`validation_items`.
    """
    validation = held[activations.items].repeat(2).numpy()
    labels = np.repeat([1, 0], len(activations.items))
    both = torch.cat([activations.positive, activations.negative]).double().numpy()
    rows = both.reshape(*both.shape[:2], -1, head_dim)
    probes = [
        HeadProbe(point.layer, head, *_probe(rows[:, number, head], labels, validation))
        for number, point in enumerate(activations.points)
        for head in range(rows.shape[2])
    ]
    return tuple(sorted(probes, key=lambda each: (-each.accuracy, each.loss, each.layer, each.head)))


def head_shifts(activations: PairActivations, chosen: Sequence[HeadProbe], head_dim: int) -> dict[Hookpoint, Tensor]:
    """Return ``σ·θ`` of the chosen heads, zeros elsewhere: hookpoint → ``[n_heads · head_dim]``, float32.

    ``θ = (z̄⁺ − z̄⁻)/‖z̄⁺ − z̄⁻‖``, the mass-mean shift between the matching and the other answers, and σ the standard
    deviation of ``z·θ`` over all answers of both sets (divided by n); fitted and validated items enter alike.

    Args:
        activations: of pairs at ``head_z``.
        chosen: the heads.
        head_dim: width of a head.

    Raises:
        VectorValueError: a head has the same mean in both sets.
    """
    numbers = {point.layer: number for number, point in enumerate(activations.points)}
    tensors: dict[Hookpoint, Tensor] = {}
    for each in sorted(chosen, key=lambda each: (each.layer, each.head)):
        number, columns = numbers[each.layer], slice(each.head * head_dim, (each.head + 1) * head_dim)
        positive, negative = (
            side[:, number, columns].double() for side in (activations.positive, activations.negative)
        )
        shift = positive.mean(dim=0) - negative.mean(dim=0)
        if not bool(shift.any()):
            raise VectorValueError(
                f"head {each.head} of layer {each.layer} has the same mean in both sets, so it has no direction; "
                f"choose fewer heads than {len(chosen)}."
            )
        theta = shift / torch.linalg.vector_norm(shift)
        sigma = (torch.cat([positive, negative]) @ theta).std(correction=0)
        row = tensors.setdefault(activations.points[number], torch.zeros(activations.positive.shape[-1]))
        row[columns] = (sigma * theta).float()
    return tensors


def _probe(rows: np.ndarray, labels: np.ndarray, validation: np.ndarray) -> tuple[float, float]:
    """Return the validation accuracy and loss of a probe on rows ``[2n, head_dim]``."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    probe = LogisticRegression(max_iter=ITERATIONS).fit(rows[~validation], labels[~validation])
    logits, truth = probe.decision_function(rows[validation]), labels[validation] == 1
    losses = np.logaddexp(0.0, np.where(truth, -logits, logits))
    return float(((logits > 0) == truth).mean()), float(losses.mean())


def _places(layout: ModelLayout, layers: str | Sequence[int]) -> tuple[tuple[Hookpoint, ...], int, int]:
    """Return where heads are read, how many a layer has and how wide they are.

    Raises:
        LayerError, SiteError: the model lacks a layer or has no heads there.
        UnsupportedModelError: the layers differ.
    """
    having = [point.layer for point in layout.targets if point.site is Site.HEAD_Z]
    points = hookpoints(layout, having if layers == "all" and having else layers, Site.HEAD_Z)
    shapes = {(layout.target(point).heads, layout.target(point).width) for point in points}
    if len(shapes) > 1:
        told = " and ".join(f"{heads} heads {width // heads} wide" for heads, width in sorted(shapes))
        raise UnsupportedModelError(f"this model's layers have {told}; name layers that are alike.")
    heads, width = shapes.pop()
    return points, heads, width // heads


def _k(heads: int | None, total: int) -> int:
    """Return how many heads to choose.

    Raises:
        ConfigError: more than there are, or none.
    """
    k = min(HEADS, total) if heads is None else heads
    if not 1 <= k <= total:
        raise ConfigError(f"heads {k}: the layers to choose from have {total}; write a number from 1 to {total}.")
    return k
