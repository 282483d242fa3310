"""Fingerprint of a model: what it computes with, never where it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lm_eval_steer.files import canonical_json, sha256_bytes
from lm_eval_steer.layout import ModelLayout, input_embeddings, text_config
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
    "hidden_act",
    "rms_norm_eps",
    "layer_norm_eps",
    "tie_word_embeddings",
)
_PROBES = ("The quick brown fox", "\n\n1 22 333", " café 北京 🙂", "def f(x):\n\treturn x", "<|im_start|>user\n")
_ROWS, _COLUMNS = 4, 128


def fingerprint(model: nn.Module, layout: ModelLayout, tokenizer: Any | None = None) -> Fingerprint:
    """Return the fingerprint of a model and its tokenizer.

    The weights' part hashes fixed rows of the input embedding and of every matrix of every block, adapters included,
    cast to bfloat16: float32 and bfloat16 copies agree; an adapter, a fine-tune or an edit of any matrix differs (and
    so, by its rounding, does a float16 copy).

    Args:
        model: a causal LM; offloaded weights are read where accelerate keeps them.
        layout: of that model.
        tokenizer: its tokenizer; None leaves that part unknown.
    """
    config = text_config(model)
    facts = {name: _fact(config, name) for name in _CONFIG_FACTS}
    digest = hashlib.sha256()
    for name, tensor in _chosen(model, layout):
        digest.update(f"{name}:{tuple(tensor.shape)}".encode())
        digest.update(_row_bytes(tensor))
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


def _chosen(model: nn.Module, layout: ModelLayout) -> Iterator[tuple[str, Tensor]]:
    embeddings = input_embeddings(model)
    if embeddings is not None:
        yield from list(_matrices("embedding", embeddings))[:1]
    for index, block in enumerate(layout.blocks):
        yield from _matrices(f"block{index}", block)


def _fact(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except RuntimeError:  # where layers differ (Gemma 4), transformers refuses to give one value for all
        return [getattr(config.per_layer_config[i], name, None) for i in range(config.num_hidden_layers)]


def _matrices(prefix: str, root: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in root.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                label = f"{prefix}.{path}.{name}".replace(".base_layer", "")
                yield label, _loaded(module, name, parameter)


def _loaded(module: nn.Module, name: str, parameter: Tensor) -> Tensor:
    """Return the parameter's values, from accelerate's store where the module itself holds none."""
    if parameter.device.type != "meta":
        return parameter.detach()
    hook = getattr(module, "_hf_hook", None)
    for part in (hook, *getattr(hook, "hooks", ())):
        weights = getattr(part, "weights_map", None)
        if weights is not None:
            value = weights[name]
            return value.detach() if isinstance(value, Tensor) else torch.as_tensor(value)
    return torch.zeros((*parameter.shape[:1], 1))


def _row_bytes(tensor: Tensor) -> bytes:
    rows = torch.linspace(0, tensor.shape[0] - 1, _ROWS, dtype=torch.float64).long()
    part = tensor[rows.to(tensor.device)].reshape(_ROWS, -1)[:, :_COLUMNS].to("cpu")
    if part.is_floating_point():
        part = part.to(torch.bfloat16)
    return part.contiguous().view(torch.uint8).numpy().tobytes()


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
