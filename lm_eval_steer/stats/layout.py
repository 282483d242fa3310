"""Layout: which rows of a task make up which item, and which items which cluster; the same for all its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_eval_steer.errors import InputError
from lm_eval_steer.stats.answers import BRIER, CONFIDENCE, CORRECT
from lm_eval_steer.stats.arrays import Floats, Ints, run_lengths, run_means, run_sums
from lm_eval_steer.stats.columns import NO_METRICS, Rows
from lm_eval_steer.stats.items import ItemScores, flips, p_caa

# Metrics of lm-eval of which less is better; what is not named here counts as better the higher it is.
_LOWER_IS_BETTER = frozenset(
    {
        *("word_perplexity", "byte_perplexity", "bits_per_byte", "perplexity", "brier_score", "loss"),
        *("ter", "wer", "cer", "lo_unethical", "p_unethical", "harm_rel", "disutility_rel"),
    }
)
# What a task with several metrics is read by.
_HEADLINES = ("lo_unethical", "acc", "exact_match")
_NEUTRAL = "nll_per_token"


@dataclass(frozen=True)
class Headline:
    """What a task is read by.

    Attributes:
        metric: name of the per-item score.
        slope_of: what steerability is the slope of.
        higher_is_better: of the score.
    """

    metric: str
    slope_of: str
    higher_is_better: bool

    @property
    def column(self) -> str:
        """The column that every item must have."""
        return "nll" if self.metric == _NEUTRAL else self.metric

    @property
    def has_propensity(self) -> bool:
        """Whether the task knows a logit difference."""
        return self.slope_of != self.metric


@dataclass(frozen=True)
class Layout:
    """How a task's sorted rows become items and clusters.

    Attributes:
        keys: of the unsteered cell's rows; every other cell has the same.
        kept: rows of items that have all their orders, ``[kept rows]``.
        starts: the first kept row of each item, ``[n]``.
        order: option order of each kept row.
        cluster_starts: the first item of each cluster, ``[clusters]``.
        clusters: their names, ascending.
        left_out: items that lack an order or the headline.
    """

    keys: Any
    kept: Ints
    starts: Ints
    order: Ints
    cluster_starts: Ints
    clusters: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def sizes(self) -> Floats:
        """Items in each cluster, ``[clusters]``."""
        return run_lengths(self.cluster_starts, len(self.starts)).astype(np.float64)

    def cluster_sums(self, values: Floats) -> Floats:
        """Return items' values ``[n, …]`` summed over clusters, ``[clusters, …]``."""
        return run_sums(values, self.cluster_starts)

    def item_mask(self, clusters: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which items are in the clusters that are chosen, ``[n]``."""
        return np.repeat(clusters, run_lengths(self.cluster_starts, len(self.starts)))


def make_layout(rows: Rows, task: str, head: Headline) -> Layout:
    """Return the layout of a task from its unsteered cell.

    An item is left out where it lacks an order: where it has fewer rows than ``n_orders`` says, or, without such a
    column, one row while other items have several. It is left out, too, where the headline is not defined for it.

    Raises:
        InputError: no item is left.
    """
    clusters, items = np.asarray(rows.names("cluster"), dtype=object), np.asarray(rows.names("item_id"), dtype=object)
    starts = _run_starts((clusters[1:] != clusters[:-1]) | (items[1:] != items[:-1]))
    lengths = run_lengths(starts, len(items))
    if "n_orders" in rows.values and not np.isnan(rows.values["n_orders"]).any():
        whole = lengths >= rows.values["n_orders"][starts]
    else:
        whole = (lengths > 1) | (lengths.max() == 1)
    whole &= run_sums(np.isnan(rows.values[head.column]).astype(np.float64), starts) == 0
    if not whole.any():
        raise InputError(f"task {task}: no item has all its option orders and a {head.column}; raise --limit.")
    kept = np.flatnonzero(np.repeat(whole, lengths))
    lengths = lengths[whole]
    of_items = clusters[starts[whole]]
    cluster_starts = _run_starts(of_items[1:] != of_items[:-1])
    return Layout(
        keys=rows.keys,
        kept=kept,
        starts=np.cumsum(lengths) - lengths,
        order=rows.order()[kept],
        cluster_starts=cluster_starts,
        clusters=tuple(of_items[cluster_starts]),
        left_out=tuple(items[starts[~whole]]),
    )


def headline(rows: Rows, task: Mapping[str, Any]) -> Headline | None:
    """Return what a task is read by; None where no column would do.

    ``p_match`` and the logit difference (per token for text tasks) where the task has them; ``nll`` over ``tokens`` for
    neutral text; else the metric that the record names ``headline``, one of a few well-known, or the record's first by
    name that every row has.

    Args:
        rows: of the unsteered cell.
        task: the task in its record.
    """
    some = {name for name, values in rows.values.items() if name not in NO_METRICS and not np.isnan(values).all()}
    known = {name for name in some if not np.isnan(rows.values[name]).any()}
    for difference in ("logit_diff_tok", "logit_diff"):
        if {"p_match", difference} <= known:
            return Headline("p_match", difference, True)
    if {"nll", "tokens"} <= known:
        return Headline(_NEUTRAL, _NEUTRAL, False)
    named = [name for name in (task.get("headline"), *_HEADLINES) if name in some]
    listed = [name for name in sorted(name.partition(",")[0] for name in task["metrics"]) if name in known]
    metric = next(iter([*named, *listed, *sorted(known)]), None)
    if metric is None:
        return None
    stated = (task.get("higher_is_better") or {}).get(metric)
    return Headline(metric, metric, metric not in _LOWER_IS_BETTER if stated is None else bool(stated))


def score_items(rows: Rows, layout: Layout, head: Headline, where: str) -> ItemScores | None:
    """Return a cell's numbers an item; None where its headline is no number somewhere.

    Args:
        rows: of the cell.
        layout: of the task.
        head: what the task is read by.
        where: the cell's name for errors.

    Raises:
        InputError: the cell has other items than the unsteered one.
    """
    if not rows.keys.equals(layout.keys):
        raise InputError(
            f"{where}: its items are not those of the unsteered cell, so nothing can be paired. Sweep both again in "
            "one run."
        )
    columns = {name: values[layout.kept] for name, values in rows.values.items()}

    def mean(name: str) -> Floats | None:
        values = columns.get(name)
        return None if values is None or np.isnan(values).any() else run_means(values, layout.starts)

    nll, tokens = mean("nll"), mean("tokens")
    score = nll / tokens if head.metric == _NEUTRAL and nll is not None and tokens is not None else mean(head.metric)
    difference = mean(head.slope_of) if head.has_propensity else None
    if score is None or (head.has_propensity and difference is None):
        return None
    mass, bias, several = mean("mass"), mean("position_bias"), len(layout.kept) > len(layout.starts)
    letters = mass is not None and "logit_diff" in columns
    return ItemScores(
        score=score,
        propensity=difference,
        bias=bias,
        mass=mass,
        p_caa=p_caa(columns["logit_diff"], layout.order, layout.starts) if letters else None,
        flips=flips(columns["match"], layout.starts) if several and mean("match") is not None else None,
        nll=nll if head.metric == _NEUTRAL else None,
        tokens=tokens if head.metric == _NEUTRAL else None,
        kl=mean("kl") if head.metric == _NEUTRAL else None,
        brier=mean(BRIER),
        confidence=mean(CONFIDENCE),
        correct=mean(CORRECT),
    )


def _run_starts(changes: np.ndarray[Any, np.dtype[np.bool_]]) -> Ints:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.flatnonzero(changes) + 1])
