"""The contract of a foreign format, and what its siblings share: layer bases, tensors, provenance."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from lm_eval_steer.errors import ConfigError, InputError, LayerError, ShapeError, VectorFileError
from lm_eval_steer.files import sha256_file
from lm_eval_steer.hookpoint import Hookpoint, check_layer
from lm_eval_steer.suggest import choice_message
from lm_eval_steer.vector import Provenance, SteeringVector

LayerBase = Literal["block_out", "hidden_states"]
LAYER_BASES: tuple[LayerBase, ...] = get_args(LayerBase)


@dataclass(frozen=True)
class Told:
    """What the user says about a file beyond what is in it.

    Attributes:
        name: of the vector; several are numbered.
        layer_base: how its layers are counted; None where the user did not say.
        layer: number, in that counting, of a file that holds one direction and no number.
        model_id: the model it was made on.
        licence: of the vector.
    """

    name: str
    layer_base: LayerBase | None = None
    layer: int | None = None
    model_id: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Use:
    """One placement that a foreign file asks for; such files mean every position (scope ``all``).

    Attributes:
        vector: index into :attr:`Converted.vectors`.
        point: where it is applied, which is where the vector has its tensor.
        multiplier: λ.
        operation: ``add`` or ``clamp``.
    """

    vector: int
    point: Hookpoint
    multiplier: float
    operation: Literal["add", "clamp"]


@dataclass(frozen=True)
class Converted:
    """What a foreign file holds.

    Attributes:
        vectors: its directions.
        uses: how it wants them applied; empty where it says nothing about that.
    """

    vectors: tuple[SteeringVector, ...]
    uses: tuple[Use, ...] = ()


class Format(ABC):
    """A foreign format that can be read.

    Attributes:
        name: what ``--from`` calls it.
        title: what messages call it.
        takes: which of ``layer_base`` and ``layer`` the user may tell it.
        needs: the options that ``convert`` cannot do without, as they are typed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    takes: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[str] = ""

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Say whether ``path`` (which exists) is of this format, without running anything in it.

        Raises:
            UnsafeFileError, VectorFileError: it is of this family of files, but cannot be read.
        """

    @abstractmethod
    def read(self, path: Path, told: Told) -> Converted:
        """Return what ``path`` holds, with canonical layers.

        Raises:
            InputError: the file is bad; the message names it and the reason.
            ConfigError: something must be told that was not.
        """

    def check_told(self, told: Told) -> None:
        """Make sure that the user told nothing that this format says itself.

        Raises:
            ConfigError: an option that this format does not take, or an unknown layer base.
        """
        if told.layer_base is not None and told.layer_base not in LAYER_BASES:
            raise ConfigError(choice_message("layer base", str(told.layer_base), LAYER_BASES))
        for option in ("layer_base", "layer"):
            if getattr(told, option) is not None and option not in self.takes:
                flag = "--" + option.replace("_", "-")
                raise ConfigError(
                    f"{flag} has no place with format {self.name}: {self.title} states its layers itself."
                )


def canonical_layer(number: object, base: LayerBase, where: str) -> int:
    """Return the canonical layer (output of block i) of a layer counted by ``base``.

    Args:
        number: as the source counts.
        base: ``block_out``: N is the output of block N; ``hidden_states``: N is ``hidden_states[N]``, the output of
            block N − 1.
        where: for messages.

    Raises:
        LayerError: no whole number, negative, or ``hidden_states[0]``, which no block writes.
    """
    try:
        layer = check_layer(number)
    except LayerError as error:
        raise LayerError(f"{where}: {error}") from None
    if base == "block_out":
        return layer
    if layer == 0:
        raise LayerError(
            f"{where}: hidden_states[0] is the embedding's output, which no block writes; leave layer 0 out."
        )
    return layer - 1


def need_layer_base(path: Path, told: Told) -> LayerBase:
    """Return the layer base the user told.

    Raises:
        ConfigError: none was told; the message says what to pass.
    """
    if told.layer_base is None:
        raise ConfigError(
            f"{path} does not say how its layers are counted. Pass --layer-base block_out if layer N is the output "
            "of block N (from 0 on), or --layer-base hidden_states if it is hidden_states[N], the output of block N-1."
        )
    return told.layer_base


def as_direction(value: object, where: str, *, squeeze: bool = False) -> Tensor:
    """Return ``value`` as a dense floating-point tensor; its rank is checked by :class:`SteeringVector`.

    Args:
        value: what the file holds.
        where: file and place, for messages.
        squeeze: turn ``[1, d_model]`` into ``[d_model]``.

    Raises:
        VectorFileError: no tensor, sparse or quantised, or integers.
        ShapeError: it claims more numbers than it stores (an expanded view).
    """
    if not isinstance(value, Tensor):
        raise VectorFileError(f"{where}: expected a tensor, found {type(value).__name__}.")
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        raise VectorFileError(f"{where}: a sparse, quantised or empty-handed tensor; save it dense and in full.")
    if not value.is_floating_point() and not value.is_complex():
        raise VectorFileError(f"{where}: holds {value.dtype}, not floating-point numbers.")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ShapeError(
            f"{where}: shape {tuple(value.shape)} claims more numbers than the file stores; nothing is broadcast."
        )
    return value[0] if squeeze and value.ndim == 2 and value.shape[0] == 1 else value


def finite_number(value: object, where: str) -> float:
    """Return a coefficient as a float.

    Raises:
        VectorFileError: it is no finite number.
    """
    try:
        number = float(value.item() if isinstance(value, Tensor) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise VectorFileError(f"{where}: {str(value)[:60]!r} is no number.") from None
    if not math.isfinite(number):
        raise VectorFileError(f"{where}: {number} is not finite.")
    return number


@dataclass
class Origin:
    """Where tensors came from, on the way to a :class:`SteeringVector`.

    Attributes:
        format: of the file.
        path: of the file or folder, for messages.
        layer_base: a sentence on how the source counts layers.
        files: every file that was read.
        notes: what else to record.
        model_id: where the file itself names the model.
    """

    format: str
    path: Path
    layer_base: str
    files: tuple[Path, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)
    model_id: str | None = None

    def vector(
        self,
        told: Told,
        tensors: Mapping[Hookpoint, Tensor],
        origins: Mapping[Hookpoint, Tensor] | None = None,
        name: str | None = None,
    ) -> SteeringVector:
        """Return the vector with its provenance; the model's fingerprint stays unknown.

        Raises:
            InputError: the tensors are no steering vectors; the message names the file.
        """
        sources = {file.name: sha256_file(file) for file in self.files}
        provenance = Provenance(
            method=f"converted:{self.format}",
            model_id=told.model_id or self.model_id,
            layer_base=self.layer_base,
            licence=told.licence,
            notes={"source_files": sources, **self.notes},
        )
        try:
            vector = SteeringVector(name or told.name, tensors, provenance, origins=origins or {})
        except InputError as error:
            raise type(error)(f"{self.path}: {error}") from None
        widths = {int(value.shape[-1]) for value in vector.tensors.values()}
        if len(widths) > 1:
            raise ShapeError(f"{self.path}: its layers have different widths ({', '.join(map(str, sorted(widths)))}).")
        return vector
