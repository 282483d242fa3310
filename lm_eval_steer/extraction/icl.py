"""In-context learning: word pairs, prompts that show them, and the first token of an answer.

A prompt shows ``shots`` pairs and asks for one more; ten-shot, with two shown here::

    Q: Italy
    A: Rome

    Q: Kenya
    A: Nairobi

    Q: France
    A:

The answer follows with its blank, `` Paris``. The packaged tasks ``icl_*`` and the extraction of h-vectors and function
vectors use the same prompts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_steer.errors import DataError
from lm_eval_steer.files import sha256_file
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.suggest import choice_message

WORD_TASKS = ("antonym", "capital_country", "country_capital", "present_past", "singular_plural")
SPLITS = ("train", "test")
SHOTS = 10
ASK = "A:"
SHOWN = "Q: {input}\n" + ASK
BETWEEN = "\n\n"
LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class WordPair:
    """One input word and the one right answer to it."""

    id: str
    input: str
    output: str


@dataclass(frozen=True)
class WordPairs:
    """The pairs of one file.

    Attributes:
        name: of the task.
        pairs: in the file's order.
        sha256: of the file.
        licence: where it is known.
    """

    name: str
    pairs: tuple[WordPair, ...]
    sha256: str
    licence: str | None = None


@dataclass(frozen=True)
class ICLPrompt:
    """A prompt and the answer that belongs behind it, with its leading blank."""

    name: str
    context: str
    answer: str


def read_word_pairs(source: str, split: str = "train") -> WordPairs:
    """Return the pairs of a packaged task, or of a file.

    Args:
        source: one of :data:`WORD_TASKS`, or a ``.jsonl`` file with ``{"input": …, "output": …}`` a line.
        split: ``train`` or ``test`` of a packaged task; a file is one split.

    Raises:
        DataError: no such task or file, a row that is no pair, or an input that occurs twice.
    """
    packaged = source in WORD_TASKS
    path = tasks_dir() / "icl" / "data" / f"{source}_{split}.jsonl" if packaged else Path(source).expanduser()
    if not path.is_file():
        raise DataError(choice_message("word task", source, WORD_TASKS) + " A file must exist and end in .jsonl.")
    pairs = tuple(
        _pair(line, number, path) for number, line in enumerate(path.read_text("utf-8").split("\n"), 1) if line.strip()
    )
    inputs = [pair.input for pair in pairs]
    twice = sorted({word for word in inputs if inputs.count(word) > 1})
    if twice or len(pairs) < 2:
        raise DataError(f"{path}: {len(pairs)} pairs, twice: {twice}; at least two pairs are needed, each input once.")
    return WordPairs(source if packaged else path.stem, pairs, sha256_file(path), LICENCE if packaged else None)


def demonstrations(
    pairs: Sequence[WordPair], name: str, *, shots: int = SHOTS, shuffled: bool = False, seed: int = 0
) -> str:
    """Return ``shots`` pairs as they stand before a question, the empty text for none.

    Which pairs, and in which order, depends on ``name`` and ``seed`` only, so that shuffled labels are the one
    difference to the clean prompt. Shuffled labels are the shown answers, moved so that none keeps its own place.

    Args:
        pairs: to choose from; the asked one must not be among them.
        name: of the asked item.
        shots: how many.
        shuffled: whether each input gets another's answer.
        seed: of the choice.

    Raises:
        DataError: fewer pairs than shots, or labels to shuffle among fewer than two.
    """
    if not 0 <= shots <= len(pairs) or (shuffled and shots < 2):
        least = 2 if shuffled else 0
        raise DataError(f"{shots} shots: {len(pairs)} pairs are there to be shown; write {least} to {len(pairs)}.")
    chance = random.Random(f"icl/{seed}/{name}")
    shown = chance.sample(list(pairs), shots)
    order = chance.sample(range(shots), shots)
    step = chance.randrange(1, shots) if shots > 1 else 0
    moved = {order[i]: order[(i + step) % shots] for i in range(shots)} if shuffled else {}
    answers = [shown[moved.get(i, i)].output for i in range(shots)]
    rows = [f"{SHOWN.format(input=pair.input)} {answer}" for pair, answer in zip(shown, answers, strict=True)]
    return "".join(row + BETWEEN for row in rows)


def icl_prompts(
    pairs: Sequence[WordPair], *, shots: int = SHOTS, shuffled: bool = False, seed: int = 0
) -> list[ICLPrompt]:
    """Return one prompt for each pair, which shows others of them.

    Raises:
        DataError: fewer than ``shots`` other pairs.
    """
    return [
        ICLPrompt(
            asked.id,
            demonstrations(
                [pair for pair in pairs if pair is not asked], asked.id, shots=shots, shuffled=shuffled, seed=seed
            )
            + SHOWN.format(input=asked.input),
            f" {asked.output}",
        )
        for asked in pairs
    ]


def first_token(tokenizer: Any, context: str, answer: str) -> tuple[int, str]:
    """Return the first token of ``answer`` behind ``context``, and the beginning of ``answer`` that is that token.

    The beginning is what lm-eval has to be asked for: behind ``context`` it must encode to this token alone, as
    ``lm_eval.api.model.TemplateLM._encode_pair`` splits the two.

    Args:
        tokenizer: of the model.
        context: it must not end in white space, which would belong to the answer.
        answer: with its leading blank.

    Raises:
        DataError: context and answer melt into one token, or no beginning of the answer is that token.
    """
    before = tokenizer.encode(context, add_special_tokens=False)
    whole = tokenizer.encode(context + answer, add_special_tokens=False)
    if context != context.rstrip() or whole[: len(before)] != before or len(whole) == len(before):
        raise DataError(
            f"the answer {answer!r} has no token of its own after {context[-20:]!r} with this tokenizer; "
            "let the context end in another character, and not in white space."
        )
    token = int(whole[len(before)])
    likely = len(tokenizer.decode([token]))
    for length in sorted(range(1, len(answer) + 1), key=lambda n: abs(n - likely)):
        if tokenizer.encode(context + answer[:length], add_special_tokens=False) == [*before, token]:
            return token, answer[:length]
    raise DataError(f"the first token of {answer!r} is no beginning of it with this tokenizer; leave the pair out.")


def _pair(line: str, number: int, path: Path) -> WordPair:
    try:
        row = json.loads(line)
        pair = WordPair(str(row.get("id", f"{path.stem}-{number}")), row["input"], row["output"])
    except (json.JSONDecodeError, KeyError, AttributeError) as error:
        raise DataError(f'{path}, line {number}: no {{"input": …, "output": …}} ({error}).') from None
    if not all(isinstance(word, str) and word.strip() == word and word for word in (pair.input, pair.output)):
        raise DataError(f"{path}, line {number}: input and output must be words without blanks around them.")
    return pair
