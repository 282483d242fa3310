"""Tiny random causal language models and a tiny tokenizer, built in code, for tests without a network.

``FAMILIES`` maps a transformers model type to a builder; ``DEFAULT_FAMILIES`` are the diverse ones that every
identity is asserted on, the rest is swept by tests marked slow. A model has 4 layers (a few more), width 64 and 320
tokens; its norms and biases are random too, so that no identity holds by chance.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lm_eval_steer.layout import ModelLayout, probe_layout

VOCABULARY = 320
WIDTH = 64
LAYERS = 4


def _words(text: str) -> list[str]:
    return text.split()


DEFAULT_NAMES = _words(
    """
    llama gpt2 gpt_neox opt bloom mpt falcon gptj gpt_neo codegen gemma gemma2 gemma3_text qwen2 qwen3 phi phi3
    mistral mixtral olmo2 stablelm starcoder2 cohere granite mamba jamba
    """
)

# Every other family that a generic small config builds; the ones left out are multimodal wrappers or not causal.
MORE_NAMES = _words(
    """
    afmoe apertus arcee aria_text axk1 bailing_hybrid bamba bart beam bert bert-generation big_bird
    bigbird_pegasus biogpt bitnet blenderbot blenderbot-small camembert cohere2 cohere2_moe cpmant ctrl cwm
    data2vec-text dbrx deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 diffllama doge dots1 electra ernie
    ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon_h1 falcon_mamba flex_olmo flint gemma3n_text gemma4_text glm
    glm4 glm4_moe glm4_moe_lite glm_moe_dsa gpt-sw3 gpt_bigcode gpt_neox_japanese gpt_oss granite_swa granitemoe
    granitemoe_swa granitemoehybrid granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4
    hyperclovax inkling_text jais2 jetmoe kimi_linear kolibri1 laguna lfm2 lfm2_moe lfm3 llama4_text
    longcat_flash mamba2 marian mellum mimo_v2_flash minicpm3 minimax minimax_m2 minimax_m3_vl_text ministral
    ministral3 modernbert-decoder nanochat nemotron nemotron_h olmo olmo3 olmo_hybrid olmoe openai-gpt pegasus
    persimmon phimoe qwen2_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next recurrent_gemma rembert
    roberta roformer rwkv seed_oss smollm3 solar_open vaultgemma xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm
    youtu zamba zamba2 zaya
    """
)

_SIZES: dict[int, str] = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input",
    WIDTH: "hidden_size n_embd d_model  word_embed_proj_dim embedding_size dim emb_dim lru_width",
    96: "intermediate_size n_inner ffn_dim ffn_hidden_size decoder_ffn_dim encoder_ffn_dim dim_ff dff",
    4: "num_hidden_layers n_layer num_layers n_layers decoder_layers encoder_layers num_blocks "
    "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads attention_heads "
    "num_experts num_local_experts n_routed_experts moe_num_experts linear_num_key_heads linear_num_value_heads "
    "mamba_n_heads mamba_num_heads n_mamba_heads",
    2: "num_key_value_heads num_kv_heads multi_query_group_num num_experts_per_tok moe_topk moe_k "
    "num_experts_per_token",
    16: "head_dim attention_head_dim v_head_dim qk_nope_head_dim d_kv global_head_dim swa_head_dim swa_v_head_dim "
    "kv_lora_rank q_lora_rank o_lora_rank index_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim "
    "hidden_size_per_layer_input laurel_rank chunk_size mamba_chunk_size",
    8: "qk_rope_head_dim rotary_dim rope_head_dim mamba_d_state state_size ssm_state_size",
    128: "max_position_embeddings n_positions max_seq_len n_ctx max_sequence_length",
    48: "moe_intermediate_size expert_ffn_hidden_size shared_expert_intermediate_size shared_intermediate_size "
    "moe_shared_expert_intermediate_size",
    1: "n_group topk_group num_expert_group n_groups mamba_n_groups mamba_ngroups n_shared_experts",
    32: "sliding_window attention_window attention_window_size attention_chunk_size window_size",
    0: "pad_token_id bos_token_id unk_token_id mask_token_id sep_token_id decoder_start_token_id",
}
_GENERIC: dict[str, Any] = {name: size for size, names in _SIZES.items() for name in names.split()}
_GENERIC |= {"eos_token_id": 1, "forced_eos_token_id": None, "initializer_range": 0.12, "init_std": 0.12}
_GENERIC |= {"is_decoder": True, "use_mamba_kernels": False, "layer_norm_eps": 1e-5}

_HYBRID = ["linear_attention", "full_attention"] * 2
_OVERRIDES: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": WIDTH, "ffn_hidden_size": 96},
    },
    "gemma3n_text": {
        "num_hidden_layers": 6,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granite": {"residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    "granitemoehybrid": {"layer_types": _HYBRID},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": _HYBRID},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"head_dim": 8, "num_layers": 2},
    "mamba2": {"head_dim": 32},
    "nemotron_h": {"mamba_head_dim": 32},
    "recurrent_gemma": {"num_hidden_layers": 6},
    "xlstm": {"qk_dim_factor": 1.0},
    "zamba": {"num_hidden_layers": 9, "attention_head_dim": 32, "n_mamba_heads": 2},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}


def build(name: str, **overrides: Any) -> PreTrainedModel:
    """Return a fresh tiny model of the family ``name``: seeded random weights, float32, in evaluation mode.

    Args:
        name: a transformers model type, one of ``FAMILIES``.
        overrides: configuration entries that differ from the tiny ones.
    """
    return _made(name, overrides) if overrides else copy.deepcopy(_template(name))  # a copy takes a quarter of the time


@functools.cache
def _template(name: str) -> PreTrainedModel:
    return _made(name, {})


def _made(name: str, overrides: dict[str, Any]) -> PreTrainedModel:
    kind = CONFIG_MAPPING[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    values = {key: value for key, value in _GENERIC.items() if key in fields}
    if "kv_lora_rank" in fields:  # latent attention has as many key heads as query heads
        values["num_key_value_heads"] = 4
    config = kind(**{**values, **_OVERRIDES.get(name, {}), **overrides})
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, architecture if isinstance(architecture, str) else architecture[0])(config).eval()
        _randomise_vectors(model)
    model.generation_config.eos_token_id = None  # a random model must not stop early in a comparison
    model.generation_config.pad_token_id = 0
    return model


def _randomise_vectors(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and name.endswith((".bias", "norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")):
            with torch.no_grad():
                parameter.add_(0.1 * torch.randn_like(parameter))


FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    name: functools.partial(build, name) for name in (*DEFAULT_NAMES, *MORE_NAMES) if name in CONFIG_MAPPING
}
DEFAULT_FAMILIES = tuple(name for name in DEFAULT_NAMES if name in FAMILIES)


@functools.cache
def shared(name: str) -> PreTrainedModel:
    """Return the family's model, built once; a test that changes weights builds its own."""
    return build(name)


@functools.cache
def shared_layout(name: str) -> ModelLayout:
    """Return the layout of :func:`shared`."""
    return probe_layout(shared(name))


def token_rows(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """Return random token ids ``[rows, length]`` without the special ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(8, VOCABULARY, (rows, length), generator=generator)


_SPECIAL = ("<pad>", "<eos>", "<|im_start|>", "<|im_end|>")
_TEXT = (
    "The quick brown fox jumps over the lazy dog. user assistant system Question: Answer: Response: "
    "I think that the answer is yes (A) or no (B). How are you? the them then there that this is it in on an and a"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@functools.cache
def tiny_tokenizer(*, chat: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of at most 320 tokens; a character beyond ASCII takes several tokens.

    Args:
        chat: with a ChatML chat template.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator([_TEXT], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=128,
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
