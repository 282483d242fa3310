"""combine: the algebra of steering vectors, hookpoint by hookpoint, with the parents on record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lm_eval_steer import __version__
from lm_eval_steer.errors import ConfigError, ForeignVectorError, ShapeError, VectorValueError
from lm_eval_steer.hookpoint import Hookpoint
from lm_eval_steer.suggest import choice_message
from lm_eval_steer.vector import Fingerprint, Provenance, SteeringVector

Combiner = Callable[[Sequence[Tensor]], Tensor]

# What is left of a difference that should be zero, as a share of the largest parent.
_NOTHING = 1e-5


def _average(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).mean(0)


def _project_out(parts: Sequence[Tensor]) -> Tensor:
    others = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts[1:]])
    return without(parts[0], others)


def _total(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


@dataclass(frozen=True)
class Way:
    """A way to combine: its formula in words, how many vectors it takes, and what it does with their tensors."""

    formula: str
    least: int
    most: int | None
    combine: Combiner


WAYS: dict[str, Way] = {
    "add": Way("v1 + v2 + ...", 2, None, _total),
    "subtract": Way("v1 - v2", 2, 2, lambda parts: parts[0] - parts[1]),
    "average": Way("(v1 + ... + vn) / n", 2, None, _average),
    "project-out": Way("v1 minus its projection on the span of v2, v3, ...", 2, None, _project_out),
    "compose": Way("v1 + v2 - v3 (v_AD + v_BC - v_AC)", 3, 3, lambda parts: parts[0] + parts[1] - parts[2]),
}


def combine(
    way: str, parents: Sequence[SteeringVector], name: str, layers: Collection[int] | None = None
) -> SteeringVector:
    """Return the vector that ``way`` makes of ``parents`` at the hookpoints that all of them have.

    Sums are taken in float64 and stored in float32. Origins are not kept: they belong to one parent's projections.

    Args:
        way: one of :data:`WAYS`.
        parents: in the order of the formula.
        name: of the result.
        layers: the ones to keep; None for all that the parents share.

    Raises:
        ConfigError: an unknown way, too few or too many parents, or parents without a hookpoint in common.
        ShapeError: parents of different widths or rows.
        ForeignVectorError: parents that were made on different models.
        VectorValueError: nothing is left, as of v − v, or what is projected out is zero.
    """
    if way not in WAYS:
        raise ConfigError(choice_message("way to combine", way, WAYS))
    rule = WAYS[way]
    if len(parents) < rule.least or (rule.most is not None and len(parents) > rule.most):
        wanted = str(rule.least) if rule.most == rule.least else f"at least {rule.least}"
        raise ConfigError(f"{way} ({rule.formula}) takes {wanted} vectors, not {len(parents)}.")
    points = common_points(parents, layers)
    _check_models(parents)
    tensors = {}
    for point in points:
        parts = [parent.tensors[point].double() for parent in parents]
        _check_shapes(way, point, parts, parents)
        tensors[point] = something(rule.combine(parts), parts, f"{way} at {point}").float()
    return SteeringVector(name, tensors, _provenance(way, rule.formula, parents, {}), parents[0].rows)


def drop_features(
    vector: SteeringVector, point: Hookpoint, rows: Mapping[int, Tensor], source: Mapping[str, Any], name: str
) -> SteeringVector:
    """Return a vector at one hookpoint without what SAE decoder rows can say of it.

    ``v − P v`` with P the orthogonal projection on the span of the rows: the result is orthogonal to each of them.

    Args:
        vector: the vector.
        point: where the SAE was trained; the result has this hookpoint only.
        rows: feature → its decoder row ``[d_model]``.
        source: what to record of the SAE, JSON values.
        name: of the result.

    Raises:
        ConfigError: no feature was named.
        ShapeError: the rows have another width.
        VectorValueError: nothing is left, or the rows are all zero.
    """
    if not rows:
        raise ConfigError("name at least one feature to drop.")
    tensor = vector.at(point.layer, point.site).double()
    basis = torch.stack([row.double() for row in rows.values()])
    if basis.shape[-1] != tensor.shape[-1]:
        raise ShapeError(f"the SAE's rows are {basis.shape[-1]} wide, vector {vector.name!r} is {tensor.shape[-1]}.")
    left = something(without(tensor, basis), [tensor], f"drop-features at {point}").float()
    formula = "v minus its projection on the span of the decoder rows"
    notes = {"sae": dict(source), "features": sorted(rows)}
    return SteeringVector(name, {point: left}, _provenance("drop-features", formula, [vector], notes), vector.rows)


def without(tensor: Tensor, others: Tensor) -> Tensor:
    """Return ``tensor`` ``[..., d_model]`` minus its orthogonal projection on the rows of ``others`` ``[k, d_model]``.

    Rows that depend on one another count once (singular values below 1e-10 of the largest are left out).

    Raises:
        VectorValueError: all rows are zero, so that nothing would be taken out.
    """
    if not bool(others.any()):
        raise VectorValueError("what is to be projected out is zero; it has no direction.")
    _, values, directions = torch.linalg.svd(others, full_matrices=False)
    basis = directions[values > 1e-10 * values.max()]
    left: Tensor = tensor - (tensor @ basis.T) @ basis
    return left


def common_points(parents: Sequence[SteeringVector], layers: Collection[int] | None = None) -> list[Hookpoint]:
    """Return the hookpoints of ``layers`` that every vector has.

    Raises:
        ConfigError: there is none.
    """
    wanted = [point for point in parents[0].tensors if layers is None or point.layer in layers]
    points = [point for point in wanted if all(point in parent.tensors for parent in parents)]
    if not points:
        have = "; ".join(f"{p.name!r}: {', '.join(map(str, list(p.tensors)[:3]))}, ..." for p in parents)
        raise ConfigError(f"these vectors have no layer and site in common ({have}).")
    return points


def something(result: Tensor, parts: Sequence[Tensor], where: str) -> Tensor:
    """Return ``result``.

    Raises:
        VectorValueError: it is rounding noise beside the parents.
    """
    largest = max(float(torch.linalg.vector_norm(part)) for part in parts)
    if float(torch.linalg.vector_norm(result)) <= _NOTHING * largest:
        raise VectorValueError(f"{where}: nothing is left; the vectors cancel.")
    return result


def _check_models(parents: Sequence[SteeringVector]) -> None:
    known = [(p.name, p.provenance.fingerprint) for p in parents if p.provenance.fingerprint is not None]
    for name, fingerprint in known[1:]:
        first = known[0][1]
        if isinstance(first, Fingerprint) and fingerprint is not None and (parts := first.differs_from(fingerprint)):
            raise ForeignVectorError(
                f"vectors {known[0][0]!r} and {name!r} were made on models that differ in {' and '.join(parts)}; "
                "their directions have nothing to do with one another."
            )


def _check_shapes(way: str, point: Hookpoint, parts: Sequence[Tensor], parents: Sequence[SteeringVector]) -> None:
    if len({part.shape[-1] for part in parts}) > 1:
        widths = ", ".join(f"{p.name!r} {part.shape[-1]}" for p, part in zip(parents, parts, strict=True))
        raise ShapeError(f"at {point} the vectors have different widths: {widths}.")
    if way != "project-out" and (len({part.shape for part in parts}) > 1 or len({p.rows for p in parents}) > 1):
        raise ShapeError(f"at {point} the vectors have different rows; {way} wants equal ones.")


def _provenance(way: str, formula: str, parents: Sequence[SteeringVector], notes: Mapping[str, Any]) -> Provenance:
    first = parents[0].provenance
    controls = {parent.provenance.control for parent in parents}
    licences = sorted({parent.provenance.licence for parent in parents if parent.provenance.licence})
    fingerprints = [p.provenance.fingerprint for p in parents if p.provenance.fingerprint is not None]
    data = _data(parents)
    return Provenance(
        method=f"combine:{way}",
        model_id=first.model_id,
        model_revision=first.model_revision,
        fingerprint=fingerprints[0] if fingerprints else None,
        activation_norms=dict(first.activation_norms),
        control=controls.pop() if len(controls) == 1 else None,
        licence=" AND ".join(licences) or None,
        versions={"lm_eval_steer": __version__},
        notes={
            "formula": formula,
            "parents": [{"id": p.id, "name": p.name, "method": p.provenance.method} for p in parents],
            **({"data": data[0] if len(data) == 1 else data} if data else {}),
            **notes,
        },
    )


def _data(parents: Sequence[SteeringVector]) -> list[str]:
    """Return the names of the data that all parents were made of; none where one does not say."""
    said = [parent.provenance.notes.get("data") for parent in parents]
    names = [[each] if isinstance(each, str) else each for each in said]
    if not all(isinstance(each, list) for each in names):
        return []
    return sorted({str(name) for each in names if isinstance(each, list) for name in each})
