"""Random nulls: directions, heads and orders of the blocks, drawn in the place of what a sweep steers with."""

from __future__ import annotations

import dataclasses

import torch

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.extraction.actadd import random_rows
from lm_eval_steer.extraction.controls import Control, random_direction, stream
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layer_order import LayerOrder
from lm_eval_steer.vector import Provenance, SteeringVector

_TRIES = 1000  # draws of an order until no new one is taken to be left


def random_null(vector: SteeringVector, control: Control, seed: int) -> SteeringVector:
    """Return a random direction with the norm of ``vector`` at each of its hookpoints.

    Of a vector with ``rows: positions`` every row is drawn by itself, with its own norm; rows of zeros stay.

    Raises:
        ConfigError: the vector is a basis.
    """
    if vector.rows == "positions":
        provenance = _random_provenance(vector, control, seed)
        return dataclasses.replace(random_rows(vector, control, seed), provenance=provenance)
    check_plain(vector)
    points = tuple(vector.tensors)
    rows = random_direction(torch.stack([vector.tensors[point] for point in points]), points, seed, control.number)
    provenance = _random_provenance(vector, control, seed)
    return SteeringVector(f"{vector.name}-{control}", dict(zip(points, rows, strict=True)), provenance)


def random_heads(vector: SteeringVector, control: Control, seed: int, n_layers: int) -> SteeringVector:
    """Return as many heads as ``vector`` has, drawn from all layers, each with a random direction of a norm of its own.

    Args:
        vector: of the site ``head_z``; its notes say ``head_dim``, and the heads that it leaves alone are zero.
        control: which draw.
        seed: of the draws.
        n_layers: of the model; all layers are taken to have as many heads as the vector's.

    Raises:
        ConfigError: the vector does not say how wide a head is.
    """
    size, width = vector.provenance.notes.get("head_dim"), vector.d_model
    if not isinstance(size, int) or size < 1 or width % size:
        raise ConfigError(
            f"--nulls random: vector {vector.name!r} is {width} wide at {Site.HEAD_Z} and does not say in its notes "
            f"(head_dim: {size}) how wide a head is, so no other heads can be drawn."
        )
    norms = torch.cat([torch.linalg.vector_norm(row.reshape(-1, size), dim=1) for row in vector.tensors.values()])
    norms = norms[norms > 0]
    generator = stream(seed, f"heads/{control.number}")
    places = torch.randperm(n_layers * (width // size), generator=generator)[: len(norms)]
    rows = torch.zeros(n_layers, width // size, size)
    for place, norm in zip(places.tolist(), norms, strict=True):
        drawn = torch.randn(size, generator=generator)
        rows.view(-1, size)[place] = drawn * (norm / torch.linalg.vector_norm(drawn))
    tensors = {Hookpoint(Site.HEAD_Z, i): row.reshape(-1) for i, row in enumerate(rows) if bool(row.any())}
    return SteeringVector(f"{vector.name}-{control}", tensors, _random_provenance(vector, control, seed))


def random_order(order: LayerOrder, control: Control, seed: int) -> LayerOrder:
    """Return a random order of the same kind, another for each draw, neither ``order`` nor the own one.

    Raises:
        ConfigError: there are not so many.
    """
    generator, made = stream(seed, "orders"), order
    seen = {order.layers, tuple(range(order.n_layers))}
    for _ in range(control.number + 1):
        drawn = (order.drawn(generator, str(control)) for _ in range(_TRIES))
        made = next((other for other in drawn if other.layers not in seen), order)
        if made is order:
            raise ConfigError(
                f"--nulls random: of «{order}» there are no more than {len(seen) - 2} other orders of its kind in "
                f"{order.n_layers} blocks; ask for that many."
            )
        seen.add(made.layers)
    return made


def _random_provenance(vector: SteeringVector, control: Control, seed: int) -> Provenance:
    return dataclasses.replace(
        vector.provenance,
        method=control.kind,
        control=control.kind,
        seed=seed,
        notes={"control_of": vector.provenance.method, "draw": control.number},
    )


def check_plain(vector: SteeringVector) -> None:
    """Make sure that a vector has one row a hookpoint.

    Raises:
        ConfigError: it has several.
    """
    if vector.rows is not None:
        raise ConfigError(
            f"--nulls: vector {vector.name!r} has rows: {vector.rows}; letter and shuffled are of plain vectors, "
            "random is of these and of rows: positions."
        )
