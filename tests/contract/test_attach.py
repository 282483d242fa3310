"""attach: all or nothing, undone exactly, counted right, and refused where positions are not known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lm_eval_steer.attachment import attach
from lm_eval_steer.errors import (
    LayerError,
    ScopeError,
    ShapeError,
    SiteError,
    SteerError,
    UnsupportedModelError,
    UntouchedError,
    VectorValueError,
)
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layout import probe_layout
from lm_eval_steer.positions import Batch
from lm_eval_steer.scope import RequestView
from tests.steer_tools import (
    direction,
    everywhere,
    generate,
    hook_count,
    left_padded,
    placement,
    plain_logits,
    plan,
    run,
    steered,
)
from tests.tiny_models import DEFAULT_FAMILIES, build, shared, shared_layout, token_rows

POINT = Hookpoint(Site.BLOCK_OUT, 1)
MODEL, LAYOUT, IDS = shared("llama"), shared_layout("llama"), token_rows(2, 9)


def attached(*placements, **kwargs):
    return attach(MODEL, plan(*placements), layout=LAYOUT, **kwargs)


@pytest.mark.parametrize("family", DEFAULT_FAMILIES)
def test_remove_restores_the_model_bit_for_bit(family):
    model, layout = shared(family), shared_layout(family)
    before, hooks = plain_logits(model, IDS), hook_count(model)
    handle = attach(model, everywhere(layout), layout=layout)
    assert hook_count(model) > hooks
    run(handle, model, IDS.tolist())
    handle.remove()
    assert hook_count(model) == hooks
    assert torch.equal(plain_logits(model, IDS), before)


HALF_WAY = [("register_forward_hook", n) for n in range(4)] + [("register_forward_pre_hook", n) for n in range(5)]


@pytest.mark.parametrize(("method", "allowed"), HALF_WAY)
def test_a_registration_that_fails_half_way_leaves_nothing(monkeypatch, method, allowed):
    original, calls = getattr(nn.Module, method), []

    def failing(self, *args, **kwargs):
        calls.append(self)
        if len(calls) > allowed:
            raise RuntimeError("no more hooks")
        return original(self, *args, **kwargs)

    before, hooks = plain_logits(MODEL, IDS), hook_count(MODEL)
    sites = (Site.BLOCK_IN, Site.BLOCK_OUT)
    points = [Hookpoint(site, layer) for site in sites for layer in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, method, failing)
        with pytest.raises(RuntimeError, match="no more hooks"):
            attached(*map(placement, points))
    assert len(calls) == allowed + 1
    assert hook_count(MODEL) == hooks
    assert torch.equal(plain_logits(MODEL, IDS), before)


REFUSED = {
    "a vector of another width": (lambda: placement(POINT, direction(0, width=32)), ShapeError, r"wants \(64,\)"),
    "a vector of width one": (lambda: placement(POINT, torch.ones(1)), ShapeError, "would only broadcast"),
    "a layer out of range": (lambda: placement(Hookpoint(Site.BLOCK_OUT, 4)), LayerError, "layers 0 to 3"),
    "a dose beyond float32": (lambda: placement(POINT, multiplier=1e40), VectorValueError, "not finite in float32"),
}


@pytest.mark.parametrize(("make", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_before_the_first_hook(make, error, words):
    hooks = hook_count(MODEL)
    with pytest.raises(error, match=words):
        attached(placement(Hookpoint(Site.BLOCK_OUT, 0)), make())
    assert hook_count(MODEL) == hooks


def test_a_site_that_is_missing_is_refused_before_the_first_hook():
    model = shared("mamba")
    hooks = hook_count(model)
    with pytest.raises(SiteError, match="has no site mlp_out"):
        attach(model, plan(placement(POINT), placement(Hookpoint(Site.MLP_OUT, 1))), layout=shared_layout("mamba"))
    assert hook_count(model) == hooks


def test_the_same_placement_twice_is_refused():
    with pytest.raises(LayerError, match="given twice"):
        plan(placement(POINT), placement(POINT, multiplier=2.0))


def test_a_forward_outside_is_refused_not_left_unsteered():
    with (
        attached(placement(POINT)),
        pytest.raises(ScopeError, match=r"outside SteeringHandle.forward\(\) or generation\(\)"),
    ):
        plain_logits(MODEL, IDS)


def test_paused_runs_unsteered_on_purpose_and_ends():
    before = plain_logits(MODEL, IDS)
    with attached(placement(POINT)) as handle:
        with handle.paused():
            assert torch.equal(plain_logits(MODEL, IDS), before)
        assert not torch.allclose(torch.stack(run(handle, MODEL, IDS.tolist())), before, atol=1e-3)
        assert handle.report()[0]["firings"] == 1


def test_an_error_inside_a_forward_leaves_the_handle_usable():
    with attached(placement(POINT)) as handle:
        wanted = run(handle, MODEL, IDS.tolist())
        span = [handle.spans(RequestView(IDS[0].tolist(), 3, "loglikelihood"))]
        with pytest.raises(KeyError), handle.forward(Batch([9], [0], 9), span):
            raise KeyError
        assert torch.equal(torch.stack(run(handle, MODEL, IDS.tolist())), torch.stack(wanted))


def test_a_forward_inside_a_forward_is_refused():
    with attached(placement(POINT)) as handle:
        span = [handle.spans(RequestView([8, 9], 1, "loglikelihood"))]
        with handle.forward(Batch([2], [0], 2), span), pytest.raises(ScopeError, match="already under way"):
            run(handle, MODEL, IDS.tolist())


@pytest.mark.parametrize("site", list(Site))
def test_two_vectors_at_one_hookpoint_add_up(site):
    point, one, two = Hookpoint(site, 1), direction(1), direction(2)
    both = steered(MODEL, plan(placement(point, one), placement(point, two)), IDS, LAYOUT)
    summed = steered(MODEL, plan(placement(point, one + two)), IDS, LAYOUT)
    torch.testing.assert_close(both, summed, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("site", list(Site))
def test_placements_at_one_hookpoint_keep_their_order(site):
    point, value = Hookpoint(site, 1), direction(1)
    clamp = placement(point, value, operation="clamp", multiplier=0.0)
    then_add = steered(MODEL, plan(clamp, placement(point, value)), IDS, LAYOUT)
    then_clamp = steered(MODEL, plan(placement(point, value), clamp), IDS, LAYOUT)
    only_clamp = steered(MODEL, plan(clamp), IDS, LAYOUT)
    torch.testing.assert_close(then_clamp, only_clamp, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(then_add, only_clamp, atol=1e-3)


def test_each_row_of_a_positions_vector_goes_to_its_own_position():
    rows = torch.stack([direction(i) for i in range(3)])
    got = steered(MODEL, plan(placement(POINT, rows, scope="front:3")), IDS, LAYOUT, context=5)
    single = [placement(POINT, rows[i], scope=f"window:{i}:{i + 1}") for i in range(3)]
    assert torch.equal(got, steered(MODEL, plan(*single), IDS, LAYOUT, context=5))
    skipped = steered(MODEL, plan(placement(POINT, rows, scope="front:3", skip_first=True)), IDS, LAYOUT, context=5)
    assert torch.equal(skipped, steered(MODEL, plan(*single[1:]), IDS, LAYOUT, context=5))


def test_counts_of_forwards_and_tokens():
    places = [
        placement(POINT),
        placement(POINT, scope="after_prompt"),
        placement(POINT, scope="last_prompt", skip_first=True),
    ]
    with attached(*places, placement(POINT, scope="prompt", multiplier=0.0)) as handle:
        run(handle, MODEL, [IDS[0].tolist(), IDS[1, :4].tolist()], context=[5, 1])
        done = handle.report()
    # lengths 9 and 4, contexts 5 and 1; skip_first leaves nothing of the second row's last_prompt
    assert [d["steered_tokens"] for d in done[:3]] == [13, 5 + 4, 1]
    assert [d["firings"] for d in done[:3]] == [1, 1, 1]
    assert handle.requests == 2


def test_counts_of_a_generation():
    scopes = ("all", "after_prompt", "prompt")
    with attached(*(placement(POINT, scope=scope) for scope in scopes)) as handle:
        generate(MODEL, handle, *left_padded([IDS[0].tolist(), IDS[1, :4].tolist()]), steps=3)
        done = handle.report()
    # prompts of 9 and 4 tokens; the third new token is never an input
    assert [d["steered_tokens"] for d in done] == [13 + 2 * 2, 2 + 2 * 2, 13]
    assert [d["firings"] for d in done] == [3, 3, 1]


def test_a_neutral_plan_has_no_hooks_and_is_counted_by_the_caller():
    hooks = hook_count(MODEL)
    with attached(placement(POINT, multiplier=0.0, scope="after_prompt")) as handle:
        assert hook_count(MODEL) == hooks
        request = RequestView(IDS[0].tolist(), 5, "loglikelihood")
        handle.count([handle.spans(request)], [9])
        handle.check_touched()
        assert handle.report()[0]["scoped_tokens"] == 5
        assert handle.report()[0]["steered_tokens"] == 0


def test_a_placement_that_touched_nothing_is_an_error_at_the_end():
    with attached(placement(POINT, scope="last_prompt", skip_first=True)) as handle:
        handle.check_touched()  # nothing was asked for yet
        run(handle, MODEL, [IDS[0].tolist()], context=1)
        with pytest.raises(UntouchedError, match="steered no token in 1 requests"):
            handle.check_touched()


def test_prompt_tuning_is_refused():
    peft = pytest.importorskip("peft", reason="the test wants the peft extra")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(build("llama"), config).eval()
    layout = probe_layout(model.get_base_model())
    with (
        attach(model, plan(placement(POINT)), layout=layout) as handle,
        pytest.raises(ScopeError, match="prompt tuning"),
    ):
        run(handle, model, IDS.tolist())
    with pytest.raises(UnsupportedModelError, match="batch and sequence axes"):
        attach(model, plan(placement(POINT)))


def test_a_forward_of_another_width_is_refused():
    with attached(placement(POINT)) as handle:
        spans = [handle.spans(RequestView([8] * 5, 5, "loglikelihood"))] * 2
        with (
            handle.forward(Batch([5, 5], [0, 0], 5), spans),
            pytest.raises(ScopeError, match=r"\[2, 9\] positions where \[2, 5\]"),
        ):
            plain_logits(MODEL, IDS)


def test_a_forward_of_other_rows_is_refused():
    with attached(placement(POINT)) as handle:
        spans = [handle.spans(RequestView([8] * 9, 5, "loglikelihood"))] * 2
        with handle.forward(Batch([9, 9], [0, 0], 9), spans), pytest.raises(ScopeError, match=r"\[1, 9\] positions"):
            plain_logits(MODEL, IDS[:1])


def test_a_second_forward_of_a_plain_batch_is_refused():
    with attached(placement(POINT)) as handle:
        spans = [handle.spans(RequestView(row, 5, "loglikelihood")) for row in IDS.tolist()]
        with handle.forward(Batch([9, 9], [0, 0], 9), spans):
            plain_logits(MODEL, IDS)
            with pytest.raises(ScopeError, match="forward 1"):
                plain_logits(MODEL, IDS)


@pytest.mark.parametrize(
    "mask",
    [[[1, 1, 0], [1, 1, 1]], [[0, 0, 0], [1, 1, 1]], [[1, 0, 1], [1, 1, 1]]],
    ids=["right-padded", "empty", "holes"],
)
def test_generation_wants_left_padding(mask):
    with attached(placement(POINT)) as handle, pytest.raises(ScopeError, match="left-padded"):
        generate(MODEL, handle, IDS[:, :3], torch.tensor(mask))


def test_every_refusal_is_an_error_a_user_can_mend():
    assert all(issubclass(error, SteerError) for _, error, _ in REFUSED.values())
