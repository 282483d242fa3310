"""A request's steered logits do not depend on its neighbours, on the batch or on padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_steer.attachment import attach
from lm_eval_steer.hookpoint import Hookpoint, Site
from tests.steer_tools import everywhere, generate, left_padded, placement, plan, run
from tests.tiny_models import DEFAULT_FAMILIES, VOCABULARY, shared, shared_layout, token_rows

LENGTHS = (9, 3, 7, 9, 5, 2, 8, 4)
MAX_LENGTH = 12


@pytest.mark.parametrize("family", DEFAULT_FAMILIES)
def test_batch_of_eight_equals_one_by_one(family):
    model, layout = shared(family), shared_layout(family)
    rows = [row[:n] for row, n in zip(token_rows(8, 9).tolist(), LENGTHS, strict=True)]
    with attach(model, everywhere(layout, scope="after_prompt"), layout=layout) as handle:
        for alone, together in zip(
            (run(handle, model, [row])[0] for row in rows), run(handle, model, rows), strict=True
        ):
            torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@st.composite
def requests(draw):
    """Return token rows as lm-eval makes them, cut to the model's length from the left, and their context lengths."""
    rows, contexts = [], []
    for _ in range(draw(st.integers(1, 5))):
        context = draw(st.integers(1, 16))
        answer = draw(st.integers(1, 6))
        seed = draw(st.integers(0, 10_000))
        tokens = torch.randint(
            8, VOCABULARY, (context + answer,), generator=torch.Generator().manual_seed(seed)
        ).tolist()
        row = tokens[-(MAX_LENGTH + 1) :][:-1]
        rows.append(row)
        contexts.append(max(1, len(row) - answer + 1))
    return rows, contexts


SCOPES = st.sampled_from(["all", "prompt", "after_prompt", "last_prompt", "each_last", "front:1", "window:0:1"])
PLACED = st.tuples(SCOPES, st.sampled_from(list(Site)), st.integers(0, 3), st.booleans())


@settings(max_examples=60, deadline=None)
@given(
    batch=requests(),
    placed=st.lists(PLACED, min_size=1, max_size=3, unique=True),
    family=st.sampled_from(["llama", "gpt2"]),
)
def test_logits_of_a_request_never_depend_on_its_neighbours(batch, placed, family):
    rows, contexts = batch
    model, layout = shared(family), shared_layout(family)
    plan_ = plan(
        *(placement(Hookpoint(site, layer), scope=scope, skip_first=skip) for scope, site, layer, skip in placed)
    )
    with attach(model, plan_, layout=layout) as handle:
        together = run(handle, model, rows, context=contexts)
        for row, context, got in zip(rows, contexts, together, strict=True):
            alone = run(handle, model, [row], context=context)[0]
            torch.testing.assert_close(got, alone, atol=1e-4, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    scope=st.sampled_from(["all", "prompt", "after_prompt", "last_prompt", "front:1"]),
    skip=st.booleans(),
)
def test_a_generation_never_depends_on_its_neighbours(lengths, scope, skip):
    model, layout = shared("llama"), shared_layout("llama")
    rows = [row[:n] for row, n in zip(token_rows(len(lengths), 8).tolist(), lengths, strict=True)]
    with attach(
        model, plan(placement(Hookpoint(Site.BLOCK_OUT, 1), scope=scope, skip_first=skip)), layout=layout
    ) as handle:
        together = generate(model, handle, *left_padded(rows), steps=3)[1]
        for number, row in enumerate(rows):
            alone = generate(model, handle, torch.tensor([row]), steps=3)[1][:, 0]
            torch.testing.assert_close(together[:, number], alone, atol=1e-4, rtol=1e-4)
