"""Resuming a model above a layer: the blocks below pass their input on, one block gets given hidden states."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layout import ModelLayout, block_input


@contextlib.contextmanager
def entering(layout: ModelLayout, layer: int, hidden: Tensor, arity: int) -> Iterator[None]:
    """Run forwards inside as if block ``layer`` had been given ``hidden``; the blocks below cost nothing.

    The embeddings still run, on whatever token ids the forward gets, and are thrown away, so that layer numbers,
    masks and rotary tables need no care.

    Args:
        layout: of the model.
        layer: the first block that really runs.
        hidden: ``[batch, seq, d_model]``.
        arity: how many items a block returns; 0 for a plain tensor.
    """
    skipped = layout.blocks[:layer]

    def given(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def passing(*args: Any, **kwargs: Any) -> Any:
        value = block_input(args, kwargs)
        return value if arity == 0 else (value, *([None] * (arity - 1)))

    handle = layout.blocks[layer].register_forward_pre_hook(given, prepend=True, with_kwargs=True)
    saved = [block.__dict__.get("forward") for block in skipped]
    try:
        for block in skipped:
            block.forward = passing
        yield
    finally:
        handle.remove()
        for block, old in zip(skipped, saved, strict=True):
            if old is None:
                del block.forward
            else:
                block.forward = old  # accelerate's, of an offloaded model


@contextlib.contextmanager
def reading_rows(head: nn.Module, index: Tensor) -> Iterator[None]:
    """Let the output embedding see only the positions ``index``, ``[n]``, of the flattened hidden states.

    The model's logits then are ``[1, n, vocabulary]``; soft-caps and scales after the head stay right.
    """

    def gather(_module: nn.Module, args: tuple[Any, ...]) -> Any:
        flat = args[0].reshape(-1, args[0].shape[-1])
        return (flat[index.to(flat.device)][None], *args[1:])

    handle = head.register_forward_pre_hook(gather, prepend=True)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def computing_rows(mlp: nn.Module, index: Tensor) -> Iterator[None]:
    """Let an MLP compute the positions ``index``, ``[n]``, of the flattened states only; the others get zeros."""
    shapes: list[torch.Size] = []

    def gather(_module: nn.Module, args: tuple[Any, ...]) -> Any:
        shapes.append(args[0].shape)
        return (args[0].reshape(-1, args[0].shape[-1])[index.to(args[0].device)][None], *args[1:])

    def scatter(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        *leading, width = shapes.pop()
        whole = output.new_zeros(math.prod(leading), width)
        return whole.index_copy_(0, index.to(output.device), output[0]).reshape(*leading, width)

    handles = [mlp.register_forward_pre_hook(gather, prepend=True), mlp.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_mlp(layout: ModelLayout, run: Callable[[], Tensor]) -> nn.Module | None:
    """Return the last block's MLP, whole, where :func:`computing_rows` may act on it; None where it may not.

    It maps ``[batch, seq, d_model]`` to the same and runs once a forward; and neither it nor what follows it mixes
    positions: where it computes the last position alone, that position's logits stay what they are.

    Args:
        layout: of the model.
        run: runs a forward of one row of several tokens and returns its logits, ``[1, seq, vocabulary]``.
    """
    block, seen = layout.blocks[-1], []
    write = layout.targets.get(Hookpoint(Site.MLP_OUT, layout.n_layers - 1))

    def note(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        tensors = len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor)
        seen.append(tensors and args[0].ndim == 3 and args[0].shape == output.shape)

    found = [child for child in block.children() if write is not None and write.module in child.modules()]
    if len(found) != 1 or write is None or found[0] is write.module:
        return None
    handle = found[0].register_forward_hook(note)
    try:
        with torch.no_grad():
            logits = run()[0]
    finally:
        handle.remove()
    return found[0] if seen == [True] and _by_position(found[0], run, logits) else None


def _by_position(mlp: nn.Module, run: Callable[[], Tensor], logits: Tensor) -> bool:
    """Say whether the last of ``logits``, ``[seq, vocabulary]``, stays where the MLP computes that position alone."""
    last = len(logits) - 1
    try:
        with torch.no_grad(), computing_rows(mlp, torch.tensor([last])):
            alone = run()[0, last]
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError):
        return False
    real = torch.isfinite(logits[last])  # models mask unused vocabulary with minus infinity
    whole, part = logits[last][real].float(), alone[real].float()
    tolerance = 1e-3 if logits.dtype == torch.float32 else 5e-2
    return bool(real.any()) and bool(((part - whole).abs() <= tolerance * whole.abs().max()).all())


@contextlib.contextmanager
def capturing_inputs(layout: ModelLayout, layers: set[int], index: Tensor) -> Iterator[dict[int, Tensor]]:
    """Collect, for each layer, its block's input ``[n, d_model]`` at positions ``index`` of the flattened states."""
    found: dict[int, Tensor] = {}

    def hook(layer: int) -> Any:
        def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = block_input(args, kwargs)
            assert hidden is not None
            found[layer] = hidden.reshape(-1, hidden.shape[-1])[index.to(hidden.device)]

        return note

    handles = [layout.blocks[i].register_forward_pre_hook(hook(i), with_kwargs=True) for i in sorted(layers)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def block_arity(layout: ModelLayout, run: Any) -> int:
    """Return how many items the first block returns in the forward ``run()``; 0 for a plain tensor."""
    seen: list[int] = []

    def note(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(0 if isinstance(output, Tensor) else len(output))

    handle = layout.blocks[0].register_forward_hook(note)
    try:
        with torch.no_grad():
            run()
    finally:
        handle.remove()
    return seen[0]
