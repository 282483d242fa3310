"""Row 10: a huge multiplier or a half-precision overflow is an error that is never scored."""

from __future__ import annotations

import pytest
import torch

from lm_eval_steer.errors import NonFiniteError, VectorValueError
from lm_eval_steer.model import SteeredHF
from tests.conftest import random_vector
from tests.steered import generate, loglikelihood, make_plan, rolling
from tests.tiny_models import WIDTH, build, tiny_tokenizer


def overflowing() -> SteeredHF:
    plan = make_plan(random_vector(WIDTH, 4), scope="all", multiplier=1e6)
    return SteeredHF(build("gpt2").half(), tokenizer=tiny_tokenizer(), plan=plan, batch_size=2)


def test_loglikelihood() -> None:
    with pytest.raises(NonFiniteError, match=r"under «random add 1e\+06 at block_out.1.*smaller multiplier"):
        loglikelihood(overflowing(), [("the context", " x")])


def test_rolling() -> None:
    with pytest.raises(NonFiniteError):
        rolling(overflowing(), ["some text"])


def test_generation() -> None:
    with pytest.raises(NonFiniteError):
        generate(overflowing(), ["the context"])


def test_a_product_beyond_float32_is_refused_at_attach() -> None:
    plan = make_plan(random_vector(WIDTH, 4), multiplier=1e39)
    with pytest.raises(VectorValueError, match="not finite in float32"):
        SteeredHF(build("gpt2"), tokenizer=tiny_tokenizer(), plan=plan)


def test_a_large_finite_edit_is_scored() -> None:
    plan = make_plan(random_vector(WIDTH, 4), scope="all", multiplier=1e6)
    lm = SteeredHF(build("gpt2"), tokenizer=tiny_tokenizer(), plan=plan)
    assert torch.isfinite(torch.tensor(loglikelihood(lm, [("the context", " x")])[0][0]))
