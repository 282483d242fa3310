"""SteeringPlan: which vectors are applied where, how, and how strongly; immutable and content-addressed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lm_eval_steer.errors import ConfigError, LayerError, SiteError, VectorValueError
from lm_eval_steer.files import content_id
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layer_order import LayerOrder
from lm_eval_steer.operations import Operation, get_operation
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.suggest import choice_message
from lm_eval_steer.vector import SteeringVector

Normalize = Literal["none", "unit", "dose", "set"]
NORMALIZE: tuple[Normalize, ...] = get_args(Normalize)
_RANK = 1e-5  # a row that lies this near to the span of the others, relatively, is one of them in float32


@dataclass(frozen=True)
class Placement:
    """One vector at one hookpoint.

    Attributes:
        vector: where the direction comes from.
        source: which of its tensors is used.
        target: where it is applied; another layer than the source's is allowed and recorded.
        operation: name of an operation.
        multiplier: λ.
        scope: which positions, and of which requests.
        skip_first: leave the first real token, the attention sink, alone.
        normalize: how ``scale`` came about, for the record.
        scale: factor on the tensor, applied before λ.
        file: the file or name the user gave, for the record.
        file_sha256: hash of that file.
    """

    vector: SteeringVector
    source: Hookpoint
    target: Hookpoint
    operation: str = "add"
    multiplier: float = 1.0
    scope: TokenScope = field(default_factory=lambda: TokenScope("after_prompt"))
    skip_first: bool = False
    normalize: Normalize = "none"
    scale: float = 1.0
    file: str | None = None
    file_sha256: str | None = None

    def __post_init__(self) -> None:
        operation = get_operation(self.operation)
        object.__setattr__(self, "multiplier", check_multiplier(self.multiplier))
        tensor = self.vector.at(self.source.layer, self.source.site)
        if not operation.uses_norm and self.normalize != "none":
            raise ConfigError(
                f"operation {operation.name} uses the vector's direction only, so normalize={self.normalize} would "
                "change nothing; leave it out."
            )
        self._check_site(operation)
        if operation.wants_origin and self.source not in self.vector.origins:
            raise ConfigError(
                f"operation {operation.name} wants a reference, and vector {self.vector.name!r} has no origin at "
                f"{self.source}; use clamp, which measures from zero then, or make the file with an origin."
            )
        if self.vector.rows == "basis" and not operation.takes_basis:
            raise ConfigError(
                f"vector {self.vector.name!r} declares rows: basis, which operation {operation.name} cannot use."
            )
        if self.vector.rows == "positions" and self.scope.kind not in ("front", "window"):
            raise ConfigError(
                f"vector {self.vector.name!r} has one row a position ({tensor.shape[0]} rows); "
                f"use scope=front:{tensor.shape[0]} (or a window of that length), not {self.scope}."
            )
        if self.vector.rows == "positions" and self._scope_length() != tensor.shape[0]:
            raise ConfigError(
                f"scope {self.scope} and the {tensor.shape[0]} rows of vector {self.vector.name!r} differ."
            )
        if self.vector.rows == "basis" and int(torch.linalg.matrix_rank(tensor.double(), rtol=_RANK)) < len(tensor):
            raise VectorValueError(
                f"the {len(tensor)} rows of vector {self.vector.name!r} at {self.source} span fewer dimensions; a "
                "basis has independent rows."
            )
        if not operation.uses_norm and bool((torch.linalg.vector_norm(tensor, dim=-1) == 0).any()):
            raise VectorValueError(
                f"operation {operation.name} wants a direction; {self.vector.name!r} is zero at {self.source}."
            )

    def _check_site(self, operation: Operation) -> None:
        if operation.sites is not None and self.target.site not in operation.sites:
            raise SiteError(
                f"operation {operation.name} edits {', '.join(operation.sites)}, not {self.target.site}; its vector "
                "has to be one of that site."
            )
        if (self.source.site is Site.HEAD_Z) != (self.target.site is Site.HEAD_Z):
            raise SiteError(
                f"vector {self.vector.name!r} was read at {self.source.site} and would be applied at "
                f"{self.target.site}: the heads' outputs and the residual stream are different spaces."
            )

    def _scope_length(self) -> int:
        return self.scope.a if self.scope.kind == "front" else self.scope.b - self.scope.a

    @property
    def neutral(self) -> bool:
        """Whether this placement leaves the model bit-identical."""
        return self.multiplier == 0.0 and get_operation(self.operation).neutral_at_zero

    def direction(self) -> Tensor:
        """Return the tensor that is applied, without λ: ``scale · v``, ``[d_model]`` or ``[k, d_model]``, float32.

        Of a vector with ``rows: basis`` it is an orthonormal basis of what its rows span.
        """
        tensor = self.vector.at(self.source.layer, self.source.site)
        if self.vector.rows == "basis":
            return orthonormal(tensor)
        return tensor if self.scale == 1.0 else tensor * self.scale

    def __str__(self) -> str:
        shift = "" if self.source.layer == self.target.layer else f" (vector of layer {self.source.layer})"
        skip = ", skip_first" if self.skip_first else ""
        return (
            f"{self.vector.name} {self.operation} {self.multiplier:g} at {self.target}{shift}, scope {self.scope}{skip}"
        )

    def identity(self) -> dict[str, Any]:
        """Return what decides the numbers: the vector's content and how it is applied, no names or paths."""
        return {
            "direction": self.vector.tensor_id(self.source),
            "source": str(self.source),
            "target": str(self.target),
            "operation": self.operation,
            "multiplier": self.multiplier,
            "scope": str(self.scope),
            "skip_first": self.skip_first,
            "scale": self.scale,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return identity, names and provenance as JSON values."""
        return {
            **self.identity(),
            "vector": self.vector.id,
            "vector_name": self.vector.name,
            "method": self.vector.provenance.method,
            "control": self.vector.provenance.control,
            "normalize": self.normalize,
            **self._training(),
            "norm": float(torch.linalg.vector_norm(self.direction())),
            "file": self.file,
            "file_sha256": self.file_sha256,
            **({} if self.scope.condition is None else {"gate": self.scope.condition.to_dict()}),
        }

    def _training(self) -> dict[str, Any]:
        """Return what the vector's file says of its training, at this placement's source."""
        provenance = self.vector.provenance
        found: dict[str, Any] = {"n_pairs": provenance.n_pairs, "letter_balance": provenance.letter_balance}
        for name in ("cos_letter", "cos_yes"):
            measured = provenance.notes.get(name)
            found[name] = measured.get(str(self.source)) if isinstance(measured, Mapping) else None
        data = provenance.notes.get("data")
        return found if data is None else {**found, "data": data}


@dataclass(frozen=True)
class SteeringPlan:
    """All placements of one run, applied at a shared hookpoint in their order, or another order of the blocks.

    Attributes:
        placements: vectors, and where they are applied.
        order: in which the blocks run; with it there are no placements. None for the model's own.
    """

    placements: tuple[Placement, ...] = ()
    order: LayerOrder | None = None

    def __post_init__(self) -> None:
        if self.order is not None and self.placements:
            raise ConfigError(f"«{self.order}» and vectors cannot be in one plan; run them one after the other.")
        seen: set[str] = set()
        for placement in self.placements:
            key = content_id({k: v for k, v in placement.identity().items() if k != "multiplier"})
            if key in seen:
                raise LayerError(f"the placement «{placement}» is given twice; to double it, double the multiplier.")
            seen.add(key)

    @property
    def id(self) -> str:
        """Content id: 16 hexadecimal digits over what decides the numbers; ``unsteered`` for the empty plan."""
        parts = self.placements if self.order is None else (self.order,)
        return content_id([part.identity() for part in parts]) if parts else "unsteered"

    @property
    def empty(self) -> bool:
        """Whether nothing was asked for: the unsteered model."""
        return not self.placements and self.order is None

    @property
    def neutral(self) -> bool:
        """Whether the whole plan leaves the model bit-identical."""
        return all(placement.neutral for placement in self.placements) and (self.order is None or self.order.neutral)

    def __str__(self) -> str:
        return "the unsteered model" if self.empty else "; ".join(map(str, self.placements)) or str(self.order)

    def with_marker(self, marker: Callable[[], str]) -> SteeringPlan:
        """Return this plan with the default marker of ``from_marker`` scopes, ``marker()``, written out."""
        if not any(p.scope.kind == "from_marker" and p.scope.marker is None for p in self.placements):
            return self
        text = marker()
        return SteeringPlan(
            tuple(
                dataclasses.replace(p, scope=dataclasses.replace(p.scope, marker=text))
                if p.scope.kind == "from_marker" and p.scope.marker is None
                else p
                for p in self.placements
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved plan as JSON values, id included."""
        parts = self.placements if self.order is None else (self.order,)
        return {"id": self.id, "placements": [part.to_dict() for part in parts]}


def orthonormal(rows: Tensor) -> Tensor:
    """Return an orthonormal basis ``[k, d_model]`` of what ``rows`` span, row j in the span of the first j + 1."""
    basis: Tensor = torch.linalg.qr(rows.double().T).Q.T
    return basis.to(rows.dtype).contiguous()


def check_multiplier(value: object) -> float:
    """Return λ as a float.

    Raises:
        ConfigError: it is no number, or NaN or infinite (``1e400`` is infinite too).
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"multiplier {value!r} is no number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"multiplier {value!r} is not finite; write a number such as 1.5 (1e400 is infinite too).")
    return number + 0.0  # −0.0 and 0.0 are one plan


def normalized_scale(
    vector: SteeringVector, source: Hookpoint, target: Hookpoint, normalize: str, peers: tuple[SteeringVector, ...]
) -> float:
    """Return the factor that ``normalize`` puts on a tensor.

    ``none`` 1; ``unit`` 1/‖v‖; ``dose`` mean‖h‖/‖v‖ with h at the target, so that λ is the relative dose; ``set``
    mean over the named vectors of ‖v‖ at this hookpoint, over ‖v‖ (CAA's "normalized").

    Raises:
        ConfigError: an unknown word, or ``set`` with one vector.
        VectorValueError: the tensor is zero, or the file does not know its activation norms.
    """
    if normalize not in NORMALIZE:
        raise ConfigError(choice_message("normalize", str(normalize), NORMALIZE))
    if normalize == "none":
        return 1.0
    norm = vector.norms()[str(source)]
    if norm == 0.0:
        raise VectorValueError(
            f"vector {vector.name!r} is zero at {source}; normalize={normalize} has nothing to scale."
        )
    if normalize == "unit":
        return 1.0 / norm
    if normalize == "dose":
        stream = vector.provenance.activation_norms.get(str(target))
        if stream is None:
            raise VectorValueError(
                f"vector {vector.name!r} does not record the residual norm at {target}, which normalize=dose needs; "
                "extract it again with this version, or use normalize=unit."
            )
        return float(stream) / norm
    distinct = {peer.id: peer for peer in peers}
    if len(distinct) < 2:
        raise ConfigError("normalize=set rescales to the mean norm of several vectors; name two or more with ';'.")
    norms = [float(torch.linalg.vector_norm(peer.at(source.layer, source.site))) for peer in distinct.values()]
    return sum(norms) / len(norms) / norm
