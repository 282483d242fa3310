"""Alignment: whether a model's hidden states of an item are nearest to those of the same item in another language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lm_eval_steer.errors import ConfigError, DataError
from lm_eval_steer.extraction.capture import Progress, capture
from lm_eval_steer.extraction.prompts import Sequenced, encode
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layout import ModelLayout
from lm_eval_steer.parallel_rows import languages, read_language
from lm_eval_steer.vector import SteeringVector

Precision = dict[str, dict[str, float]]

_TEXTS = ("question", "scene", "prompt")
_PREFIX = "xl_"


@dataclass(frozen=True)
class Parallel:
    """The same items in several languages.

    Attributes:
        family: its name, without ``xl_``.
        ids: of the items that all languages have.
        texts: language → the text of each item, without options.
        left_out: language → how many of its items are not common.
    """

    family: str
    ids: tuple[str, ...]
    texts: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, int]


def read_parallel(family: str, wanted: Sequence[str] | None = None) -> Parallel:
    """Return the items that a family has in all languages asked for, train and test alike.

    Args:
        family: ``xl_positivity``, or a folder of ``LANGUAGE.jsonl``.
        wanted: languages; None for all that there are.

    Raises:
        ConfigError: under two languages, or one that there is not.
        DataError: a file is malformed, has no text to read, or under two items are common.
    """
    folder = Path(family).expanduser()
    own = folder.is_dir()
    name, place = (folder.resolve().name, folder.resolve().parent) if own else (family.removeprefix(_PREFIX), None)
    tags = list(languages(name, place) if wanted is None else dict.fromkeys(wanted))
    if len(tags) < 2:
        raise ConfigError(f"family {family!r} with languages {', '.join(tags) or 'none'}: alignment needs two or more.")
    rows = {tag: {str(row["id"]): _text(row, tag) for row in read_language(name, tag, place).raw} for tag in tags}
    ids = [key for key in rows[tags[0]] if all(key in each for each in rows.values())]
    if len(ids) < 2:
        raise DataError(f"family {family!r}: {len(ids)} items are in all of {', '.join(tags)}; alignment needs two.")
    texts = {tag: tuple(each[key] for key in ids) for tag, each in rows.items()}
    return Parallel(name, tuple(ids), texts, {tag: len(each) - len(ids) for tag, each in rows.items()})


def hidden_states(
    model: nn.Module,
    tokenizer: Any,
    layout: ModelLayout,
    texts: Mapping[str, Sequence[str]],
    layers: Sequence[int],
    *,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Return language → mean over tokens of the residual stream behind each layer, ``[items, layers, d_model]``.

    The first token, the attention sink, is left out of the mean.

    Raises:
        DataError: a text has one token, or more than the model takes.
    """
    flat = [(tag, number, text) for tag, own in texts.items() for number, text in enumerate(own)]
    points = [Hookpoint(Site.BLOCK_OUT, layer) for layer in layers]
    sequences = []
    for tag, number, text in flat:
        ids = encode(tokenizer, text)
        sequences.append(Sequenced(ids, 0, len(ids), f"{tag}, item {number}"))
    captured = capture(model, layout, sequences, points, batch_size=batch_size, progress=progress)
    means = torch.split(captured.means, [len(own) for own in texts.values()])
    return dict(zip(texts, means, strict=True))


def precision(states: Mapping[str, Tensor]) -> Precision:
    """Return language → other language → share of items whose nearest item in the other language is the same one.

    ``h̃_l,i = h_l,i − mean_i h_l,i``; the nearest is that of the largest cosine. A tie is no find. Chance is
    one over the number of items.

    Args:
        states: language → ``[items, d_model]`` of one layer.

    Source: Artetxe and Schwenk 2019, "Massively Multilingual Sentence Embeddings" (similarity search); the mean of each
    language is taken out as in Libovický et al. 2020, "On the Language Neutrality of Pre-trained Representations".
    """
    unit = {}
    for tag, rows in states.items():
        centred = rows.double() - rows.double().mean(0)
        unit[tag] = centred / torch.linalg.vector_norm(centred, dim=1, keepdim=True).clamp_min(1e-300)
    return {a: {b: precision_at_1(unit[a] @ unit[b].T) for b in states if b != a} for a in states}


def precision_at_1(likeness: Tensor) -> float:
    """Return the share of rows ``[items, items]`` whose own column is larger than every other one."""
    own = likeness.diagonal()
    others = likeness.masked_fill(torch.eye(len(likeness), dtype=torch.bool), -torch.inf).max(1).values
    return float((own > others).double().mean())


def vector_cosines(vectors: Sequence[SteeringVector]) -> list[dict[str, Any]]:
    """Return the cosine of every two vectors at every layer that both have, in float64.

    Raises:
        ConfigError: a vector has several rows a layer, or two have different widths.
    """
    found = []
    for number, a in enumerate(vectors):
        for b in vectors[number + 1 :]:
            for point in sorted(set(a.tensors) & set(b.tensors)):
                one, two = a.tensors[point].double(), b.tensors[point].double()
                if one.ndim != 1 or one.shape != two.shape:
                    raise ConfigError(
                        f"--vectors: {a.name!r} and {b.name!r} are no single rows of one width at {point}."
                    )
                cosine = float(torch.nn.functional.cosine_similarity(one, two, dim=0))
                names = {"a": a.id, "b": b.id, "a_name": a.name, "b_name": b.name}
                found.append({"layer": point.layer, "site": point.site.value, **names, "cosine": cosine})
    return found


def _text(row: Mapping[str, Any], tag: str) -> str:
    for name in _TEXTS:
        text = row.get(name)
        if isinstance(text, str) and text.strip():
            return text.strip()
    raise DataError(f"{tag}.jsonl, id {row.get('id')!r}: no text under {', '.join(_TEXTS)}.")
