"""CAA's vectors: ``vec_layer_<N>[_<model>].pt``, one tensor a file, a folder a behaviour."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from lm_eval_steer.errors import ConfigError, VectorFileError
from lm_eval_steer.formats.base import Converted, Format, Origin, Told, as_direction
from lm_eval_steer.formats.pickle_guard import load_pt
from lm_eval_steer.hookpoint import Hookpoint, Site

_NAME = re.compile(r"vec_layer_(0|[1-9]\d*)(?:_(.+))?\.pt")


class CaaPt(Format):
    """A folder of ``vec_layer_<N>[_<model>].pt`` files, or one of them; layer N is the output of block N.

    Source: nrimsky/CAA, ``behaviors.py`` (``get_vector_path``), ``generate_vectors.py`` and ``llama_wrapper.py``
    (``BlockOutputWrapper`` reads and adds at the output of ``model.model.layers[N]``).
    """

    name: ClassVar[str] = "caa_pt"
    title: ClassVar[str] = "CAA's vec_layer_<N>[_<model>].pt"

    def recognises(self, path: Path) -> bool:
        """Say whether the folder holds such files, or the file is called so."""
        return any(path.glob("vec_layer_*.pt")) if path.is_dir() else is_caa_name(path)

    def read(self, path: Path, told: Told) -> Converted:
        """Return one vector with every layer of the folder (see :meth:`Format.read`)."""
        files = sorted(path.glob("vec_layer_*.pt")) if path.is_dir() else [path]
        if not files:
            raise VectorFileError(f"{path}: no vec_layer_<N>.pt files in it.")
        numbered = {file: _parse(file) for file in files}
        model = _choose_model(path, {model for _, model in numbered.values()}, told)
        chosen = {layer: file for file, (layer, suffix) in numbered.items() if suffix == model}
        tensors: dict[Hookpoint, Tensor] = {
            Hookpoint(Site.BLOCK_OUT, layer): as_direction(load_pt(file), str(file)) for layer, file in chosen.items()
        }
        origin = Origin(
            format=self.name,
            path=path,
            layer_base="vec_layer_N is the output of block N",
            files=tuple(chosen[layer] for layer in sorted(chosen)),
            # CAA's rescaling to the mean norm over behaviours goes into a tree of this name
            notes={"normalized": any(parent.name == "normalized_vectors" for parent in files[0].resolve().parents)},
            model_id=model,
        )
        return Converted((origin.vector(told, tensors),))


def is_caa_name(path: Path) -> bool:
    """Say whether a file is called like one of CAA's vectors."""
    return _NAME.fullmatch(path.name) is not None


def _parse(file: Path) -> tuple[int, str | None]:
    match = _NAME.fullmatch(file.name)
    if match is None:
        raise VectorFileError(f"{file}: its name holds no layer number; expected vec_layer_<N>[_<model>].pt.")
    return int(match[1]), match[2]


def _choose_model(path: Path, models: set[str | None], told: Told) -> str | None:
    wanted = None if told.model_id is None else told.model_id.rstrip("/").rpartition("/")[2]
    if wanted in models and wanted is not None:
        return wanted
    if models == {None}:
        return None
    listed = _listed(sorted(model or "(no model in the name)" for model in models))
    if len(models) > 1:
        raise ConfigError(f"{path} holds vectors of several models: {listed}. Say which with --model-id.")
    if wanted is not None:
        raise ConfigError(f"{path} holds vectors of {listed}, not of {told.model_id!r}.")
    return next(iter(models))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
