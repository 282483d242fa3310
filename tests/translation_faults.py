"""Faults put into the shipped translations, one kind at a time, and how many of them the checks catch.

``python -m tests.translation_faults [FAULT ...]`` prints the table of docs/translate.md: three tenths of the rows of
every file get each fault, a tenth at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lm_eval_steer.crosslingual.checks import Evidence, RowPair
from lm_eval_steer.crosslingual.evidence import gather, length_ratios, sentences_end
from lm_eval_steer.crosslingual.identifier import open_identifier
from lm_eval_steer.crosslingual.items import read_items
from lm_eval_steer.crosslingual.segments import Segment
from lm_eval_steer.crosslingual.thresholds import read_thresholds
from lm_eval_steer.crosslingual.verdict import Verdict, judge
from lm_eval_steer.paths import tasks_dir

DATA = tasks_dir() / "crosslingual" / "data"
FAMILIES = ("positivity", "patience", "agreement", "caution", "machiavelli_demo")
LANGUAGES = ("de", "fr", "es", "zh", "ja")
THRESHOLDS = read_thresholds()
KNOWN, PROBABILITIES = open_identifier("py3langid", THRESHOLDS.defaults.candidates)
ROUNDS = 10


@dataclass(frozen=True)
class Scene:
    """What a fault may use: the rows of a file, the same rows in other languages, and a source of chance."""

    pairs: Sequence[RowPair]
    others: Sequence[Sequence[RowPair]]
    rng: random.Random


Fault = Callable[[Scene, int], "RowPair | None"]


@functools.cache
def pairs_of(family: str, lang: str) -> Sequence[RowPair]:
    """Return a shipped file's rows beside their sources, without stamps."""
    source, target = read_items(DATA / family / "en.jsonl"), read_items(DATA / family / f"{lang}.jsonl")
    return [RowPair(*each) for each in zip(target.ids, source.segments, target.segments, strict=True)]


def shipped() -> list[tuple[str, str]]:
    """Return family and language of every translated file."""
    return [(f, lang) for f in FAMILIES for lang in LANGUAGES if (DATA / f / f"{lang}.jsonl").exists()]


@functools.cache
def clean_evidence(family: str, lang: str) -> Evidence:
    """Return what a shipped file says as it is."""
    return evidence_of(pairs_of(family, lang), lang)


def evidence_of(pairs: Sequence[RowPair], lang: str) -> Evidence:
    return gather(pairs, lang, THRESHOLDS.of(lang), PROBABILITIES if lang in KNOWN else None)


def verdict(pair: RowPair, evidence: Evidence) -> Verdict:
    return judge({}, pair, evidence)


def noisy(text: str, rng: random.Random, words: Sequence[str]) -> str:
    """Return an English text as a back-translation might have it: words replaced, dropped and moved."""
    made: list[str] = []
    for word in text.split():
        chance = rng.random()
        if chance < 0.22:
            made.append(rng.choice(words))
        elif chance > 0.95:
            continue
        elif chance > 0.88 and made:
            made.insert(-1, word)
        else:
            made.append(word)
    return " ".join(made)


def with_back(pairs: Sequence[RowPair], rng: random.Random) -> list[RowPair]:
    """Return rows with back-translations made from their sources with noise."""
    words = [word for pair in pairs for segment in pair.source for word in segment.text.split()]
    return [
        dataclasses.replace(pair, back=tuple(noisy(each.text, rng, words) for each in pair.source)) for pair in pairs
    ]


# ------------------------------------------------------------------------------------------------ faults


def _with(pair: RowPair, texts: Iterable[str]) -> RowPair:
    new = [dataclasses.replace(old, text=text) for old, text in zip(pair.target, texts, strict=True)]
    return dataclasses.replace(pair, target=tuple(new))


def _one(scene: Scene, at: int, make: Callable[[Segment, Segment], str], *, choice: bool = False) -> RowPair:
    """Return the row with one segment made anew, any with at least three words in the source."""
    pair = scene.pairs[at]
    able = [i for i, old in enumerate(pair.source) if len(old.text.split()) > 2 and (old.is_choice or not choice)]
    place = scene.rng.choice(able)
    texts = [each.text for each in pair.target]
    texts[place] = make(pair.source[place], pair.target[place])
    return _with(pair, texts)


def _both(scene: Scene, at: int, source_end: str, target_end: str) -> RowPair:
    """Return the row with something put before the end of a segment of the source and of the translation."""
    pair = scene.pairs[at]
    place = scene.rng.randrange(len(pair.source))
    old, new = list(pair.source), list(pair.target)
    old[place] = dataclasses.replace(old[place], text=_inside(old[place].text, source_end))
    new[place] = dataclasses.replace(new[place], text=_inside(new[place].text, target_end))
    return dataclasses.replace(pair, source=tuple(old), target=tuple(new))


def _inside(text: str, extra: str) -> str:
    return f"{text[:-1]} {extra}{text[-1]}" if extra else text


def half(text: str) -> str:
    return text[: max(len(text) // 2, 1)].rstrip()


def sentences(text: str) -> list[str]:
    return [each for each in re.findall(r".+?(?:[.!?…]+[\"'”»]?(?:\s+|$)|[。！？]+[」』”]?|$)", text) if each.strip()]


def wrong_language(scene: Scene, at: int) -> RowPair:
    return _with(scene.pairs[at], (each.text for each in scene.rng.choice(scene.others)[at].target))


def wrong_language_of_one(scene: Scene, at: int) -> RowPair:
    other = {
        o.name: n.text for o, n in zip(scene.pairs[at].target, scene.rng.choice(scene.others)[at].target, strict=True)
    }
    return _one(scene, at, lambda _old, new: other[new.name])


def untranslated(scene: Scene, at: int) -> RowPair:
    return _with(scene.pairs[at], (each.text for each in scene.pairs[at].source))


def untranslated_one(scene: Scene, at: int) -> RowPair:
    return _one(scene, at, lambda old, _new: old.text)


def truncated(scene: Scene, at: int) -> RowPair:
    return _with(scene.pairs[at], (half(each.text) for each in scene.pairs[at].target))


def truncated_one(scene: Scene, at: int) -> RowPair:
    return _one(scene, at, lambda _old, new: half(new.text))


def _without_sentences(scene: Scene, at: int, keep: Callable[[int], int]) -> RowPair | None:
    """Return the row without the last sentences of the text that has most of them, if any has two."""
    pair = scene.pairs[at]
    found = [sentences(each.text) for each in pair.target]
    place = max(range(len(found)), key=lambda i: len(found[i]))
    if len(found[place]) < 2:
        return None
    texts = [each.text for each in pair.target]
    texts[place] = "".join(found[place][: keep(len(found[place]))]).strip()
    return _with(pair, texts)


def sentences_lost(scene: Scene, at: int) -> RowPair | None:
    return _without_sentences(scene, at, lambda count: count // 2)


def last_sentence_lost(scene: Scene, at: int) -> RowPair | None:
    return _without_sentences(scene, at, lambda count: count - 1)


def emptied_one(scene: Scene, at: int) -> RowPair:
    return _one(scene, at, lambda _old, _new: " ")


def lost_placeholder(scene: Scene, at: int) -> RowPair:
    return _both(scene, at, scene.rng.choice(["{name}", "%s", "<b>x</b>", "[1]", "{{ x }}", "%(n)d"]), "")


def changed_placeholder(scene: Scene, at: int) -> RowPair:
    return _both(scene, at, *scene.rng.choice([("{name}", "{nom}"), ("%s", "% s"), ("[1]", "[2]"), ("<b>", "<B>")]))


def collapsed(scene: Scene, at: int) -> RowPair:
    pair = scene.pairs[at]
    one, other = scene.rng.sample(pair.choices, 2)
    texts = [each.text for each in pair.target]
    texts[one] = texts[other]
    return _with(pair, texts)


def nearly_collapsed(scene: Scene, at: int) -> RowPair:
    pair = scene.pairs[at]
    one, other = scene.rng.sample(pair.choices, 2)
    texts = [each.text for each in pair.target]
    texts[one] = texts[other][:-1].lower() + scene.rng.choice([" !", "…", "。", ", "]) + texts[other][-1]
    return _with(pair, texts)


def changed_number(scene: Scene, at: int) -> RowPair:
    pairs = [("27", "28"), ("1,250", "1.520"), ("3.5", "5,3"), ("1990", "１９９１"), ("12", "1 200")]
    return _both(scene, at, *scene.rng.choice(pairs))


def options_changed_places(scene: Scene, at: int) -> RowPair:
    pair = scene.pairs[at]
    one, other = scene.rng.sample(pair.choices, 2)
    texts, back = [each.text for each in pair.target], list(pair.back)
    texts[one], texts[other] = texts[other], texts[one]
    if back:
        back[one], back[other] = back[other], back[one]
    return dataclasses.replace(_with(pair, texts), back=tuple(back))


def swapped(scene: Scene, at: int) -> RowPair:
    """Return the row with the texts of another row that has as many."""
    pair = scene.pairs[at]
    alike = [each for each in scene.pairs if each.id != pair.id and len(each.target) == len(pair.target)]
    other = scene.rng.choice(alike)
    return dataclasses.replace(_with(pair, (each.text for each in other.target)), back=other.back)


FAULTS: dict[str, tuple[Fault, bool, tuple[str, ...]]] = {
    # name: what makes it, whether on rows with a back-translation, what counts as caught
    "wrong language, row": (wrong_language, False, ("fail",)),
    "wrong language, one text": (wrong_language_of_one, False, ("fail",)),
    "untranslated, row": (untranslated, False, ("fail",)),
    "untranslated, one text": (untranslated_one, False, ("fail",)),
    "every text cut in half": (truncated, False, ("fail",)),
    "one text cut in half": (truncated_one, False, ("fail",)),
    "half of a text's sentences lost": (sentences_lost, False, ("flag", "fail")),
    "last sentence of a text lost": (last_sentence_lost, False, ("flag", "fail")),
    "one text empty": (emptied_one, False, ("fail",)),
    "placeholder lost": (lost_placeholder, False, ("fail",)),
    "placeholder changed": (changed_placeholder, False, ("fail",)),
    "options collapsed": (collapsed, False, ("fail",)),
    "options nearly collapsed": (nearly_collapsed, False, ("fail",)),
    "number changed": (changed_number, False, ("flag", "fail")),
    "rows swapped, back-translated": (swapped, True, ("fail",)),
    "rows swapped, not back-translated": (swapped, False, ("flag", "fail")),
    "options swapped, back-translated": (options_changed_places, True, ("fail",)),
    "options swapped, not back-translated": (options_changed_places, False, ("flag", "fail")),
}


def rounds(name: str, family: str, lang: str, count: int = 3) -> Iterator[tuple[bool, Verdict]]:
    """Put a fault into rows of a file, a tenth of them at a time; give whether it is caught, and the verdict.

    The file's medians are taken anew each time; its rows are compared anew where rows are swapped.
    """
    make, back, caught = FAULTS[name]
    rng = random.Random(f"{name}/{family}/{lang}")
    pairs = pairs_of(family, lang)
    pairs = with_back(pairs, rng) if back else pairs
    others = [pairs_of(family, other) for f, other in shipped() if f == family and other != lang]
    scene = Scene(pairs, others, rng)
    clean = evidence_of(pairs, lang) if back else clean_evidence(family, lang)
    for part in range(count):
        made = {at: make(scene, at) for at in range(part, len(pairs), ROUNDS)}
        bad = {at: pair for at, pair in made.items() if pair is not None}
        file = [bad.get(at, pair) for at, pair in enumerate(pairs)]
        ratios = length_ratios(file, clean.limits)
        evidence = dataclasses.replace(clean, ratios=ratios, sentences_end=sentences_end(file))
        if make is swapped:
            evidence = evidence_of(file, lang)
        for pair in bad.values():
            found = verdict(pair, evidence)
            yield found.status in caught, found


def main(names: Sequence[str]) -> None:
    """Print rows of the table of catch rates, and how many were caught of how many."""
    for name in names or FAULTS:
        by: dict[str, list[bool]] = {lang: [] for lang in LANGUAGES}
        for family, lang in shipped():
            by[lang] += [hit for hit, _ in rounds(name, family, lang)]
        everything = [hit for hits in by.values() for hit in hits]
        cells = [f"{100 * sum(hits) / len(hits):.1f}" for hits in [*by.values(), everything] if hits]
        print(f"| {name} | {' | '.join(cells)} | {sum(everything)} of {len(everything)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
