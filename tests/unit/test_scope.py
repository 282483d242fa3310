"""Spans, and the marker that a chat template stands for."""

from __future__ import annotations

import pytest

from lm_eval_steer.errors import ScopeError
from lm_eval_steer.scope import BASE_MARKER, RequestView, Span, TokenScope, assistant_marker


class Templated:
    """A tokenizer with nothing but a chat template, given as a function of the messages."""

    chat_template = "there is one"

    def __init__(self, plain: str, opened: str) -> None:
        self._texts = (plain, opened)

    def apply_chat_template(self, chat, *, tokenize, add_generation_prompt):
        return self._texts[add_generation_prompt].replace("USER", chat[0]["content"])


@pytest.mark.parametrize(
    ("span", "n", "length"),
    [
        (Span(0, None, 0), 5, 5),
        (Span(3, None, 3), 5, 2),
        (Span(3, 4, 3), 9, 1),
        (Span(2, 9, 2), 5, 3),
        (Span(6, None, 6), 5, 0),
        (Span(1, 1, 0), 5, 0),
    ],
)
def test_a_span_counts_what_lies_in_the_row(span, n, length):
    assert span.length(n) == length


@pytest.mark.parametrize(
    ("plain", "opened", "marker"),
    [
        ("<u>USER</u>", "<u>USER</u><a>", "<a>"),
        ("[INST] USER [/INST]", "[INST] USER [/INST]", " [/INST]"),  # Llama 2 has no header of its own
        ("<s>USER</s>", "USER<go>", "<go>"),  # a template that writes the turn differently when it opens the next
        ("USER", "USER", BASE_MARKER),
    ],
)
def test_the_assistants_header_is_what_the_template_adds(plain, opened, marker):
    assert assistant_marker(Templated(plain, opened)) == marker


def test_without_a_template_it_is_the_base_format():
    assert assistant_marker(object()) == "\nResponse:"


def test_a_marker_keeps_its_colons():
    assert TokenScope.parse("from_marker:a:b:") == TokenScope("from_marker", marker="a:b:")


def test_an_empty_marker_stands_for_the_templates_header():
    assert TokenScope.parse("from_marker:") == TokenScope.parse("from_marker") == TokenScope("from_marker")


def test_a_one_token_answer_is_steered_where_it_is_predicted():
    # context of 4, answer of 1: the inputs are the context alone, and position 3 predicts the answer
    request = RequestView([8, 9, 10, 11], 4, "loglikelihood")
    assert TokenScope.parse("after_prompt").resolve(request) == Span(3, 4, 3)


def test_a_window_may_end_with_the_context_and_not_after_it():
    request = RequestView(range(9), 4, "loglikelihood")
    assert TokenScope.parse("window:3:4").resolve(request) == Span(3, 4, 3)
    with pytest.raises(ScopeError, match="wants 5 positions"):
        TokenScope.parse("window:3:5").resolve(request)
