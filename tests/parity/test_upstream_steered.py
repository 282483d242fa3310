"""lm-eval's ``--model steered``: the examples of its README and docstring, converted, give what they mean to.

The oracles are a hook written out here (h + c·W_dec[i]; the clamp of the projection of h − b_dec) and upstream's own
``steer``, ``SteeredModel.add`` and ``SteeredModel.clamp``. Upstream itself stops on both examples with an assertion,
because a bias comes with ``add``; the last test says so, and fails when upstream mends it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.models.hf_steered import SteeredModel, steer
from safetensors.torch import save_file
from torch import Tensor, nn

from lm_eval_steer.attachment import attach
from lm_eval_steer.formats.base import Told
from lm_eval_steer.formats.convert import Written, convert_file
from lm_eval_steer.model_args import parse_arguments
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.positions import Batch
from lm_eval_steer.scope import RequestView
from tests.tiny_models import LAYERS, WIDTH, shared, token_rows

IDS = token_rows(3, 9)
Edit = Callable[[Tensor], Tensor]


def steered_logits(model: nn.Module, plan: SteeringPlan) -> Tensor:
    requests = [RequestView(row.tolist(), 3, "loglikelihood") for row in IDS]
    with attach(model, plan) as handle, torch.no_grad():
        spans = [handle.spans(request) for request in requests]
        with handle.forward(Batch([9] * 3, [0] * 3, 9), spans):
            logits: Tensor = model(IDS).logits
        handle.check_touched()
    return logits


def by_hand(model: nn.Module, edits: dict[str, Edit]) -> Tensor:
    """Edit the outputs of modules of the decoder, by path, with hooks of the test's own."""

    def hook(edit: Edit) -> Callable[..., Any]:
        return lambda _m, _a, out: (edit(out[0]), *out[1:]) if isinstance(out, tuple) else edit(out)

    modules = dict(model.base_model.named_modules())  # type: ignore[operator, union-attr]
    handles = [modules[path].register_forward_hook(hook(edit)) for path, edit in edits.items()]
    try:
        with torch.no_grad():
            logits: Tensor = model(IDS).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits


def upstreams(model: nn.Module, edits: dict[str, Edit]) -> Tensor:
    with torch.no_grad(), steer(model, edits):  # type: ignore[arg-type]
        logits: Tensor = model(IDS).logits
    return logits


def converted(source: Path, tmp_path: Path) -> tuple[Written, SteeringPlan]:
    written = convert_file(source, tmp_path / "out.safetensors", Told("out"))
    assert written.plan is not None
    return written, parse_arguments({"spec": str(written.plan)}).resolve(LAYERS)


def close(one: Tensor, two: Tensor, plain: Tensor) -> None:
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
    assert float((one - plain).abs().max()) > 1e-2


def plain(model: nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(IDS).logits
    return logits


def seeded(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clamped(h: Tensor, v: Tensor, value: float, b: Tensor | None) -> Tensor:
    unit = v / v.norm()
    centred = h if b is None else h - b
    return h + (value - centred @ unit)[..., None] * unit


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
class TestReadmePt:
    """``{"layers.3": {"steering_vector": randn(1, d), "bias": randn(1, d), "steering_coefficient": 1, …}}``."""

    def config(self, action: str, coefficient: float = 1) -> dict[str, dict[str, Any]]:
        vector, bias = seeded(1, WIDTH, seed=1), seeded(1, WIDTH, seed=2)
        entry = {"steering_vector": vector, "bias": bias, "steering_coefficient": coefficient, "action": action}
        return {"layers.3": entry}

    def test_add(self, tmp_path, family):
        torch.save(self.config("add"), tmp_path / "steer_config.pt")
        written, plan = converted(tmp_path / "steer_config.pt", tmp_path)
        assert written.files == (tmp_path / "out.safetensors",)
        model, v = shared(family), seeded(1, WIDTH, seed=1)
        ours = steered_logits(model, plan)
        close(ours, by_hand(model, {"layers.3": lambda h: h + v}), plain(model))
        close(ours, upstreams(model, {"layers.3": partial(SteeredModel.add, vector=v, head_index=None)}), plain(model))

    @pytest.mark.parametrize("coefficient", [-3.0, 0.0, 12.5])
    def test_clamp(self, tmp_path, family, coefficient):
        torch.save(self.config("clamp", coefficient), tmp_path / "steer_config.pt")
        plan = converted(tmp_path / "steer_config.pt", tmp_path)[1]
        model, v, b = shared(family), seeded(WIDTH, seed=1), seeded(WIDTH, seed=2)
        ours = steered_logits(model, plan)
        close(ours, by_hand(model, {"layers.3": lambda h: clamped(h, v, coefficient, b)}), plain(model))
        theirs = partial(SteeredModel.clamp, direction=v / torch.norm(v), value=coefficient, head_index=None, bias=b)
        close(ours, upstreams(model, {"layers.3": theirs}), plain(model))

    def test_parts_and_several_layers(self, tmp_path, family):
        part = "attention" if family == "gpt_neox" else "self_attn"
        names = {"layers.0": "add", "layers.1.mlp": "add", f"layers.2.{part}": "clamp", "layers.2": "clamp"}
        vectors = {name: seeded(WIDTH, seed=i) for i, name in enumerate(names)}
        config = {
            name: {"steering_vector": vectors[name], "steering_coefficient": 2.0, "action": action, "bias": None}
            for name, action in names.items()
        }
        torch.save(config, tmp_path / "s.pt")
        plan = converted(tmp_path / "s.pt", tmp_path)[1]
        model = shared(family)
        edits: dict[str, Edit] = {
            name: partial(clamped, v=vectors[name], value=2.0, b=None)
            if action == "clamp"
            else partial(lambda h, v: h + 2 * v, v=vectors[name])
            for name, action in names.items()
        }
        close(steered_logits(model, plan), by_hand(model, edits), plain(model))
        close(steered_logits(model, plan), upstreams(model, edits), plain(model))


HEADER = "loader,action,sparse_model,hookpoint,feature_index,steering_coefficient,head_index,sae_id,description,"


def sae_folders(root: Path) -> dict[str, Tensor]:
    """The two SAEs of the docstring's CSV as local folders, under their own names."""
    tensors = {name: seeded(40, WIDTH, seed=i) for i, name in enumerate(("pythia", "gemma"))}
    tensors |= {"pythia_b": seeded(WIDTH, seed=7), "gemma_b": seeded(WIDTH, seed=8)}
    one, two = root / "sae-pythia-70m-32k" / "layers.3", root / "gemma-scope" / "layer_2/width_16k/canonical"
    for folder, file, name in ((one, "sae", "pythia"), (two, "sae_weights", "gemma")):
        folder.mkdir(parents=True)
        save_file({"W_dec": tensors[name], "b_dec": tensors[f"{name}_b"]}, folder / f"{file}.safetensors")
    (one / "cfg.json").write_text(json.dumps({"d_in": WIDTH, "k": 16, "num_latents": 40}))
    metadata = {"hook_name": "blocks.2.hook_resid_post", "sae_lens_version": "6.0.0"}
    (two / "cfg.json").write_text(json.dumps({"d_in": WIDTH, "architecture": "jumprelu", "metadata": metadata}))
    return tensors


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
class TestReadmeCsv:
    """The README's CSV (sparsify) and the docstring's (sparsify and sae_lens), with local folders for hub names."""

    def test_readme(self, tmp_path, family):
        tensors = sae_folders(tmp_path)
        text = "loader,action,sparse_model,hookpoint,feature_index,steering_coefficient\n"
        (tmp_path / "steer_config.csv").write_text(text + "sparsify,add,sae-pythia-70m-32k,layers.3,30,10.0\n")
        written, plan = converted(tmp_path / "steer_config.csv", tmp_path)
        assert written.files == (tmp_path / "out.safetensors",)
        model, v = shared(family), 10.0 * tensors["pythia"][30]
        close(steered_logits(model, plan), by_hand(model, {"layers.3": lambda h: h + v}), plain(model))
        theirs = {"layers.3": partial(SteeredModel.add, vector=v, head_index=None)}
        close(steered_logits(model, plan), upstreams(model, theirs), plain(model))

    @pytest.mark.parametrize("hookpoint", ["layers.2", ""])
    def test_docstring(self, tmp_path, family, hookpoint):
        tensors = sae_folders(tmp_path)
        rows = (
            "sparsify,add,sae-pythia-70m-32k,layers.3,30,10.0,,,,",
            f"sae_lens,add,gemma-scope,{hookpoint},12,24.0,,layer_2/width_16k/canonical,increase dogs,",
        )
        (tmp_path / "s.csv").write_text("\n".join((HEADER, *rows)))
        written, plan = converted(tmp_path / "s.csv", tmp_path)
        assert [file.name for file in written.files] == ["out-1.safetensors", "out-2.safetensors"]
        model, one, two = shared(family), 10 * tensors["pythia"][30], 24 * tensors["gemma"][12]
        edits: dict[str, Edit] = {"layers.3": lambda h: h + one, "layers.2": lambda h: h + two}
        close(steered_logits(model, plan), by_hand(model, edits), plain(model))
        close(steered_logits(model, plan), upstreams(model, edits), plain(model))

    def test_features_at_one_hookpoint_add_up(self, tmp_path, family):
        tensors = sae_folders(tmp_path)
        rows = [f"sparsify,add,sae-pythia-70m-32k,layers.3,{i},{c},,,," for i, c in ((30, 10.0), (5, -4.0), (6, 3.0))]
        (tmp_path / "s.csv").write_text("\n".join((HEADER, *rows)))
        plan = converted(tmp_path / "s.csv", tmp_path)[1]
        assert [placement.multiplier for placement in plan.placements] == [10.0, -4.0, 3.0]
        model, w = shared(family), tensors["pythia"]
        total = 10 * w[30] - 4 * w[5] + 3 * w[6]
        close(steered_logits(model, plan), by_hand(model, {"layers.3": lambda h: h + total}), plain(model))

    def test_clamp_reads_from_b_dec(self, tmp_path, family):
        tensors = sae_folders(tmp_path)
        row = "sae_lens,clamp,gemma-scope,,12,24.0,,layer_2/width_16k/canonical,,"
        (tmp_path / "s.csv").write_text("\n".join((HEADER, row)))
        plan = converted(tmp_path / "s.csv", tmp_path)[1]
        model, v, b = shared(family), tensors["gemma"][12], tensors["gemma_b"]
        ours = steered_logits(model, plan)
        close(ours, by_hand(model, {"layers.2": lambda h: clamped(h, v, 24.0, b)}), plain(model))
        theirs = partial(SteeredModel.clamp, direction=v / torch.norm(v), value=24.0, head_index=None, bias=b)
        close(ours, upstreams(model, {"layers.2": theirs}), plain(model))


def test_upstream_stops_on_its_own_example(tmp_path):
    config = TestReadmePt().config("add")
    torch.save(config, tmp_path / "steer_config.pt")
    model = object.__new__(SteeredModel)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm_eval.models.huggingface.HFLM.__init__", lambda self, **kwargs: None)
        patch.setattr(SteeredModel, "device", torch.device("cpu"))
        patch.setattr(SteeredModel, "model", shared("llama"))
        with pytest.raises(AssertionError, match="Bias is not supported"):
            SteeredModel.__init__(model, "unused", str(tmp_path / "steer_config.pt"))
