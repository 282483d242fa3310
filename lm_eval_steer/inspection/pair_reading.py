"""Pair reading: contrast pairs shown to a model as a vector's own file says they were, and what is read of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.extraction import get_method
from lm_eval_steer.extraction.capture import capture
from lm_eval_steer.extraction.pair_source import PairSource
from lm_eval_steer.extraction.pairs import letter_pairs, text_pairs
from lm_eval_steer.extraction.prompts import POSITIONS, Position, Sequenced, check_format, sequences
from lm_eval_steer.handle import SteeringHandle
from lm_eval_steer.hookpoint import Hookpoint
from lm_eval_steer.layout import ModelLayout, input_device
from lm_eval_steer.positions import Batch
from lm_eval_steer.scope import RequestView
from lm_eval_steer.vector import SteeringVector

_BATCH = 8


@dataclass(frozen=True)
class ReadPairs:
    """Both answers of every pair as tokens: the positive ones at even places, the negative ones at odd places.

    Attributes:
        answers: ``2 · n_pairs`` sequences.
        position: which tokens of an answer an extraction reads.
        data_sha256: of what is shown, to compare with a vector's provenance.
    """

    answers: tuple[Sequenced, ...]
    position: Position
    data_sha256: str

    def limited(self, pairs: int) -> ReadPairs:
        """Return the first pairs."""
        return ReadPairs(self.answers[: 2 * pairs], self.position, self.data_sha256)


def read_pairs(source: PairSource, vector: SteeringVector, tokenizer: Any) -> ReadPairs:
    """Return the pairs of ``source`` in the format and at the position that ``vector`` was read from.

    A file that does not say gets text answers, the plain format and the mean over the answer.

    Raises:
        ConfigError: the format is chat and the tokenizer has no template.
        DataError: no pair can be shown that way.
    """
    notes = vector.provenance.notes
    form = check_format(str(notes.get("format", "plain")), tokenizer)
    position = notes.get("position", "answer")
    kind = "letter" if position == "letter" else "text"
    with contextlib.suppress(ConfigError):
        method = get_method(vector.provenance.method)
        kind, position = method.kind, notes.get("position", method.position)
    if position not in POSITIONS:
        raise ConfigError(f"vector {vector.name!r} was read at position {position!r}, which pairs do not have.")
    balance = notes.get("letters_balanced") is not False
    pairs = letter_pairs(source, balance=balance) if kind == "letter" else text_pairs(source)
    answers = [each for pair in pairs.pairs for each in sequences(pair, form, tokenizer, position)]
    return ReadPairs(tuple(answers), position, pairs.sha256)


def differences(model: Any, layout: ModelLayout, pairs: ReadPairs, points: Sequence[Hookpoint]) -> Tensor:
    """Return h(pos) − h(neg) of every pair at every hookpoint, ``[n_pairs, n_points, d_model]``, float32."""
    means = capture(model, layout, pairs.answers, points, batch_size=_BATCH).means
    return means[0::2] - means[1::2]


def margins(model: Any, handle: SteeringHandle | None, pairs: ReadPairs) -> Tensor:
    """Return log p(pos) − log p(neg) of every pair, nats per read token, ``[n_pairs]``, float64.

    Args:
        model: a causal LM.
        handle: what is attached to it; None for nothing.
        pairs: what to score; the read tokens are the ones that count.
    """
    scores: list[float] = []
    for first in range(0, len(pairs.answers), _BATCH):
        scores += _scores(model, handle, pairs.answers[first : first + _BATCH])
    values = torch.tensor(scores, dtype=torch.float64)
    return values[0::2] - values[1::2]


def _scores(model: Any, handle: SteeringHandle | None, answers: Sequence[Sequenced]) -> list[float]:
    lengths = [len(answer.ids) - 1 for answer in answers]
    ids = torch.zeros(len(answers), max(lengths), dtype=torch.long)
    for row, answer in enumerate(answers):
        ids[row, : lengths[row]] = torch.tensor(answer.ids[:-1])
    requests = [RequestView(answer.ids[:-1], max(answer.start, 1), "loglikelihood") for answer in answers]
    with torch.no_grad(), contextlib.ExitStack() as stack:
        if handle is not None:
            batch = Batch(lengths, [0] * len(answers), max(lengths))
            stack.enter_context(handle.forward(batch, [handle.spans(request) for request in requests]))
        logits = model(input_ids=ids.to(input_device(model))).logits
    found = []
    for row, answer in enumerate(answers):
        start = max(answer.start, 1)
        logprobs = torch.log_softmax(logits[row, start - 1 : answer.stop - 1].double(), dim=-1)
        tokens = torch.tensor(answer.ids[start : answer.stop], device=logprobs.device)
        found.append(float(logprobs.gather(1, tokens[:, None]).mean()))
    return found
