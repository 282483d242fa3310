"""Shared generation: greedy texts of many plans decoded together, a row a (request, cell).

The prompt before the first edited column is run once, unsteered, and its keys and values are handed to every cell;
from there on each row is a text of its own, decoded by the model's own ``generate``.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import Tensor

from lm_eval_steer.errors import NonFiniteError
from lm_eval_steer.handle import generation_requests
from lm_eval_steer.positions import Batch
from lm_eval_steer.scope import Span
from lm_eval_steer.sweep.alone import steered_as
from lm_eval_steer.sweep.bundle import make_bundles
from lm_eval_steer.sweep.choice import Chosen
from lm_eval_steer.sweep.growing_cache import leave_room
from lm_eval_steer.sweep.resume import reading_rows
from lm_eval_steer.sweep.row_edits import editing_rows
from lm_eval_steer.sweep.work import Arrays

if TYPE_CHECKING:
    from lm_eval_steer.sweep.engine import SweepLM
    from lm_eval_steer.sweep.scorer import Scorer

_ROWS = {"cpu": 64}
_GPU_ROWS = 512
_LEAST_CELLS = 8
_CHECKED_TOKENS = 6


@dataclass(frozen=True)
class Prompts:
    """Left-padded prompts.

    Attributes:
        ids: ``[requests, columns]``.
        mask: ``[requests, columns]``, 1 for real tokens.
    """

    ids: Tensor
    mask: Tensor

    def repeated(self, n: int) -> Prompts:
        """Return every prompt ``n`` times, one after the other."""
        return Prompts(self.ids.repeat_interleave(n, 0), self.mask.repeat_interleave(n, 0))

    def some(self, rows: list[int]) -> Prompts:
        """Return some of them."""
        return Prompts(self.ids[rows], self.mask[rows])


@dataclass(frozen=True)
class Decoder:
    """lm-eval's way of generating.

    Attributes:
        generate: from prompts, ``columns=`` (at most), and options of the model's ``generate``.
        columns: the most columns that a row can have.
        stopping: from prompt columns and rows to a function that is shown the rows after every new column, and says
            whether all of them have met a stop string.
    """

    generate: Callable[..., Tensor]
    columns: int
    stopping: Callable[[int, int], Callable[[Tensor], bool]]


def can_share(options: Mapping[str, Any]) -> bool:
    """Say whether a generation is greedy and plain, so that a row's text does not depend on the other rows."""
    plain = {"do_sample": (False, None), "temperature": (0, None), "num_beams": (1, None), "use_cache": (True, None)}
    return all(options[key] in plain.get(key, ()) for key in options)


class SharedGeneration:
    """Generates under many plans at once.

    Attributes:
        chosen: how: ``tree`` (the prompt's prefix is shared), ``rows`` or ``plain``; None before the first.
    """

    def __init__(self, lm: SweepLM, scorer: Scorer) -> None:
        self._lm, self._scorer = lm, scorer
        self._model: Any = lm.model
        self.chosen: Chosen | None = None

    @torch.no_grad()
    def run(self, cells: Sequence[int], prompts: Prompts, decoder: Decoder) -> Arrays:
        """Return ``tokens``, ``[cells, requests, columns]``, the prompts' included, and ``length``, ``[cells]``.

        A length of 0 marks a cell whose logits are no numbers. Also ``scoped_tokens`` and ``touched``, as
        :meth:`Scorer.counts` returns them.

        Args:
            cells: one cell, or several that the shared path can take.
            prompts: left-padded.
            decoder: lm-eval's generation.
        """
        texts = [self._alone(cells[0], prompts, decoder)] if len(cells) == 1 else []
        if len(cells) > 1:
            if self.chosen is None:
                self.chosen = self._choose(cells, prompts, decoder)
            if self.chosen.path == "plain":
                texts = [self._alone(cell, prompts, decoder) for cell in cells]
            else:
                texts = self._together(cells, prompts, decoder, self.chosen.path)
        longest = max(int(text.shape[1]) for text in texts)
        tokens = np.zeros((len(cells), prompts.ids.shape[0], longest), dtype=np.int64)
        for number, text in enumerate(texts):
            tokens[number, :, : text.shape[1]] = text.cpu().numpy()
        lengths = np.array([text.shape[1] for text in texts])
        counts = self._scorer.counts(cells, generation_requests(prompts.ids, prompts.mask))
        return {"tokens": tokens, "length": lengths, **counts}

    def _alone(self, cell: int, prompts: Prompts, decoder: Decoder) -> Tensor:
        """Return one cell's tokens by the plain path; no columns where its logits are no numbers."""
        try:
            with steered_as(self._lm, cell):
                return decoder.generate(prompts)
        except NonFiniteError:
            return prompts.ids[:, :0]

    def _together(self, cells: Sequence[int], prompts: Prompts, decoder: Decoder, path: str) -> list[Tensor]:
        rows = _ROWS.get(prompts.ids.device.type, _GPU_ROWS)
        size = max(_LEAST_CELLS, rows // int(prompts.ids.shape[0]))
        requests = generation_requests(prompts.ids, prompts.mask)
        width = int(prompts.ids.shape[1])
        offsets = [width - len(request.tokens) for request in requests]
        batch = Batch([len(request.tokens) for request in requests], offsets, width, grows=True)
        spans = {cell: [self._scorer.handles[cell].spans(request) for request in requests] for cell in cells}
        starts = [s.start + o for cell in cells for row, o in zip(spans[cell], offsets, strict=True) for s in row]
        prefix = self._prefix(prompts, min([*starts, width - 1])) if path == "tree" else None
        texts: list[Tensor] = []
        for at in range(0, len(cells), size):
            texts += self._chunk(cells[at : at + size], prompts, batch, spans, prefix, decoder)
        return texts

    def _chunk(
        self,
        cells: Sequence[int],
        prompts: Prompts,
        batch: Batch,
        spans: Mapping[int, Sequence[Sequence[Span]]],
        prefix: Any,
        decoder: Decoder,
    ) -> list[Tensor]:
        n, broken = len(cells), _Broken()
        options: dict[str, Any] = {"logits_processor": transformers.LogitsProcessorList([broken])}
        if prefix is not None:
            options["past_key_values"] = copy.deepcopy(prefix)
            options["past_key_values"].batch_repeat_interleave(n)
            leave_room(options["past_key_values"], decoder.columns)
        with editing_rows(self._lm.steering.layout, make_bundles(self._lm.plans, cells), list(cells), batch, spans):
            found = decoder.generate(prompts.repeated(n), **options)
        rows = found.reshape(batch.rows, n, -1)
        return [
            # A row that broke may have done so after its text's end, which only the plain path can tell.
            self._alone(cell, prompts, decoder) if broken.of(m, n) else self._cut(rows[:, m], batch.width, decoder)
            for m, cell in enumerate(cells)
        ]

    def _cut(self, tokens: Tensor, prompt: int, decoder: Decoder) -> Tensor:
        """Cut what ``generate`` appended to a cell's rows ``[requests, columns]`` while other cells were speaking."""
        end = self._model.generation_config.eos_token_id
        ends = torch.tensor([end] if isinstance(end, int) else list(end or []), device=tokens.device)
        ended = (torch.isin(tokens[:, prompt:], ends).cumsum(-1) > 0).all(0)
        stopped = decoder.stopping(prompt, int(tokens.shape[0]))
        for column in range(prompt, int(tokens.shape[1])):
            if stopped(tokens[:, : column + 1]) or ended[column - prompt]:
                return tokens[:, : column + 1]
        return tokens

    def _prefix(self, prompts: Prompts, columns: int) -> Any:
        """Return the cache of the first ``columns`` columns, unsteered; None where there are none."""
        if columns < 1:
            return None
        cache = transformers.DynamicCache(config=self._model.config.get_text_config(decoder=True))
        options: dict[str, Any] = {
            "attention_mask": prompts.mask[:, :columns],
            "past_key_values": cache,
            "use_cache": True,
        }
        if "position_ids" in inspect.signature(self._model.forward).parameters:
            options["position_ids"] = (prompts.mask[:, :columns].cumsum(-1) - 1).clamp(min=0)
        with reading_rows(self._model.get_output_embeddings(), torch.zeros(1, dtype=torch.long)):
            self._model(input_ids=prompts.ids[:, :columns], **options)
        return cache

    def _choose(self, cells: Sequence[int], prompts: Prompts, decoder: Decoder) -> Chosen:
        """Compare the first tokens of a few cells and requests with the plain path's."""
        some = sorted({cells[0], cells[len(cells) // 2], cells[-1]})
        rows = sorted({0, int(prompts.ids.shape[0]) - 1})
        prompts = prompts.some(rows)
        columns = int(prompts.ids.shape[1]) + _CHECKED_TOKENS
        short = Decoder(functools.partial(decoder.generate, columns=columns), columns, decoder.stopping)
        expected = [self._alone(cell, prompts, short) for cell in some]
        half = self._model.dtype in (torch.float16, torch.bfloat16)
        reasons = []
        for path in ("tree", "rows"):
            try:
                found = self._together(some, prompts, short, path)
            except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
                reasons.append(f"generation {path}: {type(error).__name__}")
                continue
            equal = [_same(a, b) for a, b in zip(found, expected, strict=True)]
            if all(equal) or (half and sum(equal) * 2 >= len(equal)):
                return Chosen(path, "; ".join(reasons), 0.0)
            reasons.append(f"generation {path}: other tokens than the plain path's")
        return Chosen("plain", "; ".join(reasons), 0.0)


class _Broken(transformers.LogitsProcessor):  # type: ignore[misc]
    """Notes rows whose logits are no numbers, and lets the others go on."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        top = scores.amax(-1)  # NaN where any is
        bad = torch.isnan(top) | torch.isposinf(top)
        self._rows = bad if self._rows is None else self._rows | bad
        return torch.where(bad[:, None], torch.zeros_like(scores), scores) if bool(bad.any()) else scores

    def of(self, cell: int, cells: int) -> bool:
        """Whether a row of a cell broke; rows are ``[requests, cells]``."""
        return self._rows is not None and bool(self._rows.reshape(-1, cells)[:, cell].any())


def _same(one: Tensor, other: Tensor) -> bool:
    n = min(one.shape[1], other.shape[1])
    return bool((one[:, :n] == other[:, :n]).all()) and bool(n)
