"""Which columns of a forward are edited: padding, steps of a generation, beams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_steer.positions import Batch, choose
from lm_eval_steer.scope import Span


def chosen(batch, spans, step=0, columns=None, copies=1, **kwargs):
    """Return the chosen (row, column) pairs of one forward."""
    columns = batch.width if columns is None else columns
    got = choose(batch, spans, step, columns, copies, **kwargs)
    return [divmod(index, columns) for index in got.index.tolist()]


ALL = Span(0, None, 0)
RIGHT = Batch([4, 2], [0, 0], 4)
LEFT = Batch([4, 2], [0, 2], 4, grows=True)


def test_right_padding_is_never_chosen():
    assert chosen(RIGHT, [ALL, ALL]) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]


def test_left_padding_is_never_chosen():
    assert chosen(LEFT, [ALL, ALL]) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]


def test_positions_count_from_each_rows_first_real_token():
    assert chosen(LEFT, [Span(1, 2, 1)] * 2) == [(0, 1), (1, 3)]


def test_a_decode_step_has_one_new_column():
    assert chosen(LEFT, [ALL, Span(0, 2, 0)], step=1, columns=1) == [(0, 0)]


def test_a_recomputed_step_has_the_old_columns_and_the_new_one():
    assert chosen(LEFT, [Span(3, None, 3), Span(1, 2, 1)], step=1, columns=5) == [(0, 3), (0, 4), (1, 3)]


def test_last_only_takes_the_newest_column_of_every_row():
    assert chosen(LEFT, [ALL, ALL], step=2, columns=6, last_only=True) == [(0, 5), (1, 5)]


def test_beams_are_consecutive_copies_of_a_request():
    assert chosen(Batch([2, 2], [0, 0], 2, grows=True), [ALL, Span(1, None, 1)], copies=2) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (2, 1),
        (3, 1),
    ]


def test_rows_of_a_vector_count_from_the_origin():
    got = choose(LEFT, [Span(1, 3, 0), Span(1, 2, 0)], 0, 4, 1)
    assert got.vector_row.tolist() == [1, 2, 1]


@pytest.mark.parametrize(("lengths", "every"), [([4, 4], True), ([4, 3], False)])
def test_every_says_whether_nothing_is_left_out(lengths, every):
    assert choose(Batch(lengths, [0, 0], 4), [ALL, ALL], 0, 4, 1).every is every


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    left=st.booleans(),
    start=st.integers(0, 7),
    size=st.one_of(st.none(), st.integers(0, 7)),
)
def test_chosen_positions_are_the_spans_positions(lengths, left, start, size):
    width = max(lengths)
    offsets = [width - n if left else 0 for n in lengths]
    span = Span(start, None if size is None else start + size, start)
    wanted = [
        (row, offset + position)
        for row, (n, offset) in enumerate(zip(lengths, offsets, strict=True))
        for position in range(start, n if size is None else min(n, start + size))
    ]
    assert chosen(Batch(lengths, offsets, width), [span] * len(lengths)) == wanted
    assert len(wanted) == sum(span.length(n) for n in lengths)


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3), steps=st.integers(1, 4), start=st.integers(0, 4))
def test_steps_with_a_cache_choose_what_one_recomputed_forward_chooses(lengths, steps, start):
    width = max(lengths)
    offsets = [width - n for n in lengths]
    batch = Batch(lengths, offsets, width, grows=True)
    spans = [Span(start, None, start)] * len(lengths)
    cached = chosen(batch, spans)
    for step in range(1, steps + 1):
        cached += [(row, width + step - 1) for row, _ in chosen(batch, spans, step=step, columns=1)]
    assert sorted(cached) == chosen(batch, spans, step=steps, columns=width + steps)
