"""Evidence: what a whole file says, for the checks of its rows to go by."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from lm_eval_steer.crosslingual import text
from lm_eval_steer.crosslingual.checks import Evidence, RowPair
from lm_eval_steer.crosslingual.identifier import Probabilities
from lm_eval_steer.crosslingual.items import base
from lm_eval_steer.crosslingual.nearest import nearest_rows
from lm_eval_steer.crosslingual.thresholds import Thresholds


def gather(
    pairs: Sequence[RowPair],
    lang: str,
    limits: Thresholds,
    probabilities: Probabilities | None = None,
    quality: Callable[[str, str], float] | None = None,
) -> Evidence:
    """Return what the rows of one language say together.

    Args:
        pairs: every row of the file beside its source.
        lang: of the translations.
        limits: thresholds of that language.
        probabilities: what tells languages apart, where it knows this one.
        quality: a quality estimation model's score.
    """
    sources = ["\n".join(each.text for each in pair.source) for pair in pairs]
    targets = ["\n".join(each.text for each in pair.target) for pair in pairs]
    ids = [pair.id for pair in pairs]
    backs = ["\n".join(pair.back) for pair in pairs]
    alike = _script(sources) == _script(targets)
    return Evidence(
        lang=base(lang),
        limits=limits,
        ratios=length_ratios(pairs, limits),
        sentences_end=sentences_end(pairs),
        probabilities=probabilities,
        nearer=nearest_rows(ids, sources, targets, limits.match_margin) if alike else None,
        back_nearer=nearest_rows(ids, sources, backs, limits.match_margin) if any(backs) else None,
        quality=quality,
    )


def length_ratios(pairs: Sequence[RowPair], limits: Thresholds) -> Mapping[str, float]:
    """Return medians of characters to the source: of rows (``row``), of choices, and of each other kind of segment.

    The own ones of a file with enough rows, held near the language's known one, so that a file whose every row is cut
    does not set its own measure. With few rows the known one alone, as ``row``; empty where none is known either.
    """
    if len(pairs) < limits.ratio_rows:
        return {} if limits.ratio is None else {"row": limits.ratio}
    found: dict[str, list[float]] = {"row": [_row_ratio(pair) for pair in pairs]}
    for pair in pairs:
        for old, new in pair.segments:
            if old.text:
                found.setdefault(old.kind, []).append(len(new.text) / len(old.text))
    medians = {kind: statistics.median(values) for kind, values in found.items()}
    if limits.ratio is None:
        return {kind: value or 1.0 for kind, value in medians.items()}
    low, high = limits.ratio / limits.ratio_drift, limits.ratio * limits.ratio_drift
    return {kind: min(max(value, low), high) for kind, value in medians.items()}


def _row_ratio(pair: RowPair) -> float:
    return sum(len(each.text) for each in pair.target) / max(sum(len(each.text) for each in pair.source), 1)


def sentences_end(pairs: Sequence[RowPair]) -> bool:
    """Return whether at least half of the segments end as sentences do where their sources end so."""
    found = [text.ends(new.text) for pair in pairs for old, new in pair.segments if text.ends(old.text)]
    return not found or sum(found) >= len(found) / 2


def _script(texts: Sequence[str]) -> str | None:
    """Return the script that most letters of some texts are in."""
    shares = text.script_shares("".join(texts))
    return max(shares, key=lambda name: shares[name]) if shares else None
