"""Neutral text: the per-item scores of tasks that say how well a model still predicts plain text.

``compare``, ``report`` and ``tune`` read the columns ``nll`` and ``tokens`` of such a task and make the perplexity
ratio to the unsteered model from them, and the statistics read ``kl``. A task whose ``metadata`` say ``kl: true`` has
it where a ``steered_hf`` model answers; plain ``hf`` knows no KL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_steer.errors import ConfigError, NonFiniteError

#: What :func:`process_results` returns, and whether higher is better (None: neither).
METRICS: Mapping[str, bool | None] = {"nll": False, "tokens": None, "token_perplexity": False}

#: What it returns beside these where the answer knows its KL.
KL_METRICS: Mapping[str, bool | None] = {"kl": False, "token_kl": False}


def process_results(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
    """Return the scores of one text.

    ``nll`` is its summed negative log-probability in nats, ``tokens`` the number of tokens in that sum, and
    ``token_perplexity`` the pair (−nll, tokens) from which lm-eval's ``weighted_perplexity`` makes
    ``exp(Σ nll / Σ tokens)`` over all texts. Of an answer that knows it, ``kl`` is the sum over the text's positions of
    KL(unsteered ‖ steered) in nats, and ``token_kl`` the pair (kl, tokens) for :func:`mean_per_token`.

    Args:
        doc: a document with ``item_id`` and ``answer_tokens``, as
            :class:`lm_eval_steer.text_task.TextChoiceTask` adds them.
        results: lm-eval's one answer, ``[(log-probability, is_greedy)]``.

    Raises:
        ConfigError: the document has no token counts.
        NonFiniteError: the log-probability is NaN or infinite.
    """
    if "answer_tokens" not in doc:
        raise ConfigError(
            f"item {doc.get('item_id', '?')!r} comes without its number of tokens. Give the task's YAML the line "
            "`class: !function lm_eval_steer.text_task.TextChoiceTask`."
        )
    log_prob, tokens = float(results[0][0]), int(doc["answer_tokens"][0])
    if not math.isfinite(log_prob):
        raise NonFiniteError(
            f"item {doc.get('item_id', '?')!r} has log-probability {log_prob}. The model's logits are no numbers, so "
            "this run is not scored; try a smaller multiplier or dtype=float32."
        )
    kl = getattr(results[0][0], "kl", None)
    measured = {} if kl is None else {"kl": float(kl), "token_kl": (float(kl), tokens)}
    return {"nll": -log_prob, "tokens": tokens, "token_perplexity": (log_prob, tokens), **measured}


def mean_per_token(pairs: Sequence[tuple[float, int]]) -> float:
    """Return ``Σ sum / Σ tokens`` of (sum over a text's tokens, tokens); an aggregation for lm-eval."""
    return math.fsum(total for total, _ in pairs) / sum(tokens for _, tokens in pairs)
