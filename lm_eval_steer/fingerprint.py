"""Fingerprint of a model: what it computes with, never where it lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lm_eval_steer.files import canonical_json, sha256_bytes
from lm_eval_steer.layout import ModelLayout, text_config
from lm_eval_steer.vector import Fingerprint

_CONFIG_FACTS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "tie_word_embeddings",
    "max_position_embeddings",
    "sliding_window",
    "layer_types",
    # activations and norms
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "norm_epsilon",
    "norm_eps",
    # factors
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "embedding_multiplier",
    "residual_multiplier",
    "attention_multiplier",
    # how a block is wired
    "use_parallel_residual",
    "num_experts_per_tok",
    "norm_topk_prob",
    "routed_scaling_factor",
)
_NOT_GENERATION = ("transformers_version", "_from_model_config")
_PROBES = ("The quick brown fox", "\n\n1 22 333", " café 北京 🙂", "def f(x):\n\treturn x", "<|im_start|>user\n")
_ROWS, _COLUMNS = 4, 128


def fingerprint(model: nn.Module, layout: ModelLayout, tokenizer: Any | None = None) -> Fingerprint:
    """Return the fingerprint of a model and its tokenizer.

    The weights' part hashes fixed entries of every parameter and saved buffer, and the state of adapters (scale, which
    are active); of a model that reads more than text, those of its language part. Entries are cast to bfloat16, so
    float32 and bfloat16 copies agree; an adapter, a fine-tune or an edit of any tensor as a whole differs (and so, by
    its rounding, does a float16 copy). An edit that spares the entries read is not seen.

    Args:
        model: a causal LM; offloaded weights are read where accelerate keeps them.
        layout: of that model.
        tokenizer: its tokenizer; None leaves that part unknown.
    """
    config = text_config(model)
    facts = {**{name: _fact(config, name) for name in _CONFIG_FACTS}, "rope": _rope(config)}
    digest = hashlib.sha256()
    for name, tensor in _chosen(model, layout):
        digest.update(f"{name}:{tuple(tensor.shape)}".encode())
        digest.update(_entries(tensor))
    for name, state in _adapters(model):
        digest.update(f"{name}:{state}".encode())
    return Fingerprint(
        config=sha256_bytes(canonical_json({k: _plain(v) for k, v in facts.items()}).encode())[:16],
        weights=digest.hexdigest()[:16],
        tokenizer=None if tokenizer is None else tokenizer_hash(tokenizer),
    )


def tokenizer_hash(tokenizer: Any) -> str:
    """Return a hash of the vocabulary and of the ids that a few telling strings get."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    ids = [list(tokenizer.encode(text, add_special_tokens=False)) for text in _PROBES]
    return sha256_bytes(canonical_json([vocabulary, ids]).encode())[:16]


def generation_facts(model: Any) -> dict[str, str]:
    """Return what a model's generation config says that its defaults do not: a text depends on it, a score does not."""
    config = getattr(model, "generation_config", None)
    said = {} if config is None else config.to_diff_dict()
    return {name: _said(value) for name, value in sorted(said.items()) if name not in _NOT_GENERATION}


def _chosen(model: Any, layout: ModelLayout) -> Iterator[tuple[str, Tensor]]:
    trunk = model.get_submodule(layout.path.rpartition(".")[0])
    beside = list(_tensors("trunk", trunk, _inside(*layout.blocks)))
    yield from beside
    tied = {(tensor.shape, _entries(tensor)) for _, tensor in beside}  # offloading makes two tensors of tied ones
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        found = _tensors("head", head, set())
        yield from ((name, tensor) for name, tensor in found if (tensor.shape, _entries(tensor)) not in tied)
    for index, block in enumerate(layout.blocks):
        yield from _tensors(f"block{index}", block, set())
    if text_config(model) is model.config:  # it reads text alone, so all of it counts
        yield from _tensors("rest", model, _inside(trunk, *(() if head is None else (head,))))


def _adapters(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield what the weights of PEFT's adapters do not say: their scale, and which of them are in force."""
    for path, module in model.named_modules():
        off = getattr(module, "disable_adapters", None)
        if isinstance(off, bool):  # a method of that name is every model's own
            scale = getattr(module, "scaling", None)
            yield path, str([sorted(scale.items()) if isinstance(scale, dict) else None, module.active_adapters, off])


def _inside(*roots: nn.Module) -> set[nn.Module]:
    return {module for root in roots for module in root.modules()}


def _rope(config: Any) -> str:
    """Return the rotary settings as JSON, wherever this version of transformers keeps them."""
    said = _fact(config, "rope_parameters") or _fact(config, "rope_scaling") or {}
    theta = _fact(config, "rope_theta")
    whole = {"rope_type": "default", **({} if theta is None else {"rope_theta": theta}), **said}
    return json.dumps(_floats(whole), sort_keys=True, default=str)


def _floats(value: Any) -> Any:
    """Return settings with 10000 written as 10000.0, however a configuration file has it."""
    if isinstance(value, Mapping):
        return {key: _floats(each) for key, each in value.items()}
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _fact(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except RuntimeError:  # where layers differ (Gemma 4), transformers refuses to give one value for all
        return [getattr(config.per_layer_config[i], name, None) for i in range(config.num_hidden_layers)]


def _tensors(prefix: str, root: nn.Module, left_out: set[nn.Module]) -> Iterator[tuple[str, Tensor]]:
    for path, module in root.named_modules():
        if module in left_out:
            continue
        unsaved = module._non_persistent_buffers_set
        buffers = [pair for pair in module.named_buffers(recurse=False) if pair[0] not in unsaved]
        for name, tensor in [*module.named_parameters(recurse=False), *buffers]:
            label = f"{prefix}.{path}.{name}".replace(".base_layer", "")
            yield label, _loaded(module, name, tensor)


def _loaded(module: nn.Module, name: str, parameter: Tensor) -> Tensor:
    """Return the tensor's values, from accelerate's store where the module itself holds none."""
    if parameter.device.type != "meta":
        return parameter.detach()
    hook = getattr(module, "_hf_hook", None)
    for part in (hook, *getattr(hook, "hooks", ())):
        weights = getattr(part, "weights_map", None)
        if weights is not None:
            value = weights[name]
            return value.detach() if isinstance(value, Tensor) else torch.as_tensor(value)
    return torch.zeros((*parameter.shape[:1], 1)) if parameter.ndim else torch.zeros(())


def _entries(tensor: Tensor) -> bytes:
    """Return a few entries of a tensor as bytes: the starts of four rows, or as many numbers where rows are short."""
    if not tensor.numel():
        return b""
    if tensor.ndim < 2 or tensor[0].numel() < _COLUMNS:
        tensor = tensor.reshape(-1)
        part = tensor[_spread(tensor, _ROWS * _COLUMNS)]
    else:
        part = tensor[_spread(tensor, _ROWS)].reshape(_ROWS, -1)[:, :_COLUMNS]
    part = part.to("cpu")
    if part.is_floating_point():
        part = part.to(torch.bfloat16)
    return part.contiguous().view(torch.uint8).numpy().tobytes()


def _spread(tensor: Tensor, count: int) -> Tensor:
    return torch.linspace(0, tensor.shape[0] - 1, count, dtype=torch.float64).long().to(tensor.device)


def _said(value: Any) -> str:
    return str(value.to_dict() if hasattr(value, "to_dict") else value)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
