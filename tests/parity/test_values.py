"""What the edited activations are: projections, norms, doses, and half precision."""

from __future__ import annotations

import pytest
import torch

from lm_eval_steer.attachment import attach
from lm_eval_steer.edit import Edit
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layout import probe_layout
from lm_eval_steer.positions import Chosen
from tests.steer_tools import direction, placement, plan, run
from tests.tiny_models import DEFAULT_FAMILIES, build, shared, shared_layout, token_rows

POINT = Hookpoint(Site.BLOCK_OUT, 1)


def activations(model, layout, plan_, ids):
    """Return what block 2 is given, ``[batch, seq, d_model]``, under ``plan_``."""
    seen = []
    hook = layout.blocks[2].register_forward_pre_hook(
        lambda _m, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    try:
        with attach(model, plan_, layout=layout) as handle:
            run(handle, model, ids.tolist())
    finally:
        hook.remove()
    return seen[0].float(), handle


@pytest.mark.parametrize("family", DEFAULT_FAMILIES)
def test_clamp_sets_the_projection_to_lambda(family):
    value = direction(1)
    plan_ = plan(placement(POINT, value, operation="clamp", multiplier=-3.5))
    hidden, _ = activations(shared(family), shared_layout(family), plan_, token_rows(2, 9))
    projection = hidden @ (value / value.norm())
    torch.testing.assert_close(projection, torch.full_like(projection, -3.5), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", DEFAULT_FAMILIES)
def test_ablate_leaves_no_projection(family):
    value = direction(1)
    plan_ = plan(placement(POINT, value, operation="ablate"))
    hidden, _ = activations(shared(family), shared_layout(family), plan_, token_rows(2, 9))
    projection = hidden @ (value / value.norm())
    torch.testing.assert_close(projection, torch.zeros_like(projection), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", DEFAULT_FAMILIES)
def test_norm_preserving_addition_keeps_norms_and_turns(family):
    model, layout, ids = shared(family), shared_layout(family), token_rows(2, 9)
    plain, _ = activations(model, layout, plan(), ids)
    moved, _ = activations(model, layout, plan(placement(POINT, operation="add_norm_preserving")), ids)
    torch.testing.assert_close(moved.norm(dim=-1), plain.norm(dim=-1), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(moved, plain, atol=1e-2)


def test_bfloat16_edits_are_computed_in_float32_and_cast_once():
    model = build("llama").to(torch.bfloat16)
    layout, ids, value = probe_layout(model), token_rows(2, 9), direction(4)
    plain, _ = activations(model, layout, plan(), ids)
    moved, _ = activations(model, layout, plan(placement(POINT, value, multiplier=0.3)), ids)
    assert torch.equal(moved, (plain + 0.3 * value).to(torch.bfloat16).float())


@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 0.0), (torch.float32, 1.0)])
def test_report_tells_what_half_precision_rounded_away(dtype, share):
    edit = Edit(placement(POINT, torch.full((64,), 0.5)))
    hidden = torch.full((2, 3, 64), 256.0, dtype=dtype)
    chosen = Chosen(torch.arange(6), torch.zeros(6, dtype=torch.int64), total=6)
    edited = edit.apply(hidden, chosen)
    assert edited.unique().tolist() == [256.0 + 0.5 * share]  # 256 + 0.5 is 256 in bfloat16
    assert edit.report()["realised_over_nominal"] == share


def test_report_gives_the_relative_dose():
    model, layout, ids = shared("llama"), shared_layout("llama"), token_rows(2, 9)
    plain, _ = activations(model, layout, plan(), ids)
    value = direction(4)
    _, handle = activations(model, layout, plan(placement(POINT, value, multiplier=2.0)), ids)
    wanted = 2.0 * float(value.norm()) / float(plain.norm(dim=-1).mean())
    assert handle.report()[0]["realised_dose"] == pytest.approx(wanted, rel=1e-4)
