"""Row scorer: log-probabilities of the steered model's answers, by batches of rows with the positions to steer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.models.utils import Collator
from tqdm import tqdm

from lm_eval_steer.check import check_finite, non_finite
from lm_eval_steer.divergence import float_log_probs, kl_sum
from lm_eval_steer.measured import LogProb, is_measured
from lm_eval_steer.scored_rows import Group, Row, TokenRequest, padded_rows, plan_rows

if TYPE_CHECKING:
    from lm_eval_steer.model import SteeredHF


class RowScorer:
    """Scores requests on a model with its hooks in force, as lm-eval's ``hf`` does from the same logits.

    Args:
        lm: the model.
    """

    def __init__(self, lm: SteeredHF) -> None:
        self._lm: Any = lm

    def score(
        self, requests: list[TokenRequest], groups: list[Group], *, silent: bool, override_bs: int | None
    ) -> list[tuple[float, bool]]:
        """Return the log-probability of every request's answer, in nats, and whether it is the likeliest.

        Args:
            requests: lm-eval's.
            groups: the same by equal input tokens.
            silent: without a progress bar.
            override_bs: lm-eval's batch size for this call, where it has one.

        Raises:
            NonFiniteError: a log-probability is no number.
        """
        rows = plan_rows(groups, self._lm.steering)
        pieces: list[list[torch.Tensor]] = [[] for _ in groups]
        divergence = [0.0] * len(groups)
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        left = _row_counts(rows, len(groups))
        with tqdm(
            total=len(requests), disable=silent or self._lm.rank != 0, desc="Running loglikelihood requests"
        ) as bar:
            for chunk in self._batches(rows, groups, requests, override_bs):
                found = self._logits(chunk, groups)
                for row, kl in zip(chunk, self._kl(chunk, groups, found), strict=True):
                    divergence[row.group] += kl
                for row, logits in zip(chunk, found, strict=True):
                    pieces[row.group].append(torch.log_softmax(logits, dim=-1, dtype=self._lm.softmax_dtype))
                    left[row.group] -= 1
                    if left[row.group] == 0:
                        kl, own = divergence[row.group], torch.cat(pieces[row.group])
                        self._answer(requests, groups[row.group], own, kl, answers)
                        pieces[row.group] = []
                        bar.update(len(groups[row.group].members))
        return answers

    def _batches(
        self, rows: list[Row], groups: list[Group], requests: list[TokenRequest], override_bs: int | None
    ) -> Any:
        size, scheduler = self._lm.batch_size, None
        if size == "auto":
            size = override_bs or 0
            if not override_bs and rows:
                self._lm.batch_sizes = {}
                longest = [requests[groups[row.group].members[0]] for row in rows]
                scheduler = lambda position, _rows: self._lm._batch_scheduler(position, longest)  # noqa: E731
        return Collator.get_chunks(rows, n=size, fn=scheduler)

    def _logits(self, chunk: list[Row], groups: list[Group]) -> list[torch.Tensor]:
        """Return for each row the logits ``[reads, vocabulary]`` at the positions it reads."""
        inputs, batch = padded_rows(chunk, groups, self._lm.device)
        with self._lm.steering.forward(batch, [row.spans for row in chunk], counted=False):
            logits = self._lm._model_call(inputs)
        result = []
        for row, one in zip(chunk, logits, strict=True):
            part = one[row.first_read : row.first_read + row.reads]
            check_finite(part, self._lm.steering.plan)
            result.append(part.clone())  # the other positions are not kept
        return result

    def _kl(self, chunk: list[Row], groups: list[Group], steered: list[torch.Tensor]) -> list[float]:
        """Return for each row the KL from the unsteered model at the positions it reads; 0 where nobody wants it."""
        wanted = [place for place, row in enumerate(chunk) if groups[row.group].measured]
        found = [0.0] * len(chunk)
        if wanted and not self._lm.steering.plan.neutral:  # which runs unsteered: exactly 0
            inputs, _ = padded_rows([chunk[place] for place in wanted], groups, self._lm.device)
            with self._lm.steering.paused():
                logits = self._lm._model_call(inputs)
            for place, one in zip(wanted, logits, strict=True):
                row = chunk[place]
                base = one[row.first_read : row.first_read + row.reads]
                found[place] = kl_sum(float_log_probs(base), float_log_probs(steered[place]))
        return found

    def _answer(
        self,
        requests: list[TokenRequest],
        group: Group,
        log_probs: torch.Tensor,
        kl: float,
        answers: list[tuple[float, bool]],
    ) -> None:
        greedy = log_probs.argmax(dim=-1)
        for number in group.members:
            strings, _, answer = requests[number]
            tokens = torch.tensor(answer, dtype=torch.long, device=log_probs.device)
            total = float(torch.gather(log_probs, 1, tokens[:, None]).squeeze(-1).sum())
            if not math.isfinite(total):
                raise non_finite(self._lm.steering.plan)
            value = LogProb(total, kl) if is_measured(requests[number]) else total
            answers[number] = (value, bool((greedy == tokens).all()))
            if strings is not None:
                self._lm.cache_hook.add_partial("loglikelihood", strings, answers[number])


def _row_counts(rows: Sequence[Row], groups: int) -> list[int]:
    counts = [0] * groups
    for row in rows:
        counts[row.group] += 1
    return counts
