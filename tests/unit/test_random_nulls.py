"""Random nulls of vectors with a row for each position: the same norms, other directions, the same places."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.sweep.spec import SweepSpec
from lm_eval_steer.vector import Provenance, SteeringVector

LAYERS, WIDTH, K = 4, 8, 3


def by_position(path: Path, rows: str = "positions") -> SteeringVector:
    """A vector of K rows at the inputs of blocks 1 and 2, the first row zero where it is ActAdd's."""
    generator = torch.Generator().manual_seed(1)
    tensors = {Hookpoint(Site.BLOCK_IN, i): torch.randn(K, WIDTH, generator=generator) for i in (1, 2)}
    if rows == "positions":
        for tensor in tensors.values():
            tensor[0] = 0.0
    vector = SteeringVector("topic", tensors, Provenance("actadd", seed=0), rows=rows)  # type: ignore[arg-type]
    save_vector(vector, path)
    return vector


def spec(path: Path, **more: object) -> SweepSpec:
    asked = {"vectors": [str(path)], "scopes": [f"front:{K}"], "tasks": ["t"], "nulls": "random:2", **more}
    return SweepSpec.from_dict(asked)


def test_every_row_is_drawn_with_the_norm_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "topic.safetensors"
    vector = by_position(path)
    cells = spec(path, multipliers="-1,1").cells(LAYERS)
    null = [cell for cell in cells if cell.labels["control"] == "random"]
    assert [cell.labels["vector"] for cell in null[::4]] == ["topic-random-0", "topic-random-1"]
    assert len(null) == 2 * 2 * 2  # draws, layers, multipliers
    for cell in null:
        (placement,) = cell.plan.placements
        own, drawn = vector.at(placement.source.layer, Site.BLOCK_IN), placement.direction()
        torch.testing.assert_close(drawn.norm(dim=1), own.norm(dim=1))
        assert not drawn[0].any()
        assert float(torch.cosine_similarity(drawn[1:], own[1:], dim=1).abs().max()) < 0.99
        assert (str(placement.scope), placement.vector.rows) == (f"front:{K}", "positions")
        assert (placement.vector.provenance.seed, placement.vector.provenance.control) == (1234, "random")
    directions = [cell.plan.placements[0].direction() for cell in null[::2]]  # λ makes no other direction
    assert len({tuple(each.flatten().tolist()) for each in directions}) == len(directions)


def test_the_seed_decides_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "topic.safetensors"
    by_position(path)
    first, again, other = ({c.plan.id for c in spec(path, seed=seed).cells(LAYERS)} for seed in (7, 7, 8))
    own = {c.plan.id for c in spec(path, nulls="").cells(LAYERS)}
    assert first == again
    assert first & other == own


def test_a_basis_has_no_random_null(tmp_path: Path) -> None:
    path = tmp_path / "basis.safetensors"
    by_position(path, "basis")
    with pytest.raises(ConfigError, match="rows: basis"):
        spec(path, scopes=["all"], operations=["ablate"], layers="1").cells(LAYERS)
