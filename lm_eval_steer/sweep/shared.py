"""Shared scoring: the log-probabilities of many plans on the same requests, computing what they share once.

One unsteered forward of each batch of requests gives the unsteered scores, the keys and values of the prefix before
the first edited position, and the hidden states that enter each edited layer. Every cell then resumes at its lowest
edited layer:

* ``tree``: only the positions from the first edited one on, all cells of a request behind each other on the query
  axis, the prefix's keys and values shared through a mask;
* ``rows``: whole requests, a row a cell; exact for every architecture, recurrent ones included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lm_eval_steer.hookpoint import Site
from lm_eval_steer.layout import ModelLayout, block_input, first_tensor, input_device, text_config
from lm_eval_steer.scope import Span
from lm_eval_steer.scored_rows import Group
from lm_eval_steer.sweep.bundle import Bundle, StackedEdit
from lm_eval_steer.sweep.prefix_cache import PrefixCache
from lm_eval_steer.sweep.resume import block_arity, capturing_inputs, entering, reading_rows
from lm_eval_steer.sweep.slots import Slots, edited, read_positions, row_slots, tree_slots

Path = Literal["tree", "rows"]

TREE_QUERIES = 256
ROW_TOKENS = 4096


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of one group's answer positions under one cell.

    Attributes:
        log_probs: ``[answer_len, n_members]``, in nats: of each member's own answer tokens.
        greedy: ``[answer_len, n_members]``, whether that token is the likeliest.
    """

    log_probs: Tensor
    greedy: Tensor


Answers = Sequence[Sequence[Sequence[int]]]


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
        ids = torch.tensor([[5, 6, 7]], device=self._device)
        self._arity = block_arity(layout, lambda: model(input_ids=ids))

    def can_tree(self, groups: Sequence[Group]) -> bool:
        """Say whether a tree is possible: an attention that takes float masks, and no window shorter than a request."""
        config = text_config(self._model)
        attention = getattr(config, "_attn_implementation", None)
        windows = [getattr(config, name, None) for name in ("sliding_window", "attention_window_size", "window_size")]
        longest = max(len(group.view.tokens) for group in groups)
        short = any(isinstance(window, int) and 0 < window <= longest for window in windows)
        return attention in ("sdpa", "eager") and not short

    @torch.no_grad()
    def score(
        self,
        groups: Sequence[Group],
        answers: Answers,
        bundles: Sequence[Bundle],
        spans: Sequence[Sequence[Sequence[Span]]],
        path: Path,
    ) -> tuple[list[Scores], Iterator[tuple[Bundle, list[list[Scores]]]]]:
        """Score a batch of groups: the unsteered model at once, the cells as they are asked for.

        Args:
            groups: a batch of requests.
            answers: for each group and member the answer's tokens.
            bundles: the cells.
            spans: for each bundle, placement and group, the positions edited.
            path: ``tree`` or ``rows``.

        Returns:
            The unsteered scores of each group, and an iterator over (bundle, scores by cell and group).
        """
        first = [
            min((span[g].start for bundle in spans for span in bundle), default=len(group.view.tokens))
            for g, group in enumerate(groups)
        ]
        if path == "rows" or min(first) < 1:
            path, first = "rows", [0] * len(groups)
        trunk = self._trunk(groups, first, {bundle.entry for bundle in bundles}, path)
        unsteered = self._scores(trunk.logits, groups, answers, 1)[0]
        return unsteered, self._bundles(groups, answers, bundles, spans, first, trunk, path)

    def _bundles(
        self,
        groups: Sequence[Group],
        answers: Answers,
        bundles: Sequence[Bundle],
        spans: Sequence[Sequence[Sequence[Span]]],
        first: Sequence[int],
        trunk: _Trunk,
        path: Path,
    ) -> Iterator[tuple[Bundle, list[list[Scores]]]]:
        width = max(len(group.view.tokens) - start for group, start in zip(groups, first, strict=True))
        fit = TREE_QUERIES // width if path == "tree" else ROW_TOKENS // (width * len(groups))
        for bundle, places in zip(bundles, spans, strict=True):
            for part in bundle.split(max(1, fit)):
                cells = len(part.cells)
                slots = tree_slots(groups, first, cells) if path == "tree" else row_slots(groups, cells)
                with torch.no_grad():
                    logits = self._resume(groups, part, places, slots, trunk, path)
                    yield part, self._scores(logits, groups, answers, cells)

    def _trunk(self, groups: Sequence[Group], first: Sequence[int], layers: set[int], path: Path) -> _Trunk:
        """Run the unsteered model once and keep what the cells need of it."""
        ids = _padded([group.view.tokens for group in groups]).to(self._device)
        width = ids.shape[1]
        reads = row_slots(groups, 1).positions(read_positions(groups))[0]
        keep = torch.cat(
            [torch.arange(start, width) + i * width for i, start in enumerate(first)]
            if path == "rows"
            else [
                torch.arange(s, len(g.view.tokens)) + i * width
                for i, (s, g) in enumerate(zip(first, groups, strict=True))
            ]
        )
        cache = PrefixCache() if path == "tree" else None
        options = {"past_key_values": cache, "use_cache": True} if cache is not None else {}
        with reading_rows(self._head, reads), capturing_inputs(self.layout, layers, keep) as inputs:
            logits = self._model(input_ids=ids, **options).logits[0]
        return _Trunk(ids, cache, inputs, logits)

    def _resume(
        self,
        groups: Sequence[Group],
        part: Bundle,
        places: Sequence[Sequence[Span]],
        slots: Slots,
        trunk: _Trunk,
        path: Path,
    ) -> Tensor:
        """Return the logits ``[n, vocabulary]`` of one bundle at the read positions."""
        hidden = self._entry_states(groups, part, slots, trunk, path)
        reads = slots.positions(read_positions(groups))[0]
        if path == "tree":
            ids = torch.zeros(slots.rows, slots.columns, dtype=torch.long, device=self._device)
            mask, positions = _tree_mask(groups, slots, trunk.ids.shape[1], hidden.dtype)
            options = {
                "attention_mask": mask.to(self._device),
                "position_ids": positions.to(self._device),
                "past_key_values": trunk.cache,
                "use_cache": True,
            }
        else:
            ids, options = trunk.ids.repeat_interleave(slots.cells, 0), {}
        self.token_layers += slots.rows * slots.columns * (self.layout.n_layers - part.entry)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_editing(self.layout, part, places, groups, slots))
            stack.enter_context(entering(self.layout, part.entry, hidden, self._arity))
            stack.enter_context(reading_rows(self._head, reads))
            logits: Tensor = self._model(input_ids=ids, **options).logits[0]
        return logits

    def _entry_states(self, groups: Sequence[Group], part: Bundle, slots: Slots, trunk: _Trunk, path: Path) -> Tensor:
        """Return the hidden states ``[rows, columns, d_model]`` that enter the bundle's first edited block."""
        kept = trunk.inputs[part.entry]
        d_model = kept.shape[-1]
        if path == "rows":
            return kept.reshape(len(groups), slots.columns, d_model).repeat_interleave(slots.cells, 0)
        states = kept.new_zeros(len(groups), slots.stride, d_model)
        at = 0
        for i, (group, start) in enumerate(zip(groups, slots.first, strict=True)):
            n = len(group.view.tokens) - start
            states[i, :n] = kept[at : at + n]
            at += n
        return states.repeat(1, slots.cells, 1)

    def _scores(self, logits: Tensor, groups: Sequence[Group], answers: Answers, cells: int) -> list[list[Scores]]:
        """Return scores by cell and group from logits in the order of :meth:`Slots.positions`."""
        log_probs = torch.log_softmax(logits, dim=-1, dtype=self._softmax_dtype)
        best = log_probs.argmax(dim=-1)
        result: list[list[Scores]] = [[] for _ in range(cells)]
        at = 0
        for group, members in zip(groups, answers, strict=True):
            tokens = torch.tensor(members, dtype=torch.long, device=log_probs.device).T  # [answer_len, n_members]
            for cell in range(cells):
                part = slice(at, at + group.answer_len)
                result[cell].append(
                    Scores(log_probs[part].gather(1, tokens).cpu(), (best[part][:, None] == tokens).cpu())
                )
                at += group.answer_len
        return result


@dataclass(frozen=True)
class _Trunk:
    """What the unsteered forward left: token ids, cache, block inputs by layer ``[n, d_model]``, logits."""

    ids: Tensor
    cache: PrefixCache | None
    inputs: dict[int, Tensor]
    logits: Tensor


@contextlib.contextmanager
def _editing(
    layout: ModelLayout, part: Bundle, places: Sequence[Sequence[Span]], groups: Sequence[Group], slots: Slots
) -> Iterator[None]:
    """Install the bundle's edits, in the order of the placements, for the forward inside."""
    lengths = [len(group.view.tokens) for group in groups]
    handles = []
    try:
        for number, spans in enumerate(places):
            edit = StackedEdit([plan.placements[number] for plan in part.plans])
            index, cell = slots.positions(edited(spans, lengths))
            origin = slots.positions(
                [[span.origin] * len(p) for span, p in zip(spans, edited(spans, lengths), strict=True)]
            )
            handles.append(_hook(layout, edit, index, cell, index - origin[0]))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(layout: ModelLayout, edit: StackedEdit, index: Tensor, cell: Tensor, row: Tensor) -> Any:
    module = layout.target(edit.target).module

    def on_output(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = first_tensor(output)
        assert hidden is not None
        after = edit.apply(hidden, index, cell, row) if index.numel() else hidden
        return after if isinstance(output, Tensor) else type(output)((after, *output[1:]))

    def on_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = block_input(args, kwargs)
        assert hidden is not None
        after = edit.apply(hidden, index, cell, row) if index.numel() else hidden
        return ((after, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": after})

    if edit.target.site is Site.BLOCK_IN:
        return module.register_forward_pre_hook(on_input, with_kwargs=True)
    return module.register_forward_hook(on_output)


def _tree_mask(groups: Sequence[Group], slots: Slots, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the additive mask ``[rows, 1, columns, width + columns]`` and the position ids ``[rows, columns]``.

    A query sees its request's prefix and, of the new positions, those of its own cell up to itself. The mask is of
    floats because eager attention adds it: booleans would be silently wrong.
    """
    step = torch.arange(slots.columns) % slots.stride
    cell = torch.arange(slots.columns) // slots.stride
    new = (cell[:, None] == cell[None, :]) & (step[None, :] <= step[:, None])
    prefix = torch.arange(width)[None, :] < torch.tensor(slots.first)[:, None]  # [rows, width]
    allowed = torch.cat(
        [prefix[:, None, :].expand(-1, slots.columns, -1), new[None].expand(slots.rows, -1, -1)], dim=-1
    )
    mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
    last = torch.tensor([len(group.view.tokens) - 1 for group in groups])
    positions = torch.minimum(torch.tensor(slots.first)[:, None] + step[None, :], last[:, None])
    return mask[:, None], positions


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([list(row) + [0] * (width - len(row)) for row in rows])
