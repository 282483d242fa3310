"""Growing cache: keys and values with room for the tokens to come, so that a new token copies its own column only."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_STEP = 64  # columns; the least by which a room grows


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A dynamic layer that writes new columns behind the old ones; transformers' own copies all of them every time."""

    def __init__(self, keys: Tensor, values: Tensor, columns: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._most = columns
        self._move(keys, values, keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Store new columns, and return all of them; past its end the layer grows as any dynamic one does."""
        begin = self.keys.shape[-2]
        end = begin + key_states.shape[-2]
        if end > max(self._most, self._room[0].shape[-2]):
            found: tuple[Tensor, Tensor] = super().update(key_states, value_states, *args, **kwargs)
            return found
        if end > self._room[0].shape[-2]:
            self._move(self.keys, self.values, end)
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[..., begin:end, :] = new
        self._show(end)
        return self.keys, self.values

    def _move(self, keys: Tensor, values: Tensor, columns: int) -> None:
        """Move to a room for ``columns`` and a share more: few moves, and no memory for a text that ends early."""
        wanted = max(columns, min(self._most, columns + max(_STEP, columns // 4)))
        self._room = tuple(_room(tensor, wanted) for tensor in (keys, values))
        self._show(keys.shape[-2])

    def _show(self, columns: int) -> None:
        self.keys, self.values = (room[..., :columns, :] for room in self._room)


def leave_room(cache: Cache, columns: int) -> None:
    """Give a cache's layers room for more columns, with what they hold already.

    Layers of another kind than transformers' plain dynamic one, such as those of a sliding window, stay what they are.

    Args:
        cache: ``[batch, heads, columns so far, d_head]`` a layer; changed in place.
        columns: how many columns a row can have in the end.
    """
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[number] = _GrowingLayer(layer.keys, layer.values, columns)


def _room(tensor: Tensor, columns: int) -> Tensor:
    room = tensor.new_empty((*tensor.shape[:-2], columns, tensor.shape[-1]))
    room[..., : tensor.shape[-2], :] = tensor
    return room
