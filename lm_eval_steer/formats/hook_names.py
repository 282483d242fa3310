"""What other tools' names of hookpoints mean: module paths (upstream lm-eval, sparsify) and TransformerLens hooks."""

from __future__ import annotations

import re

from lm_eval_steer.errors import VectorFileError
from lm_eval_steer.hookpoint import Hookpoint, Site

_MODULE = re.compile(
    r"(?:(?:base_model|model|transformer|gpt_neox|decoder|language_model)\.)*"
    r"(?:layers|h|blocks)\.(0|[1-9]\d*)(?:\.(?P<part>[\w.]+))?"
)
_LENS = re.compile(r"blocks\.(0|[1-9]\d*)\.(?P<part>(?:\w+\.)*hook_\w+)")

_MLP = ("mlp", "mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2")
_ATTENTION = (
    *("self_attn", "self_attn.o_proj", "self_attn.dense", "self_attn.out_proj"),
    *("attn", "attn.c_proj", "attn.out_proj", "attention", "attention.dense"),
)
_PARTS = {"": Site.BLOCK_OUT, **dict.fromkeys(_MLP, Site.MLP_OUT), **dict.fromkeys(_ATTENTION, Site.ATTN_OUT)}
_LENS_PARTS = {
    "hook_resid_post": Site.BLOCK_OUT,
    "hook_resid_pre": Site.BLOCK_IN,
    "hook_mlp_out": Site.MLP_OUT,
    "hook_attn_out": Site.ATTN_OUT,
}

LAYER_BASE = "module path layers.N or blocks.N: N counts blocks from 0; the path alone is the output of block N"


def parse_hook_name(name: str, where: str) -> Hookpoint:
    """Return the hookpoint that another tool's name means.

    ``layers.N``, ``h.N`` and ``blocks.N`` (below ``model``, ``transformer``, ``gpt_neox``, ``decoder``) are the output
    of block N; with ``.mlp`` or ``.self_attn``/``.attention``/``.attn`` what that part writes. TransformerLens:
    ``blocks.N.hook_resid_post``, ``hook_resid_pre``, ``hook_mlp_out``, ``hook_attn_out``.

    Raises:
        VectorFileError: any other name.

    Source: lm_eval/models/hf_steered.py (``steer``: the output of the module with that path below ``base_model``);
    TransformerLens, ``components/transformer_block.py``.
    """
    if lens := _LENS.fullmatch(name):
        site = _LENS_PARTS.get(lens["part"])
        if site is not None:
            return Hookpoint(site, int(lens[1]))
    elif (module := _MODULE.fullmatch(name)) and (module["part"] or "") in _PARTS:
        return Hookpoint(_PARTS[module["part"] or ""], int(module[1]))
    raise VectorFileError(
        f"{where}: the hookpoint {name!r} is none that can be steered here. Known: layers.N (also h.N, blocks.N, below "
        "model., transformer. or gpt_neox.), layers.N.mlp, layers.N.self_attn (attention, attn), and "
        "blocks.N.hook_resid_post, hook_resid_pre, hook_mlp_out, hook_attn_out."
    )
