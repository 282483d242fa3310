"""From a contrast pair to token ids: the prompt in plain text or in the tokenizer's chat template, then the answer.

Both formats give the tokens that lm-eval scores for the packaged tasks: *plain* is a run without
``--apply_chat_template``, *chat* one with it (the prompt is the user's turn, the answer follows the header).
Prompt and answer are encoded as one string, as CAA does, so that the boundary is what the model meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lm_eval_steer.errors import ConfigError, DataError
from lm_eval_steer.extraction.pairs import ContrastPair
from lm_eval_steer.suggest import choice_message

Format = Literal["chat", "plain"]
FORMATS: tuple[Format, ...] = get_args(Format)

Position = Literal["letter", "answer", "last"]
POSITIONS: tuple[Position, ...] = get_args(Position)


@dataclass(frozen=True)
class Sequenced:
    """One answer with its prompt, as tokens.

    Attributes:
        ids: of prompt and answer.
        start: first position to read.
        stop: one past the last; what is read is the mean over ``[start, stop)``.
        name: of the pair, for messages.
    """

    ids: tuple[int, ...]
    start: int
    stop: int
    name: str = ""


def check_format(name: str, tokenizer: Any) -> Format:
    """Return the format called ``name``.

    Raises:
        ConfigError: an unknown name, or ``chat`` with a tokenizer that has no chat template.
    """
    if name not in FORMATS:
        raise ConfigError(choice_message("format", str(name), FORMATS))
    if name == "chat" and not getattr(tokenizer, "chat_template", None):
        raise ConfigError("format chat: this tokenizer has no chat template; use --format plain.")
    return name


def render(pair: ContrastPair, form: Format, tokenizer: Any) -> tuple[str, str, str]:
    """Return the context of a pair and its two answers as they stand behind it, positive first.

    Raises:
        DataError: the chat template refuses the pair.
    """
    if form == "plain":
        blank = "" if pair.lead else " "
        return pair.prompt + pair.lead, blank + pair.positive, blank + pair.negative
    from jinja2 import TemplateError  # transformers asks for it where a chat template is used

    chat = [{"role": "user", "content": pair.prompt}]
    if pair.lead:
        chat.append({"role": "assistant", "content": pair.lead})
    try:
        context = tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=not pair.lead, continue_final_message=bool(pair.lead)
        )
    except (TemplateError, ValueError) as error:
        raise DataError(f"pair {pair.id}: the chat template refuses it ({error}); use the format plain.") from error
    return str(context), pair.positive, pair.negative


def sequences(pair: ContrastPair, form: Format, tokenizer: Any, position: Position) -> tuple[Sequenced, Sequenced]:
    """Return both answers of a pair as tokens, with the positions that ``position`` reads.

    ``letter`` reads the token that holds the answer's letter (of "(A)", CAA's index −2), ``answer`` every token after
    the prompt, ``last`` the last one.

    Raises:
        ConfigError: ``letter`` for an answer that is no letter.
        DataError: an answer has no token of its own, or the letter cannot be found in it.
    """
    context, positive, negative = render(pair, form, tokenizer)
    letters: Sequence[str | None] = pair.letters or (None, None)
    before = encode(tokenizer, context)
    one, two = (
        _sequence(pair.id, before, encode(tokenizer, context + answer), letter, position, tokenizer)
        for answer, letter in zip((positive, negative), letters, strict=True)
    )
    return one, two


def encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Return the ids of ``text`` with the special tokens that the tokenizer puts before it, and none behind it.

    A text that begins with the BOS token (chat templates write it) gets no second one, as in lm-eval.
    """
    bare = list(tokenizer.encode(text, add_special_tokens=False))
    bos = getattr(tokenizer, "bos_token", None)
    if bos and text.startswith(bos):
        return tuple(bare)
    whole = list(tokenizer.encode(text))
    for at in range(len(whole) - len(bare) + 1):
        if whole[at : at + len(bare)] == bare:
            return tuple(whole[: at + len(bare)])
    return tuple(whole)


def _sequence(
    name: str, before: tuple[int, ...], ids: tuple[int, ...], letter: str | None, position: Position, tokenizer: Any
) -> Sequenced:
    shared = 0
    while shared < min(len(before), len(ids)) and before[shared] == ids[shared]:
        shared += 1  # where the boundary melts into one token, that token belongs to the answer
    if shared == len(ids):
        raise DataError(f"pair {name}: an answer has no token of its own after its prompt.")
    if position == "answer":
        return Sequenced(ids, shared, len(ids), name)
    if position == "last":
        return Sequenced(ids, len(ids) - 1, len(ids), name)
    if letter is None:
        raise ConfigError(
            "position letter needs pairs answered by letters; text answers are read at 'answer' or 'last'."
        )
    for at in range(shared, len(ids)):
        if letter in tokenizer.decode([ids[at]]):
            return Sequenced(ids, at, at + 1, name)
    raise DataError(f"pair {name}: no token of its answer holds the letter {letter!r}.")
