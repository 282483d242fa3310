"""Helpers that run lm-eval requests through a steered tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.vector import SteeringVector
from tests.tiny_models import build, tiny_tokenizer


def make_plan(vector: SteeringVector, layer: int = 1, *, scope: str = "after_prompt", **options: Any) -> SteeringPlan:
    """A plan of one placement at a block's output."""
    point = Hookpoint(options.pop("site", Site.BLOCK_OUT), layer)
    source = next(key for key in vector.tensors if key.layer == layer)
    return SteeringPlan((Placement(vector, source, point, scope=TokenScope.parse(scope), **options),))


def steered_lm(plan: SteeringPlan | None, *, family: str = "llama", **options: Any) -> SteeredHF:
    """SteeredHF over a fresh tiny model."""
    options.setdefault("batch_size", 4)
    return SteeredHF(build(family), tokenizer=tiny_tokenizer(), plan=plan or SteeringPlan(), **options)


def plain_lm(*, family: str = "llama", **options: Any) -> HFLM:
    """lm-eval's own model class over the same tiny model."""
    options.setdefault("batch_size", 4)
    return HFLM(build(family), tokenizer=tiny_tokenizer(), **options)


def loglikelihood(lm: HFLM, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
    """Score (context, answer) pairs."""
    requests = [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]
    return list(lm.loglikelihood(requests, disable_tqdm=True))


def rolling(lm: HFLM, texts: Sequence[str]) -> list[float]:
    """Score whole texts."""
    requests = [Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0) for text in texts]
    return list(lm.loglikelihood_rolling(requests, disable_tqdm=True))


def generate(lm: HFLM, prompts: Sequence[str], **kwargs: Any) -> list[str]:
    """Generate greedily."""
    options = {"until": ["\n\n\n"], "max_gen_toks": 5, **kwargs}
    requests = [Instance(request_type="generate_until", doc={}, arguments=(p, dict(options)), idx=0) for p in prompts]
    return list(lm.generate_until(requests, disable_tqdm=True))
