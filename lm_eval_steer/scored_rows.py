"""Scored rows: loglikelihood requests grouped into the forwards that answer them.

Requests with the same input tokens *and* the same boundary share one forward, as in lm-eval's ``logits_cache``; two
splits of the same tokens do not, because a scope may depend on the split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lm_eval_steer.errors import InputError
from lm_eval_steer.handle import SteeringHandle
from lm_eval_steer.measured import is_measured
from lm_eval_steer.positions import Batch
from lm_eval_steer.scope import RequestView, Span

TokenRequest = tuple[tuple[str, str] | None, list[int], list[int]]


@dataclass(frozen=True)
class Group:
    """Requests that one forward answers.

    Attributes:
        members: their numbers in the list of requests.
        view: input tokens and boundary, after truncation.
        answer_len: scored tokens of each.
        sort_key: lm-eval's order: longest first, then by tokens.
        measured: whether the KL to the unsteered model is wanted at the scored positions.
    """

    members: tuple[int, ...]
    view: RequestView
    answer_len: int
    sort_key: tuple[int, tuple[int, ...]]
    measured: bool = False


@dataclass(frozen=True)
class Row:
    """One row of one forward: the group it answers, the positions each placement edits, those that are read."""

    group: int
    spans: tuple[Span, ...]
    first_read: int
    reads: int


def group_requests(requests: Sequence[TokenRequest], max_length: int, *, share: bool) -> list[Group]:
    """Return the groups of ``requests`` in lm-eval's order, so that batches are those of plain ``hf``.

    Args:
        requests: (strings or None for a rolling window, context tokens, answer tokens).
        max_length: of the model; longer requests lose tokens on the left.
        share: whether equal inputs share a forward (``logits_cache``).

    Raises:
        InputError: an empty context or answer, or an answer longer than the model takes.
    """
    found: dict[tuple[tuple[int, ...], int, int], list[int]] = {}
    for number, (_, context, answer) in enumerate(requests):
        if not context or not answer or len(answer) > max_length:
            raise InputError(
                f"request {number} has {len(context)} context and {len(answer)} answer tokens; both must be there, and "
                f"the answer must fit into {max_length} tokens."
            )
        key = (tuple(context + answer[:-1]), len(answer), -1 if share else number)
        found.setdefault(key, []).append(number)
    groups = [_group(requests, members, max_length) for members in found.values()]
    return sorted(groups, key=lambda group: group.sort_key)


def mixes_boundaries(requests: Sequence[TokenRequest]) -> bool:
    """Say whether equal inputs occur with different answer lengths, which lm-eval's logits cache scores wrongly."""
    lengths: dict[tuple[int, ...], int] = {}
    for _, context, answer in requests:
        if lengths.setdefault(tuple(context + answer[:-1]), len(answer)) != len(answer):
            return True
    return False


def plan_rows(groups: Sequence[Group], handle: SteeringHandle) -> list[Row]:
    """Return the rows that answer ``groups``: one each, or one an answer token under ``each_last``.

    Under ``each_last`` row j edits position c−1+j alone and only that position's logits are read; what stands to
    the right of it cannot change them in a causal model.

    Raises:
        ScopeError: a scope does not fit a request.
    """
    stepwise = [placement.scope.kind == "each_last" for placement in handle.plan.placements]
    rows = []
    for number, group in enumerate(groups):
        spans = handle.spans(group.view)
        first = group.view.context_len - 1
        if not any(stepwise):
            rows.append(Row(number, tuple(spans), first, group.answer_len))
            continue
        for position in range(first, first + group.answer_len):
            stepped = [
                Span(max(position, span.start), position + 1, position) if last else span
                for span, last in zip(spans, stepwise, strict=True)
            ]
            rows.append(Row(number, tuple(stepped), position, 1))
    return rows


def padded_rows(rows: Sequence[Row], groups: Sequence[Group], device: torch.device) -> tuple[Tensor, Batch]:
    """Return the token ids of rows, ``[rows, width]``, right-padded with 0, and where they stand."""
    views = [groups[row.group].view for row in rows]
    lengths = [len(view.tokens) for view in views]
    width = max(lengths)
    padded = [list(view.tokens) + [0] * (width - n) for view, n in zip(views, lengths, strict=True)]
    return torch.tensor(padded, dtype=torch.long, device=device), Batch(lengths, [0] * len(rows), width)


def _group(requests: Sequence[TokenRequest], members: list[int], max_length: int) -> Group:
    strings, context, answer = requests[members[0]]
    tokens = (context + answer)[-(max_length + 1) :][:-1]
    view = RequestView(tokens, len(tokens) - len(answer) + 1, "rolling" if strings is None else "loglikelihood")
    whole = tuple(context + answer)
    measured = any(is_measured(requests[number]) for number in members)
    return Group(tuple(members), view, len(answer), (-len(whole), whole), measured)
