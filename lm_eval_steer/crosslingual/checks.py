"""Checks: what can be wrong with a translated row, each a small pure function that says why."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lm_eval_steer.crosslingual import text
from lm_eval_steer.crosslingual.finding import PASS, Finding, bad, not_run, worst
from lm_eval_steer.crosslingual.markers import markers
from lm_eval_steer.crosslingual.segments import Segment
from lm_eval_steer.crosslingual.thresholds import Thresholds


@dataclass(frozen=True)
class RowPair:
    """One row beside its source.

    Attributes:
        id: of both.
        source: segments of the source.
        target: segments of the translation, as many.
        back: its back-translation, a text for each segment, or one for all, or none.
        stale: whether the source has changed since the translation was made.
    """

    id: str
    source: tuple[Segment, ...]
    target: tuple[Segment, ...]
    back: tuple[str, ...] = ()
    stale: bool = False

    @property
    def segments(self) -> Iterator[tuple[Segment, Segment]]:
        """Return each source segment with its translation."""
        return zip(self.source, self.target, strict=True)

    @property
    def choices(self) -> list[int]:
        """Return the places of the choices."""
        return [at for at, segment in enumerate(self.source) if segment.is_choice]


@dataclass(frozen=True)
class Evidence:
    """What the checks of a row go by beside the row.

    Attributes:
        lang: of the translation.
        limits: thresholds of that language.
        ratios: median of characters to the source, of whole rows (``row``) and of kinds of segments; empty where none
            is known.
        sentences_end: whether segments of this file end as sentences do.
        probabilities: a text's languages with their probabilities; None where no library is there that knows this one.
        nearer: id → the source row that a row is nearer to and why; None where rows could not be compared.
        back_nearer: the same by back-translations.
        quality: score of a source segment and its translation; None without a model.
    """

    lang: str
    limits: Thresholds
    ratios: Mapping[str, float]
    sentences_end: bool
    probabilities: Callable[[str], Mapping[str, float]] | None
    nearer: Mapping[str, str | None] | None
    back_nearer: Mapping[str, str | None] | None
    quality: Callable[[str, str], float] | None


Check = Callable[[RowPair, Evidence], Finding]


def fresh(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on a translation of what the source was before a change."""
    return Finding("fail", "the source has changed since") if pair.stale else PASS


def empty(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on a text without a letter or digit where the source has one."""
    lost = [new.name for old, new in pair.segments if _says(old.text) and not _says(new.text)]
    return Finding("fail", f"empty: {', '.join(lost)}") if lost else PASS


def placeholders(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on a marker, placeholder or tag that is lost, changed or new."""
    found = []
    for old, new in pair.segments:
        before, after = markers(old.text), markers(new.text)
        found += [f"{new.name} lacks {mark}" for mark in (before - after)]
        found += [f"{new.name} has a new {mark}" for mark in (after - before)]
    return Finding("fail", "; ".join(found)) if found else PASS


def identical(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on a segment that is still the source, or nearly; flag a short one, which may be a name."""
    found = []
    for old, new in pair.segments:
        if not text.letters(old.text):
            continue
        long = text.letters(old.text) >= evidence.limits.same_letters
        if text.same_text(old.text, new.text):
            found.append(bad(f"{new.name} is the source's text", fails=long))
        elif long and (score := text.chrf(old.text, new.text)) >= evidence.limits.same_fail:
            found.append(Finding("fail", f"{new.name} is nearly the source's text, chrF {score:.0f}"))
    return worst(found)


def language(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on a row or a segment that is in another of the candidate languages."""
    if evidence.probabilities is None:
        return not_run(f"no language identifier is installed that knows {evidence.lang}")
    limits, found = evidence.limits, []
    texts = [("row", "\n".join(new.text for new in pair.target)), *((new.name, new.text) for new in pair.target)]
    long = [(name, shown) for name, shown in texts if text.letters(shown) >= limits.language_letters]
    for name, shown in long:
        ranked = evidence.probabilities(shown)
        sure, likeliest = ranked.get(evidence.lang, 0.0), max(ranked, key=lambda tag: ranked[tag])
        if sure < limits.language_flag:
            reason = f"{name} looks like {likeliest}, {evidence.lang} has {sure:.2f}"
            found.append(bad(reason, fails=sure < limits.language_fail))
    return worst(found) if long else not_run("too few letters")


def script(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on a segment in another script, and on a row that lacks a script it needs (kana in Japanese)."""
    limits, found = evidence.limits, []
    for new in pair.target:
        shares = text.script_shares(new.text)
        share = sum(shares.get(name, 0.0) for name in limits.scripts)
        if shares and share < limits.script_flag:
            found.append(
                bad(
                    f"{new.name} has {share:.0%} of its letters in {'/'.join(limits.scripts)}",
                    fails=share < limits.script_fail,
                )
            )
    whole = text.script_shares("".join(new.text for new in pair.target))
    for name, least in limits.needs.items():
        if whole and whole.get(name, 0.0) < least:
            found.append(Finding("fail", f"row has {whole.get(name, 0.0):.0%} {name}, at least {least:.0%} is usual"))
    return worst(found)


def length(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on a row or a segment whose length is far from the language's median."""
    if not evidence.ratios:
        return not_run(f"no median length is known for {evidence.lang}")
    limits, found = evidence.limits, []
    rows = "".join(old.text for old in pair.source), "".join(new.text for new in pair.target)
    texts = [("row", "row", *rows)]
    texts += [(new.name, old.kind, old.text, new.text) for old, new in pair.segments]
    for name, kind, old_text, new_text in texts:
        median = evidence.ratios.get(kind, evidence.ratios["row"])
        deviation = text.length_deviation(old_text, new_text, median)
        if deviation >= limits.length_flag:
            ratio = len(new_text) / max(len(old_text), 1)
            found.append(
                bad(
                    f"{name} has ratio {ratio:.2f}, median {median:.2f}",
                    fails=deviation >= limits.length_fail,
                )
            )
    return worst(found)


def ending(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on a segment that breaks off where its source ends as a sentence does."""
    if not evidence.sentences_end:
        return not_run("most segments end without a full stop")
    broken = [
        new.name for old, new in pair.segments if text.ends(old.text) and _says(new.text) and not text.ends(new.text)
    ]
    return Finding("fail", f"breaks off: {', '.join(broken)}") if broken else PASS


def sentences(pair: RowPair, evidence: Evidence) -> Finding:
    """Flag a segment of fewer sentences than its source, and fail one that is also short."""
    if not evidence.sentences_end:
        return not_run("most segments end without a full stop")
    found = []
    for old, new in pair.segments:
        before, after = text.sentence_ends(old.text), text.sentence_ends(new.text)
        if after < before and _says(new.text):
            median = evidence.ratios.get(old.kind, evidence.ratios.get("row", math.inf))
            short = len(new.text) < median * len(old.text)
            deviation = text.length_deviation(old.text, new.text, median) if evidence.ratios and short else 0.0
            fails = deviation >= evidence.limits.sentences_fail
            found.append(bad(f"{new.name} has {after} sentences of {before}", fails=fails))
    return worst(found)


def numbers(pair: RowPair, evidence: Evidence) -> Finding:
    """Flag a number in digits that the translation does not have; it may be written in words."""
    found = []
    for old, new in pair.segments:
        before, after = text.numbers(old.text), text.numbers(new.text)
        if lost := sorted(before - after):
            other = f", has {', '.join(sorted(after - before))}" if after - before else ""
            found.append(Finding("flag", f"{new.name} lacks {', '.join(lost)}{other}"))
    return worst(found)


def choices(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on two choices that have become alike where the source's are not."""
    if len(pair.choices) < 2:
        return not_run("no choices")
    limits, found = evidence.limits, []
    for one, other in itertools.combinations(pair.choices, 2):
        a, b = pair.target[one], pair.target[other]
        if text.same_text(pair.source[one].text, pair.source[other].text):
            continue
        score = 100.0 if text.same_text(a.text, b.text) else text.chrf(a.text, b.text)
        if score >= limits.choices_flag and score > text.chrf(pair.source[one].text, pair.source[other].text):
            found.append(bad(f"{a.name} and {b.name} are alike, chrF {score:.0f}", fails=score >= limits.choices_fail))
    return worst(found)


def match(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on a row whose back-translation is nearer to another source row; by shared words alone, flag it."""
    if evidence.back_nearer is not None and pair.back:
        other = evidence.back_nearer.get(pair.id)
        return PASS if other is None else Finding("fail", f"its back-translation reads like {other}")
    if evidence.nearer is None:
        return not_run("no back-translation, and no script shared with the source")
    other = evidence.nearer.get(pair.id)
    return PASS if other is None else Finding("flag", f"shares more words with {other}")


def back_translation(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on a row whose back-translation has little in common with the source (chrF++)."""
    if not pair.back:
        return not_run("no bt_text")
    limits = evidence.limits
    score = text.chrf_pp("\n".join(pair.back), "\n".join(each.text for each in pair.source))
    if score >= limits.back_flag:
        return PASS
    return bad(f"chrF++ {score:.0f}", fails=score < limits.back_fail)


def order(pair: RowPair, evidence: Evidence) -> Finding:
    """Fail on choices that have changed places, by the back-translation."""
    if len(pair.back) != len(pair.source) or len(pair.choices) < 2:
        return not_run("no bt_text by segments")
    found = []
    for one, other in itertools.combinations(pair.choices, 2):
        a, b = pair.source[one].text, pair.source[other].text
        straight = text.chrf(pair.back[one], a) + text.chrf(pair.back[other], b)
        crossed = text.chrf(pair.back[one], b) + text.chrf(pair.back[other], a)
        if crossed - straight > 2 * evidence.limits.order_margin:
            found.append(Finding("fail", f"{pair.target[one].name} and {pair.target[other].name} have changed places"))
    return worst(found)


def quality(pair: RowPair, evidence: Evidence) -> Finding:
    """Judge the least score that a quality estimation model gives a segment."""
    if evidence.quality is None:
        return not_run("no model")
    score, name = min((evidence.quality(old.text, new.text), new.name) for old, new in pair.segments)
    limits = evidence.limits
    if limits.quality_fail is not None and score < limits.quality_fail:
        return Finding("fail", f"{name} scores {score:.3f}")
    if limits.quality_flag is not None and score < limits.quality_flag:
        return Finding("flag", f"{name} scores {score:.3f}")
    return Finding("pass", f"least score {score:.3f}")


#: Every check by its name in ``qc``.
CHECKS: dict[str, Check] = {
    "fresh": fresh,
    "empty": empty,
    "placeholders": placeholders,
    "identical": identical,
    "language": language,
    "script": script,
    "length": length,
    "ending": ending,
    "sentences": sentences,
    "numbers": numbers,
    "choices": choices,
    "match": match,
    "back_translation": back_translation,
    "order": order,
    "quality": quality,
}

#: Those that a row has without a source beside it.
SOURCE_CHECKS = ("empty", "language", "script", "choices")


def _says(shown: str) -> bool:
    return any(map(str.isalnum, shown))
