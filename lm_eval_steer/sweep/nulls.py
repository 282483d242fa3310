"""Nulls: what a random direction of a vector's own norm would do in its place."""

from __future__ import annotations

import dataclasses

import torch

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.extraction.controls import Control, parse_controls, random_direction
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.vector import SteeringVector


def check_nulls(text: str) -> tuple[Control, ...]:
    """Return the controls that ``--nulls`` spells; only random directions can be made without the training pairs.

    Raises:
        ConfigError: it spells others, or none.
    """
    controls = parse_controls(text)
    for control in controls:
        if control.kind != "random":
            raise ConfigError(
                f"--nulls {control.kind}: only random directions are made here. Extract the vector with "
                f"--controls {control.kind} and give the file that this writes as one more --vector."
            )
    return controls


class Nulls:
    """Null vectors by the vector they stand for; each is made once.

    Args:
        seed: of the directions.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: dict[tuple[int, int], tuple[SteeringVector, SteeringVector]] = {}

    def plan(self, plan: SteeringPlan, control: Control) -> SteeringPlan:
        """Return the same plan with every vector replaced by its null.

        Raises:
            ConfigError: a vector of several rows, which has no null.
        """
        return SteeringPlan(tuple(self._placement(placement, control) for placement in plan.placements))

    def _placement(self, placement: Placement, control: Control) -> Placement:
        # The norms are equal, so whatever scale the normalisation chose stays right.
        vector = self._vector(placement.vector, control)
        return dataclasses.replace(placement, vector=vector, file=None, file_sha256=None)

    def _vector(self, vector: SteeringVector, control: Control) -> SteeringVector:
        key = (id(vector), control.number)  # its content id would hash every tensor again
        if key not in self._made:
            self._made[key] = (vector, random_null(vector, control, self._seed))  # kept, so that id stays its own
        return self._made[key][1]


def random_null(vector: SteeringVector, control: Control, seed: int) -> SteeringVector:
    """Return a random direction with the norm of ``vector`` at each of its hookpoints.

    Raises:
        ConfigError: the vector has several rows a hookpoint.
    """
    if vector.rows is not None:
        raise ConfigError(f"--nulls: vector {vector.name!r} has rows: {vector.rows}; nulls are made for plain vectors.")
    points = tuple(vector.tensors)
    rows = random_direction(torch.stack([vector.tensors[point] for point in points]), points, seed, control.number)
    provenance = dataclasses.replace(
        vector.provenance,
        method=control.kind,
        control=control.kind,
        seed=seed,
        notes={"control_of": vector.provenance.method, "draw": control.number},
    )
    return SteeringVector(f"{vector.name}-{control}", dict(zip(points, rows, strict=True)), provenance)
