"""A cache with room gives what transformers' own gives, whatever comes in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lm_eval_steer.sweep.growing_cache import leave_room

LAYERS = 2


def config() -> LlamaConfig:
    return LlamaConfig(num_hidden_layers=LAYERS, num_attention_heads=2, num_key_value_heads=2, hidden_size=8)


def states(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, 2, columns, 4, generator=generator) for _ in range(2))  # type: ignore[return-value]


@settings(deadline=None, max_examples=50)
@given(
    rows=st.integers(1, 3),
    room=st.integers(0, 12),
    pieces=st.lists(st.integers(1, 4), min_size=1, max_size=6),
)
def test_it_gives_what_the_plain_cache_gives_also_past_its_room(rows: int, room: int, pieces: list[int]) -> None:
    plain, ours = DynamicCache(config=config()), DynamicCache(config=config())
    for number, columns in enumerate(pieces):
        for layer in range(LAYERS):
            found = [cache.update(*states(rows, columns, number), layer) for cache in (plain, ours)]
            assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        assert plain.get_seq_length() == ours.get_seq_length()
        if number == 0:
            leave_room(ours, room)
            assert all(type(layer) is not DynamicLayer for layer in ours.layers)


def test_another_cache_keeps_what_was_shared() -> None:
    first, second = DynamicCache(config=config()), DynamicCache(config=config())
    keys, values = states(1, 3, 0)
    for cache in (first, second):
        for layer in range(LAYERS):
            cache.update(keys, values, layer)
        leave_room(cache, 8)
    first.update(*states(1, 2, 1), 0)
    assert torch.equal(second.layers[0].keys, keys)
    assert first.get_seq_length() == 5


def test_a_window_stays_a_window() -> None:
    cache = DynamicCache(config=MistralConfig(num_hidden_layers=1, sliding_window=4))
    cache.update(*states(1, 6, 0), 0)
    leave_room(cache, 12)
    assert type(cache.layers[0]) is DynamicSlidingWindowLayer


def test_no_tokens_yet_is_left_alone() -> None:
    cache = DynamicCache(config=config())
    leave_room(cache, 12)
    assert all(type(layer) is DynamicLayer for layer in cache.layers)


@pytest.mark.parametrize("room", [5, 20])
def test_a_new_token_is_written_where_there_is_room(room: int) -> None:
    cache = DynamicCache(config=config())
    cache.update(*states(1, 5, 0), 0)
    leave_room(cache, room)
    before = cache.layers[0].keys.data_ptr()
    cache.update(*states(1, 1, 1), 0)
    assert (cache.layers[0].keys.data_ptr() == before) is (room > 5)


def test_no_memory_is_taken_for_a_text_that_may_end_early() -> None:
    cache = DynamicCache(config=config())
    cache.update(*states(1, 5, 0), 0)
    leave_room(cache, 100_000)
    assert cache.layers[0].keys.untyped_storage().nbytes() <= 4 * 2 * 4 * 100


def test_a_long_text_moves_seldom() -> None:
    plain, ours = DynamicCache(config=config()), DynamicCache(config=config())
    for cache in (plain, ours):
        cache.update(*states(2, 5, 0), 0)
    leave_room(ours, 300)
    places = set()
    for column in range(310):
        found = [cache.update(*states(2, 1, column), 0) for cache in (plain, ours)]
        places |= {ours.layers[0].keys.data_ptr()} if column < 295 else set()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert len(places) <= 5
