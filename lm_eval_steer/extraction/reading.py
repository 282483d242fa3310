"""Reading: what an extraction reads of a model, once, for all estimators that read the same positions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lm_eval_steer.errors import DataError
from lm_eval_steer.extraction.base import PairActivations, Reading, item_numbers
from lm_eval_steer.extraction.capture import Progress, capture
from lm_eval_steer.extraction.capture_file import load_reading, save_reading
from lm_eval_steer.extraction.controls import letter_direction
from lm_eval_steer.extraction.pair_source import PairSource
from lm_eval_steer.extraction.pairs import PairSet, letter_pairs
from lm_eval_steer.extraction.prompts import Format, Position, Sequenced, sequences
from lm_eval_steer.extraction.yes import yes_sign
from lm_eval_steer.files import content_id
from lm_eval_steer.hookpoint import Hookpoint
from lm_eval_steer.layout import ModelLayout
from lm_eval_steer.vector import Fingerprint

# The "say A" direction is strong (norm 97 beside 2 to 4 of a behaviour's on SmolLM2-135M), so few items tell it.
LETTER_ITEMS = 20


@dataclass(frozen=True)
class Reader:
    """A model ready to be read at some hookpoints."""

    model: nn.Module
    tokenizer: Any
    layout: ModelLayout
    points: tuple[Hookpoint, ...]
    form: Format
    batch_size: int
    fingerprint: Fingerprint
    progress: Progress | None = None

    @property
    def dtype(self) -> str:
        """Name of the model's dtype."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    def read(self, source: PairSource, pairs: PairSet, position: Position, file: Path | None = None) -> Reading:
        """Return the reading of ``pairs``, from ``file`` where it holds just that.

        Args:
            source: where the pairs come from; its first items, with letters, give the "say A" direction of text pairs.
            pairs: what is shown.
            position: which tokens of an answer are read.
            file: a capture file; one that is not there is written.

        Raises:
            ForeignCacheError: the file holds a reading of another model, other pairs, tokens, positions or layers.
            DataError: an answer is too long, or has no token to read.
            NonFiniteError: an activation is NaN or infinite.
        """
        tokens = self._sequences(pairs, position)
        shown = _shown(source, pairs)
        letters = None if shown is None else self._sequences(shown, "letter")
        facts = self._facts(pairs, position, tokens, letters)
        if file is not None and file.exists():
            return load_reading(file, facts, self.points)
        norms, activations = self._run(pairs, tokens)
        if pairs.kind == "letter":
            letter: Tensor | None = letter_direction(activations)
        else:
            letter = None if shown is None or letters is None else letter_direction(self._run(shown, letters)[1])
        reading = Reading(activations, norms, letter)
        if file is not None:
            save_reading(file, reading, facts)
        return reading

    def _sequences(self, pairs: PairSet, position: Position) -> list[Sequenced]:
        both = [sequences(pair, self.form, self.tokenizer, position) for pair in pairs.pairs]
        return [sequence for pair in both for sequence in pair]

    def _facts(
        self, pairs: PairSet, position: Position, tokens: Sequence[Sequenced], letters: Sequence[Sequenced] | None
    ) -> dict[str, Any]:
        """Return what decides a reading: the model, and every token that it is shown with the positions read."""
        return {
            "model": dataclasses.asdict(self.fingerprint),
            "dtype": self.dtype,
            "site": self.points[0].site.value,
            "format": self.form,
            "position": position,
            "pairs": content_id([pairs.sha256, [pair.item for pair in pairs.pairs], _ids(tokens)]),
            "letters": None if letters is None else content_id(_ids(letters)),
        }

    def _run(self, pairs: PairSet, tokens: Sequence[Sequenced]) -> tuple[Mapping[Hookpoint, float], PairActivations]:
        """Return the mean norms and the activations of both answers of every pair."""
        captured = capture(
            self.model, self.layout, tokens, self.points, batch_size=self.batch_size, progress=self.progress
        )
        firsts = [pair.matching_first for pair in pairs.pairs]
        first = None if None in firsts else torch.tensor([1.0 if each else -1.0 for each in firsts])
        items = item_numbers([pair.item for pair in pairs.pairs])
        yes = torch.tensor([yes_sign(pair) for pair in pairs.pairs])
        positive, negative = captured.means[0::2], captured.means[1::2]
        return captured.norms, PairActivations(self.points, positive, negative, items, first, yes)


def _shown(source: PairSource, pairs: PairSet) -> PairSet | None:
    """Return the first items with their options, in both orders, for text pairs; None where that cannot be."""
    if pairs.kind == "letter":
        return None
    try:
        return letter_pairs(source.limited(LETTER_ITEMS))
    except DataError:
        return None


def _ids(tokens: Sequence[Sequenced]) -> list[list[Any]]:
    return [[list(each.ids), each.start, each.stop] for each in tokens]
