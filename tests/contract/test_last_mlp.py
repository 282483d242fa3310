"""The last block's MLP is run in part only where that is proved to change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lm_eval_steer.layout import probe_layout
from lm_eval_steer.sweep.resume import computing_rows, last_mlp
from tests.tiny_models import build

IDS = torch.tensor([[5, 6, 7, 8]])


def found(model: Any) -> nn.Module | None:
    return last_mlp(probe_layout(model), lambda: model(input_ids=IDS[:, :3]).logits)


class Shifted(nn.Module):
    """An MLP that looks at the position before, too, as RWKV's channel mixing does."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.inner = mlp

    def forward(self, hidden: Tensor) -> Tensor:
        before = torch.nn.functional.pad(hidden, (0, 0, 1, 0))[:, :-1]
        mixed: Tensor = self.inner(0.5 * hidden + 0.5 * before)
        return mixed


def test_an_mlp_that_looks_back_is_run_whole() -> None:
    model: Any = build("llama")
    mlp = found(model)
    assert mlp is not None
    assert mlp is model.model.layers[-1].mlp
    model.model.layers[-1].mlp = Shifted(mlp)
    assert found(model) is None


def test_an_mlp_before_more_mixing_is_run_whole() -> None:
    assert found(build("zamba2")) is None  # the child that holds it holds attention too, and Mamba follows


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2", "falcon_h1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_it_may_be_run_in_part_the_read_positions_are_those_of_the_whole(family: str, dtype: torch.dtype) -> None:
    model: Any = build(family).to(dtype)
    mlp = found(model)
    assert mlp is not None
    with torch.no_grad():
        whole = model(input_ids=IDS).logits[0, [1, 3]]
        with computing_rows(mlp, torch.tensor([1, 3])):
            part = model(input_ids=IDS).logits[0, [1, 3]]
    assert torch.allclose(part, whole, atol=1e-5 if dtype == torch.float32 else 0.1)
