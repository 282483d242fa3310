"""Which module inside a block writes the attention's and which the MLP's output to the residual stream."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

_ATTENTION_OUT = frozenset({"o_proj", "out_proj", "c_proj", "dense", "Wo", "o_b_proj", "wo"})
_MLP_OUT = frozenset(
    {
        "down_proj",
        "c_proj",
        "fc2",
        "fc_out",
        "dense_4h_to_h",
        "w2",
        "Wo",
        "wo",
        "out_proj",
        "output_linear",
        "lin2",
        "dense",
    }
)
_MLP = frozenset(
    {"mlp", "feed_forward", "ffn", "moe", "block_sparse_moe", "ff", "feedforward", "output", "channel_mixer", "mixer"}
)
_EXPERTS = ("expert", "moe", "router")

Usable = Callable[[nn.Module], bool]


def attention_projection(block: nn.Module, usable: Usable) -> nn.Module | None:
    """Return the attention output projection of ``block``, or None where it has no attention.

    It is the first module named like one below a path that says attention; ``usable`` says whether the probe saw
    it called once with an output of the stream's width.
    """
    for path, module in block.named_modules():
        parent, _, name = path.rpartition(".")
        if name in _ATTENTION_OUT and _is_attention(parent) and usable(module):
            return module
    return None


def mlp_output(block: nn.Module, usable: Usable) -> nn.Module | None:
    """Return the module whose output the MLP writes: its down projection, or a whole mixture of experts.

    With experts the down projection is one of many, so the enclosing module is taken.
    """
    names = [path for path, _ in block.named_modules()]
    if not any(word in path.lower() for path in names for word in _EXPERTS):
        for path, module in block.named_modules():
            parent, _, name = path.rpartition(".")
            if name in _MLP_OUT and not _is_attention(parent) and "norm" not in path and usable(module):
                return module
    for path, module in block.named_modules():
        name = path.rpartition(".")[2]
        if (
            (name in _MLP or any(word in name.lower() for word in ("mlp", "moe")))
            and not _is_attention(path)
            and usable(module)
        ):
            return module
    return None


def _is_attention(path: str) -> bool:
    return "attn" in path.lower() or "attention" in path.lower()
