"""Shared scoring: the log-probabilities of many plans on the same requests, computing what they share once.

One unsteered forward of each batch of items (see ``trunk.py``) leaves the keys and values of the prefix before the
first edited column, and the hidden states that enter each edited layer. Every cell then resumes at its lowest edited
layer:

* ``tree``: only the columns from the first edited one on. All cells of an item stand behind each other on the query
  axis and see the prefix through a mask; options of an item branch off their context. Where the first token is
  edited there is no prefix, and each (item, cell) is a row of its own;
* ``rows``: whole requests, a row a cell and request, no masks; exact for every architecture, recurrent ones included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lm_eval_steer.divergence import float_log_probs, kl_sum
from lm_eval_steer.hooks import edit_site
from lm_eval_steer.layout import ModelLayout, input_device, text_config
from lm_eval_steer.scope import Span
from lm_eval_steer.sweep.budget import Budget
from lm_eval_steer.sweep.bundle import Bundle, StackedEdit
from lm_eval_steer.sweep.item import Item
from lm_eval_steer.sweep.resume import block_arity, computing_rows, entering, last_mlp, reading_rows
from lm_eval_steer.sweep.slots import Slots, edited
from lm_eval_steer.sweep.trunk import Trunk, run_trunk

Path = Literal["tree", "rows"]
#: The positions that a placement edits, by item and group in it.
Spans = Sequence[Sequence[Span]]


_WINDOWS = ("sliding_window", "attention_window_size", "window_size", "attention_chunk_size")


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of one group's answer positions under one cell.

    Attributes:
        log_probs: ``[answer_len, n_members]``, in nats: of each member's own answer tokens.
        greedy: ``[answer_len, n_members]``, whether that token is the likeliest.
        kl: sum over these positions of KL(unsteered ‖ steered), nats; NaN where nobody wants it.
    """

    log_probs: Tensor
    greedy: Tensor
    kl: float = math.nan


@dataclass(frozen=True)
class Part:
    """What one forward computed.

    Attributes:
        cells: their numbers; 0 is the unsteered one.
        scores: by cell, then by group in the order of the items.
        moved: ``[cells, placements, 3]``: sums over edited positions of ‖h′−h‖ and ‖h‖, and their number.
    """

    cells: tuple[int, ...]
    scores: list[list[Scores]]
    moved: Tensor


Answers = Sequence[Sequence[Sequence[Sequence[int]]]]


class SharedForward:
    """A model that scores many plans on the same requests.

    Attributes:
        layout: of the model.
        token_layers: how many (token, block) pairs were run above the shared trunk, for tests and reports.
    """

    def __init__(self, model: nn.Module, layout: ModelLayout, softmax_dtype: torch.dtype | None = None) -> None:
        self.layout = layout
        self.token_layers = 0
        self._model = model
        self._softmax_dtype = softmax_dtype
        head: Any = model.get_output_embeddings  # mypy takes unknown attributes of a module for tensors
        self._head: nn.Module = head()
        self._device = input_device(model)
        self._budget = Budget.of(self._head, model, self._device)
        ids = torch.tensor([[5, 6, 7]], device=self._device)
        self._arity = block_arity(layout, lambda: model(input_ids=ids))
        self._mlp = last_mlp(layout, lambda: model(input_ids=ids).logits)

    def can_mask(self, longest: int) -> bool:
        """Say whether masks are possible: an attention that takes float masks, and no window shorter than a request.

        Args:
            longest: input tokens of the longest request.
        """
        config = text_config(self._model)
        attention = getattr(config, "_attn_implementation", None)
        windows = [getattr(config, name, None) for name in _WINDOWS]
        short = any(isinstance(window, int) and 0 < window <= longest for window in windows)
        return attention in ("sdpa", "eager") and not short

    @torch.no_grad()
    def score(
        self,
        items: Sequence[Item],
        answers: Answers,
        bundles: Sequence[Bundle],
        places: Sequence[Sequence[Spans]],
        path: Path,
    ) -> Iterator[Part]:
        """Score a batch of items: the unsteered model first, where it can be had here, then the cells.

        Args:
            items: rows of requests; of one group each on the path ``rows``.
            answers: for each item, group and member the answer's tokens.
            bundles: the cells.
            places: for each bundle and placement the spans, item by item and group by group.
            path: ``tree`` or ``rows``.

        Yields:
            Parts, as they are computed.
        """
        first = [_first_column(item, i, places) for i, item in enumerate(items)]
        if path == "rows" or min(first) < 1:
            first = [0] * len(items)
        layers = {bundle.entry for bundle in bundles}
        trunk = run_trunk(self._model, self.layout, self._head, items, layers, first=first, device=self._device)
        if trunk.logits is not None:
            yield Part((0,), self._scores(trunk.logits, items, answers, 1, None), torch.zeros(1, 0, 3))
        for bundle, spans in zip(bundles, places, strict=True):
            one = Slots(tuple(items), tuple(first), 1, tree=trunk.cache is not None)
            for part in bundle.split(self._budget.cells(one, int(trunk.ids.shape[1]))):
                slots = dataclasses.replace(one, cells=len(part.cells))
                yield self._resume(part, spans, answers, slots, trunk)

    def _resume(self, part: Bundle, spans: Sequence[Spans], answers: Answers, slots: Slots, trunk: Trunk) -> Part:
        """Run the blocks from the lowest edited one on, for the cells of one bundle."""
        reads = slots.places([item.reads() for item in slots.items])[0]
        hidden = _entry_states(trunk.inputs[part.entry], slots)
        self.token_layers += slots.rows * slots.columns * (self.layout.n_layers - part.entry)
        edits = [StackedEdit([plan.placements[n] for plan in part.plans]) for n in range(len(spans))]
        with contextlib.ExitStack() as stack:
            for edit, of_items in zip(edits, spans, strict=True):
                stack.callback(self._install(edit, of_items, slots).remove)
            stack.enter_context(entering(self.layout, part.entry, hidden, self._arity))
            stack.enter_context(reading_rows(self._head, reads))
            if self._mlp is not None and self._few(reads, edits, slots):
                stack.enter_context(computing_rows(self._mlp, reads))
            logits = self._model(
                input_ids=slots.token_ids().to(self._device), **self._options(slots, trunk, hidden.dtype)
            ).logits[0]
        moved = torch.stack([edit.moved for edit in edits], dim=1)
        return Part(part.cells, self._scores(logits, slots.items, answers, slots.cells, trunk.logits), moved)

    def _few(self, reads: Tensor, edits: Sequence[StackedEdit], slots: Slots) -> bool:
        """Whether what leaves the last block counts at a few of its positions only: nobody edits it, few are read."""
        last = any(edit.target.layer == self.layout.n_layers - 1 for edit in edits)
        return not last and 2 * reads.numel() < slots.rows * slots.columns

    def _options(self, slots: Slots, trunk: Trunk, dtype: torch.dtype) -> dict[str, Any]:
        if trunk.cache is None and all(len(item.groups) == 1 for item in slots.items):
            return {}
        keys = 0 if trunk.cache is None else max(slots.first)
        options: dict[str, Any] = {
            "attention_mask": slots.mask(keys, dtype).to(self._device),
            "position_ids": slots.position_ids().to(self._device),
        }
        return options if trunk.cache is None else {**options, "past_key_values": trunk.cache, "use_cache": True}

    def _install(self, edit: StackedEdit, spans: Spans, slots: Slots) -> Any:
        found = [edited(item, own) for item, own in zip(slots.items, spans, strict=True)]
        index, cell = slots.places([columns for columns, _ in found])
        row = torch.cat([torch.tensor(rows, dtype=torch.long).repeat(slots.cells) for _, rows in found])

        def apply(hidden: Tensor) -> Tensor:
            return edit.apply(hidden, index, cell, row) if index.numel() else hidden

        return edit_site(self.layout, edit.target, apply, prepend=False)

    def _scores(
        self, logits: Tensor, items: Sequence[Item], answers: Answers, cells: int, base: Tensor | None
    ) -> list[list[Scores]]:
        """Return scores by cell and group from logits in the order of :meth:`Slots.places`.

        Args:
            logits: ``[n, vocabulary]`` at the items' reads, of all cells.
            items: the rows.
            answers: for each item, group and member the answer's tokens.
            cells: how many.
            base: the same logits of the unsteered model; None without KL.
        """
        log_probs = torch.log_softmax(logits, dim=-1, dtype=self._softmax_dtype)
        best = log_probs.argmax(dim=-1)
        result: list[list[Scores]] = [[] for _ in range(cells)]
        at, base_at = 0, 0
        for item, of_item in zip(items, answers, strict=True):
            wanted = [torch.tensor(members, device=log_probs.device).T for members in of_item]
            reads = sum(group.answer_len for group in item.groups)
            own_base = None
            if base is not None and any(group.measured for group in item.groups):
                own_base = float_log_probs(base[base_at : base_at + reads])
            base_at += reads
            for cell in range(cells):
                own_at = 0
                for group, tokens in zip(item.groups, wanted, strict=True):
                    part, own = slice(at, at + group.answer_len), slice(own_at, own_at + group.answer_len)
                    found = log_probs[part].gather(1, tokens).cpu(), (best[part][:, None] == tokens).cpu()
                    kl = math.nan
                    if own_base is not None and group.measured:
                        kl = kl_sum(own_base[own], _as_float(log_probs[part], logits[part]))
                    result[cell].append(Scores(*found, kl))
                    at, own_at = part.stop, own.stop
        return result


def _as_float(log_probs: Tensor, logits: Tensor) -> Tensor:
    """Return log-probabilities in float32: those that there are, or anew from the logits where they are coarser."""
    return log_probs if log_probs.dtype == torch.float32 else float_log_probs(logits)


def _first_column(item: Item, number: int, places: Sequence[Sequence[Spans]]) -> int:
    """Return the first column that some cell edits, at most the one that predicts the answers."""
    starts = [span.start for bundle in places for spans in bundle for span in spans[number]]
    return min([*starts, item.context_len - 1])


def _entry_states(inputs: Tensor, slots: Slots) -> Tensor:
    """Return the hidden states ``[rows, columns, d_model]`` that enter the bundle's first edited block."""
    if not slots.tree:
        return inputs.reshape(len(slots.items), -1, inputs.shape[-1]).repeat_interleave(slots.cells, 0)
    lengths = [len(item.tokens) - start for item, start in zip(slots.items, slots.first, strict=True)]
    states = torch.nn.utils.rnn.pad_sequence(list(torch.split(inputs, lengths)), batch_first=True)
    return states.repeat(1, slots.cells, 1)


def collect_kl(row: Sequence[Scores]) -> list[float]:
    """Return the KL of every member, group after group; members of a group share their positions."""
    return [scores.kl for scores in row for _ in range(scores.log_probs.shape[1])]


def collect(row: Sequence[Scores]) -> tuple[list[float], list[bool]]:
    """Return the summed log-probability and greediness of every member, group after group.

    Each sum is over a vector of its own, as in lm-eval, so that it is the same to the last bit.
    """
    values = [float(column.sum()) for scores in row for column in scores.log_probs.T.contiguous()]
    best = [found for scores in row for found in scores.greedy.all(0).tolist()]
    return values, best
