"""Row 15: a response cache of another plan, or of plain hf, is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM

from lm_eval_steer.errors import ForeignCacheError
from tests.conftest import random_vector
from tests.steered import make_plan, plain_lm, steered_lm
from tests.tiny_models import WIDTH


def ask(lm: object) -> object:
    request = Instance(request_type="loglikelihood", doc={}, arguments=("the context", " x"), idx=0)
    return lm.loglikelihood([request])  # type: ignore[attr-defined]


def plan(multiplier: float) -> object:
    return make_plan(random_vector(WIDTH, 4), multiplier=multiplier)


def test_another_multiplier_is_refused(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache.db")
    ask(CachingLM(steered_lm(plan(1.0)), cache))
    with pytest.raises(ForeignCacheError, match="Give each plan its own --use_cache"):
        CachingLM(steered_lm(plan(2.0)), cache)


def test_the_same_plan_reads_its_own_cache(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache.db")
    first = ask(CachingLM(steered_lm(plan(1.0)), cache))
    again = steered_lm(plan(1.0))
    assert ask(CachingLM(again, cache)) == first
    assert again.steering.requests == 0


def test_a_cache_of_plain_hf_is_refused(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache.db")
    ask(CachingLM(plain_lm(), cache))
    with pytest.raises(ForeignCacheError, match="another model class"):
        CachingLM(steered_lm(plan(1.0)), cache)
