"""lm-eval's own ``--model steered`` files: a dictionary hookpoint → vector, coefficient, action, bias, head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from lm_eval_steer.errors import VectorFileError
from lm_eval_steer.formats.base import Converted, Format, Origin, Told, Use, as_direction, finite_number
from lm_eval_steer.formats.caa_pt import is_caa_name
from lm_eval_steer.formats.hook_names import LAYER_BASE, parse_hook_name
from lm_eval_steer.formats.pickle_guard import SUFFIXES, load_pt
from lm_eval_steer.hookpoint import Hookpoint
from lm_eval_steer.suggest import choice_message

_KEYS = frozenset({"steering_vector", "steering_coefficient", "action", "bias", "head_index"})


class SteeredPt(Format):
    """The ``.pt`` of lm-eval's ``--model steered``; its placements become a plan with scope ``all``.

    ``[1, d]`` vectors are squeezed. ``bias`` is the origin of ``clamp`` and is left out of ``add``, where upstream
    stops with an assertion.

    Source: lm_eval/models/hf_steered.py (``SteeredModel``), lm-eval 0.4.13.
    """

    name: ClassVar[str] = "steered_pt"
    title: ClassVar[str] = "lm-eval's --model steered .pt"

    def recognises(self, path: Path) -> bool:
        """Say whether it is a dictionary of dictionaries with a ``steering_vector`` each."""
        if path.suffix.lower() not in SUFFIXES or not path.is_file() or is_caa_name(path):
            return False
        return is_steered(load_pt(path))

    def read(self, path: Path, told: Told) -> Converted:
        """Return one vector a site, and how each of its tensors is applied (see :meth:`Format.read`)."""
        content = load_pt(path)
        if not is_steered(content):
            raise VectorFileError(
                f"{path}: no dictionary hookpoint -> {{steering_vector, steering_coefficient, action}}."
            )
        assert isinstance(content, Mapping)
        entries = _entries(path, content)
        # One vector a site, because a vector file of several sites leaves open which of them is meant.
        sites = sorted({point.site for point in entries})
        vectors = []
        for number, site in enumerate(sites, 1):
            name = told.name if len(sites) == 1 else f"{told.name}-{number}"
            own = {point: entry for point, entry in entries.items() if point.site is site}
            notes = {"hookpoints": {str(point): entry.name for point, entry in own.items()}}
            origin = Origin(self.name, path, LAYER_BASE, (path,), notes)
            tensors = {point: entry.vector for point, entry in own.items()}
            origins = {point: entry.bias for point, entry in own.items() if entry.bias is not None}
            vectors.append(origin.vector(told, tensors, origins, name))
        uses = [Use(sites.index(point.site), point, e.coefficient, e.action) for point, e in entries.items()]
        return Converted(tuple(vectors), tuple(uses))


@dataclass(frozen=True)
class _Entry:
    """One hookpoint's entry, checked; ``bias`` only where ``clamp`` uses it."""

    name: str
    vector: Tensor
    bias: Tensor | None
    coefficient: float
    action: Literal["add", "clamp"]


def _entries(path: Path, content: Mapping[str, Mapping[str, Any]]) -> dict[Hookpoint, _Entry]:
    entries: dict[Hookpoint, _Entry] = {}
    for name, entry in content.items():
        where = f"{path}, {name!r}"
        point = parse_hook_name(name, where)
        if point in entries:
            raise VectorFileError(f"{where}: the same hookpoint as {entries[point].name!r}; keep one of the two names.")
        action = parse_action(entry.get("action"), where)
        _check_entry(entry, where)
        bias = entry.get("bias") if action == "clamp" else None
        entries[point] = _Entry(
            name,
            as_direction(entry["steering_vector"], where, squeeze=True),
            None if bias is None else as_direction(bias, f"{where}, bias", squeeze=True),
            finite_number(entry.get("steering_coefficient", 1.0), where),
            action,
        )
    return entries


def is_steered(content: object) -> bool:
    """Say whether the content of a ``.pt`` is a configuration of lm-eval's ``--model steered``."""
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) for key in content)
        and all(isinstance(value, Mapping) and "steering_vector" in value for value in content.values())
    )


def parse_action(action: object, where: str) -> Literal["add", "clamp"]:
    """Return upstream's action.

    Raises:
        VectorFileError: it is neither ``add`` nor ``clamp``.
    """
    if action == "add":
        return "add"
    if action == "clamp":
        return "clamp"
    raise VectorFileError(f"{where}: {choice_message('action', str(action)[:60], ('add', 'clamp'))}")


def _check_entry(entry: Mapping[str, Any], where: str) -> None:
    unknown = sorted(str(key)[:60] for key in entry if key not in _KEYS)
    if unknown:
        raise VectorFileError(f"{where}: {choice_message('key', unknown[0], _KEYS)}")
    if entry.get("head_index") is not None:
        raise VectorFileError(
            f"{where}: head_index {entry['head_index']!r} wants one attention head, and there is no site for single "
            "heads yet. Leave it out, or steer the attention's output (layers.N.self_attn)."
        )
