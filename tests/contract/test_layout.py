"""Blocks and sites are found in every family, wrapped or split; what cannot be steered is refused by name."""

from __future__ import annotations

import itertools

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from torch import nn

from lm_eval_steer.attachment import attach
from lm_eval_steer.errors import SiteError, UnsupportedModelError
from lm_eval_steer.fingerprint import fingerprint
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layout import probe_layout
from tests.contract.blocks_table import BLOCKS
from tests.steer_tools import direction, everywhere, hook_count, placement, plain_logits, plan, run, steered
from tests.tiny_models import DEFAULT_FAMILIES, FAMILIES, WIDTH, build, shared, shared_layout, token_rows

WHERE = {family: where for where, families in BLOCKS.items() for family in families.split() if family in FAMILIES}
PARALLEL = ("hy_v4", "deepseek_v4", "gemma3n_text")
REFUSED = {
    "cpmant": "have no batch and sequence axes",  # it prepends a prompt of 32 positions
    "xlnet": "have no batch and sequence axes",  # [seq, batch, width], and not causal without a mask
    "xlm": "the output of block 0 is not the input of block 1",
    "hrm_text": "block 0 ran 6 times in one forward, not once",
}


def check_family(family):
    layout = shared_layout(family)
    assert (layout.path, layout.n_layers) == WHERE[family]
    assert layout.d_model == WIDTH
    modules = dict(shared(family).named_modules())
    assert all(modules[target.path] is target.module for target in layout.targets.values())
    for site in Site:
        have = sum(point.site is site for point in layout.targets)
        assert (have == layout.n_layers) == (site not in layout.missing)
    assert any(point.site is Site.ATTN_OUT for point in layout.targets) or Site.ATTN_OUT in layout.missing


@pytest.mark.parametrize("family", DEFAULT_FAMILIES)
def test_blocks_are_where_they_are(family):
    check_family(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(WHERE) - set(DEFAULT_FAMILIES)))
def test_blocks_are_where_they_are_in_all_other_families(family):
    check_family(family)


@pytest.mark.parametrize("family", sorted(set(REFUSED) & set(FAMILIES)))
def test_what_has_no_stack_of_blocks_is_refused_by_name(family):
    model = build(family)
    with pytest.raises(UnsupportedModelError, match=f"{type(model).__name__} cannot be steered.*{REFUSED[family]}"):
        probe_layout(model)
    assert hook_count(model) == hook_count(build(family))


def test_a_stream_that_is_rescaled_between_blocks_is_refused():
    with pytest.raises(UnsupportedModelError, match="the output of block 5 is not the input of block 6"):
        probe_layout(build("rwkv", num_hidden_layers=8))  # RWKV halves the stream after every sixth block


def test_a_bidirectional_model_is_refused():
    with pytest.raises(UnsupportedModelError, match="not causal"):
        probe_layout(build("bert", is_decoder=False))


def test_a_model_without_any_list_of_modules_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    model.config = shared("llama").config
    with pytest.raises(UnsupportedModelError, match="it has no list of modules"):
        probe_layout(model)


@pytest.mark.parametrize("family", [family for family in PARALLEL if family in FAMILIES])
def test_parallel_streams_have_sublayer_sites_and_clear_errors_for_blocks(family):
    model, layout, ids = shared(family), shared_layout(family), token_rows(1, 9)
    for site in (Site.BLOCK_OUT, Site.BLOCK_IN):
        with pytest.raises(SiteError, match=r"parallel streams.*It has: attn_out, (head_z, )?mlp_out"):
            attach(model, plan(placement(Hookpoint(site, 0))), layout=layout)
    for site in (Site.ATTN_OUT, Site.MLP_OUT):
        got = steered(model, everywhere(layout, site), ids, layout)
        assert not torch.allclose(got, plain_logits(model, ids), atol=1e-4)
    assert not layout.plain_residual


# family, layer → what writes there
SITES = {
    ("llama", 1): ("self_attn.o_proj", "mlp.down_proj"),
    ("gpt2", 1): ("attn.c_proj", "mlp.c_proj"),
    ("gpt_neox", 1): ("attention.dense", "mlp.dense_4h_to_h"),
    ("opt", 1): ("self_attn.out_proj", "fc2"),
    ("gptj", 1): ("attn.out_proj", "mlp.fc_out"),
    ("mpt", 1): ("attn.out_proj", "ffn.down_proj"),
    ("phi", 1): ("self_attn.dense", "mlp.fc2"),
    ("mixtral", 1): ("self_attn.o_proj", "mlp"),
    ("mamba", 1): ("mixer.out_proj", None),
    ("jamba", 0): ("mamba.out_proj", "feed_forward.down_proj"),  # the MLP, not the mixer, is mlp_out
    ("jamba", 1): ("self_attn.o_proj", "feed_forward"),
    ("afmoe", 3): ("self_attn.o_proj", "mlp"),  # not pre_mlp_layernorm
    ("recurrent_gemma", 3): ("temporal_block.linear_out", "mlp_block.down_proj"),
    ("nemotron_h", 0): ("mixer.out_proj", None),
    ("nemotron_h", 3): (None, "mixer.down_proj"),  # attention, Mamba, MLP and experts are all called mixer
    ("longcat_flash", 1): (None, "mlp"),  # two attentions a block: neither is *the* attention
    ("bert", 1): ("attention.output.dense", "output.dense"),
}


@pytest.mark.parametrize(("where", "paths"), SITES.items())
def test_the_module_that_writes_is_found(where, paths):
    family, layer = where
    layout = shared_layout(family)
    block = f"{layout.path}.{layer}."
    for site, path in zip((Site.ATTN_OUT, Site.MLP_OUT), paths, strict=True):
        target = layout.targets.get(Hookpoint(site, layer))
        assert (None if target is None else target.path.removeprefix(block)) == path


def test_a_missing_site_is_named_with_those_there_are():
    with pytest.raises(SiteError, match=r"layer 2 .* has no site mlp_out.* It has: attn_out, block_in, block_out"):
        shared_layout("mamba").target(Hookpoint(Site.MLP_OUT, 2))


def lora(family):
    peft = pytest.importorskip("peft", reason="the test wants the peft extra")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False)
    torch.manual_seed(3)
    return peft.get_peft_model(build(family), config).eval()


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "mistral"])
def test_a_lora_model_has_the_same_blocks_and_steers(family):
    model, plain = lora(family), shared_layout(family)
    layout = probe_layout(model)
    assert layout.n_layers == plain.n_layers
    assert set(layout.targets) == set(plain.targets)
    assert all(target.path.endswith(plain.targets[point].path) for point, target in layout.targets.items())
    ids, value = token_rows(2, 9), direction(2)
    before = plain_logits(model, ids)
    post = steered(model, plan(placement(Hookpoint(Site.BLOCK_OUT, 1), value)), ids, layout)
    pre = steered(model, plan(placement(Hookpoint(Site.BLOCK_IN, 2), value)), ids, layout)
    assert torch.equal(post, pre)
    assert not torch.allclose(post, before, atol=1e-3)
    assert torch.equal(plain_logits(model, ids), before)


def test_lora_attention_is_steered_after_the_adapter():
    model, ids, value = lora("llama"), token_rows(2, 9), direction(2)
    layout = probe_layout(model)
    point = Hookpoint(Site.ATTN_OUT, 1)
    got = steered(model, plan(placement(point, value)), ids, layout)
    with torch.no_grad():
        layout.targets[point].module.base_layer.bias = nn.Parameter(value)
    torch.testing.assert_close(got, plain_logits(model, ids), atol=1e-5, rtol=1e-5)


def test_an_adapter_is_another_model_to_the_fingerprint():
    plain, adapted = shared("llama"), lora("llama")
    same = fingerprint(plain, shared_layout("llama"))
    assert fingerprint(adapted, probe_layout(adapted)).differs_from(same) == ["weights"]


@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_embeddings_steer_alike(tied):
    model, ids = build("llama", tie_word_embeddings=tied), token_rows(1, 9)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    layout = probe_layout(model)
    got = steered(model, everywhere(layout), ids, layout)
    assert not torch.allclose(got, plain_logits(model, ids), atol=1e-3)


def cpu_and_disk(model, folder):
    blocks = {f"model.layers.{i}": "cpu" if i < 2 else "disk" for i in range(4)}
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk", **blocks}
    return dispatch_model(model, places, main_device="cpu", offload_dir=str(folder), force_hooks=True)


SPLITS = {
    "cpu and disk": cpu_and_disk,
    "all on disk": lambda model, folder: disk_offload(model, str(folder), execution_device="cpu") or model,
    "cpu offload": lambda model, folder: cpu_offload(model, execution_device="cpu") or model,
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_a_model_that_accelerate_split_steers_as_the_whole(split, tmp_path):
    whole, ids = shared("llama"), token_rows(2, 9)
    model = split(build("llama"), tmp_path)
    assert any(parameter.device.type == "meta" for parameter in model.parameters())
    layout = probe_layout(model)
    assert set(layout.targets) == set(shared_layout("llama").targets)
    assert fingerprint(model, layout) == fingerprint(whole, shared_layout("llama"))
    plan_ = everywhere(layout, operation="add_norm_preserving")
    with attach(model, plan_) as handle:
        got = torch.stack(run(handle, model, ids.tolist()))
    assert torch.equal(got, steered(whole, plan_, ids, shared_layout("llama")))


def test_a_saved_model_loaded_with_a_device_map_steers_as_the_whole(tmp_path):
    whole, ids = shared("llama"), token_rows(2, 9)
    whole.save_pretrained(tmp_path / "model", max_shard_size="50KB")
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{i}": "cpu" if i != 1 else "disk" for i in range(4)}
    model = type(whole).from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=str(tmp_path / "off"), dtype=torch.float32
    )
    layout = probe_layout(model)
    assert fingerprint(model, layout) == fingerprint(whole, shared_layout("llama"))
    assert torch.equal(
        steered(model, everywhere(layout), ids, layout), steered(whole, everywhere(layout), ids, shared_layout("llama"))
    )


def test_the_fingerprint_is_of_the_model_and_not_of_its_dtype():
    layout = shared_layout("llama")
    same = fingerprint(shared("llama"), layout)
    half = build("llama").to(torch.bfloat16)
    assert fingerprint(half, probe_layout(half)) == same
    tuned = build("llama")
    with torch.no_grad():
        tuned.model.layers[2].self_attn.q_proj.weight.mul_(1.5)
    assert fingerprint(tuned, probe_layout(tuned)).differs_from(same) == ["weights"]
    wider = build("llama", intermediate_size=80)
    assert "config" in fingerprint(wider, probe_layout(wider)).differs_from(same)


EDITS = {
    "a norm": lambda model: model.model.layers[1].input_layernorm.weight.mul_(1.5),
    "the final norm": lambda model: model.model.norm.weight.add_(0.5),
    "a bias": lambda model: model.model.layers[3].self_attn.o_proj.bias.add_(0.5),
    "the embedding": lambda model: model.model.embed_tokens.weight.mul_(1.5),
    "the head": lambda model: model.lm_head.weight.mul_(1.5),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edit_of_anything_that_is_computed_with_is_another_model(edit):
    model = build("llama", attention_bias=True, tie_word_embeddings=False)
    before = fingerprint(model, probe_layout(model))
    with torch.no_grad():
        edit(model)
    assert fingerprint(model, probe_layout(model)).differs_from(before) == ["weights"]


@pytest.mark.parametrize(
    ("family", "split"),
    [
        ("llama", "cpu and disk"),
        *itertools.product(["llama", "gpt2", "gemma2"], ["all on disk", "cpu offload"]),
    ],
)
def test_tied_weights_that_are_offloaded_are_the_same_model(family, split, tmp_path):
    whole, model = (build(family, tie_word_embeddings=True) for _ in "ab")
    same = fingerprint(whole, probe_layout(whole))
    model = SPLITS[split](model, tmp_path)
    assert fingerprint(model, probe_layout(model)) == same


def test_the_state_of_an_adapter_is_part_of_the_model():
    peft = pytest.importorskip("peft")
    prints = []
    for alpha in (8, 64):
        config = peft.LoraConfig(target_modules=["q_proj"], r=2, lora_alpha=alpha, init_lora_weights=False)
        torch.manual_seed(0)
        model = peft.get_peft_model(build("llama"), config).eval()
        prints.append(fingerprint(model, probe_layout(model)))
        with model.disable_adapter():
            prints.append(fingerprint(model, probe_layout(model)))
    assert len({each.weights for each in prints}) == 4


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "bert.embeddings.position_embeddings.weight"),
        ("bert", "cls.predictions.transform.dense.weight"),
        ("rembert", "rembert.embeddings.word_embeddings.weight"),
        ("modernbert-decoder", "lm_head.dense.weight"),
        ("deepseek_v3", "model.layers.3.mlp.gate.e_score_correction_bias"),
    ],
)
def test_what_stands_outside_the_blocks_counts_too(family, name):
    model = build(family)
    before = fingerprint(model, probe_layout(model))
    with torch.no_grad():
        model.state_dict()[name].add_(0.5)
    assert fingerprint(model, probe_layout(model)).differs_from(before) == ["weights"]


@pytest.mark.parametrize(
    ("family", "changed"),
    [
        ("gemma2", {"query_pre_attn_scalar": 7}),
        ("cohere", {"logit_scale": 0.5}),
        ("gpt2", {"layer_norm_epsilon": 0.1}),
        ("gpt2", {"activation_function": "relu"}),
        ("gpt_neox", {"use_parallel_residual": False}),
    ],
)
def test_a_configuration_that_changes_numbers_is_another_model(family, changed):
    prints = [fingerprint(model, probe_layout(model)) for model in (build(family), build(family, **changed))]
    assert prints[0].differs_from(prints[1]) == ["config"]


def test_other_rotary_settings_are_another_model():
    one, other = build("llama"), build("llama", rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    prints = [fingerprint(model, probe_layout(model)) for model in (one, other)]
    assert prints[0].differs_from(prints[1]) == ["config"]


@pytest.mark.skipif("gemma4_text" not in FAMILIES, reason="the installed transformers has no Gemma 4 yet")
def test_a_configuration_whose_layers_differ_has_a_fingerprint():
    one, other = build("gemma4_text"), build("gemma4_text", global_head_dim=32)
    prints = [fingerprint(model, probe_layout(model)) for model in (one, other, build("gemma4_text"))]
    assert prints[0] == prints[2]
    assert "config" in prints[0].differs_from(prints[1])


def test_the_probe_leaves_mode_and_hooks_as_they_were():
    model = build("gpt2").train()
    before = hook_count(model)
    probe_layout(model)
    assert model.training
    assert hook_count(model) == before
