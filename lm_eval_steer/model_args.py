"""Model arguments, or a spec file, to a SteeringPlan: one grammar, one meaning, no silent guess.

Lists are written ``a;b`` (or as Python lists); they zip, and a list of length 1 is used for all. ``10-14`` in
``layer`` means these layers together. What depends on the model (``all`` under ``ablate``, negative layers) is
settled by :meth:`PlanRequest.resolve`, everything else before the model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_steer.errors import ConfigError, LayerError
from lm_eval_steer.hookpoint import Hookpoint, Site, check_layer, parse_site
from lm_eval_steer.operations import get_operation
from lm_eval_steer.plan import Normalize, Placement, SteeringPlan, check_multiplier, normalized_scale
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.spec_file import read_spec
from lm_eval_steer.store import StoredVector, find_vector
from lm_eval_steer.suggest import choice_message, nearest

PLACEMENT_KEYS = (
    "vector",
    "layer",
    "site",
    "vector_layer",
    "multiplier",
    "operation",
    "scope",
    "skip_first",
    "normalize",
)
OWN_ARGUMENTS = (*PLACEMENT_KEYS, "allow_foreign_vector", "spec")
_SYNONYMS = {
    "alpha": "multiplier",
    "coefficient": "multiplier",
    "coeff": "multiplier",
    "strength": "multiplier",
    "steering_vector": "vector",
    "steer_path": "vector",
    "position": "scope",
    "positions": "scope",
}
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)?(\.\d*)?([eE][+-]?\d+)?")
_LAYER = re.compile(r"-?(0|[1-9]\d*)")
_RANGE = re.compile(r"(0|[1-9]\d*)-(0|[1-9]\d*)")

Layers = tuple[int, ...] | str | None


@dataclass(frozen=True)
class _Entry:
    """One zipped entry: a vector and how it is to be placed, before the model is known."""

    stored: StoredVector
    layers: Layers
    site: Site | None
    vector_layer: int | None
    multiplier: float
    operation: str
    scope: TokenScope
    skip_first: bool
    normalize: str


@dataclass(frozen=True)
class PlanRequest:
    """A plan that is checked as far as it can be without the model.

    Attributes:
        entries: what was asked for.
        allow_foreign_vector: whether vectors of other models are accepted.
    """

    entries: tuple[_Entry, ...]
    allow_foreign_vector: bool = False

    def resolve(self, n_layers: int, points: Collection[Hookpoint] | None = None) -> SteeringPlan:
        """Return the plan for a model of ``n_layers`` blocks.

        Args:
            n_layers: the model's number of blocks.
            points: the hookpoints it has; an operation that edits every write leaves out sites a layer lacks (the
                attention of a Mamba block). None takes every site for there.

        Raises:
            LayerError: a layer the model or the vector does not have, or one given twice.
            ConfigError: a normalisation or scope that the vector cannot have.
        """
        peers = tuple(entry.stored.vector for entry in self.entries)
        return SteeringPlan(tuple(p for entry in self.entries for p in _placements(entry, n_layers, points, peers)))


def parse_arguments(arguments: Mapping[str, Any], base: Path | None = None) -> PlanRequest:
    """Return the plan that flat arguments (:data:`OWN_ARGUMENTS`, None for absent) ask for.

    Args:
        arguments: name → value as lm-eval's CLI or Python gives it.
        base: folder that relative vector paths are taken from and may not leave; None for the working folder.

    Raises:
        ConfigError: anything that has no single meaning.
        InputError: a vector that cannot be read.
    """
    given = {key: value for key, value in arguments.items() if value is not None}
    allow = _boolean("allow_foreign_vector", given.pop("allow_foreign_vector", False))
    spec = given.pop("spec", None)
    if spec is not None:
        if given:
            raise ConfigError(f"spec and {', '.join(sorted(given))} are both given; put everything into the spec.")
        return _parse_spec(spec, allow)
    if not given:
        return PlanRequest((), allow)
    return PlanRequest(_zip_entries(given, base), allow)


def check_unknown(names: Sequence[str]) -> None:
    """Refuse argument names that look like one of ours misspelt; others may be for ``from_pretrained``.

    Raises:
        ConfigError: with the argument that was probably meant.
    """
    for name in names:
        meant = _SYNONYMS.get(name) or nearest(name, OWN_ARGUMENTS, cutoff=0.72)
        if meant is not None:
            raise ConfigError(
                f"unknown argument {name!r}. Did you mean {meant!r}? steered_hf takes {', '.join(OWN_ARGUMENTS)} "
                "and everything that lm-eval's hf takes."
            )


def _parse_spec(spec: Any, allow: bool) -> PlanRequest:
    base = None
    if isinstance(spec, str | Path):
        base = Path(spec).expanduser().resolve().parent
        spec = read_spec(spec)
    if not isinstance(spec, Mapping) or not isinstance(spec.get("placements"), list):
        raise ConfigError("a spec is an object with a list 'placements' (and, if need be, allow_foreign_vector).")
    for key in spec:
        if key not in ("placements", "allow_foreign_vector"):
            raise ConfigError(choice_message("spec key", str(key), ("placements", "allow_foreign_vector")))
    entries: list[_Entry] = []
    for number, item in enumerate(spec["placements"]):
        if not isinstance(item, Mapping):
            raise ConfigError(f"placement {number} of the spec is no object.")
        for key in item:
            if key not in PLACEMENT_KEYS:
                raise ConfigError(f"placement {number}: {choice_message('key', str(key), PLACEMENT_KEYS)}")
        entries.extend(_zip_entries({k: v for k, v in item.items() if v is not None}, base))
    return PlanRequest(
        tuple(entries), allow or _boolean("allow_foreign_vector", spec.get("allow_foreign_vector", False))
    )


def _zip_entries(given: Mapping[str, Any], base: Path | None) -> tuple[_Entry, ...]:
    if "vector" not in given:
        raise ConfigError(f"{', '.join(sorted(given))} given without vector; name a vector file or a shipped vector.")
    columns = {key: _items(value, strip=key != "scope") for key, value in given.items()}
    count = max(len(items) for items in columns.values())
    for key, items in columns.items():
        if len(items) not in (1, count):
            raise ConfigError(
                f"{key} has {len(items)} items where another list has {count}; only a single item is repeated."
            )
    labels = [_text("vector", label) for label in columns["vector"]]
    loaded = {label: find_vector(label, base) for label in dict.fromkeys(labels)}
    rows = [{key: items[i if len(items) > 1 else 0] for key, items in columns.items()} for i in range(count)]
    return tuple(_entry(row, loaded[row["vector"]]) for row in rows)


def _entry(row: Mapping[str, Any], stored: StoredVector) -> _Entry:
    operation = _text("operation", row.get("operation", "add"))
    get_operation(operation)
    return _Entry(
        stored=stored,
        layers=_layers(row.get("layer")),
        site=parse_site(_text("site", row["site"])) if "site" in row else None,
        vector_layer=None if "vector_layer" not in row else _one_layer(row["vector_layer"]),
        multiplier=_number("multiplier", row.get("multiplier", 1.0)),
        operation=operation,
        scope=TokenScope.parse(_text("scope", row.get("scope", "after_prompt"))),
        skip_first=_boolean("skip_first", row.get("skip_first", False)),
        normalize=_text("normalize", row.get("normalize", "none")),
    )


def _placements(
    entry: _Entry, n_layers: int, points: Collection[Hookpoint] | None, peers: tuple[Any, ...]
) -> list[Placement]:
    vector = entry.stored.vector
    source_site = vector.site
    operation = get_operation(entry.operation)
    everywhere = operation.default_sites is not None and entry.site is None
    layers = [check_layer(layer, n_layers) for layer in _chosen_layers(entry, n_layers)]
    if everywhere and len(layers) != 1:
        raise LayerError(
            f"{entry.operation} edits every layer with one direction; name the one layer that the direction is of."
        )
    if len(set(layers)) != len(layers):
        raise LayerError(f"layer {entry.layers} names a layer twice.")
    pairs: list[tuple[int, Hookpoint]] = []
    for layer in layers:
        source = layer if entry.vector_layer is None else check_layer(entry.vector_layer, n_layers)
        if everywhere:
            writes = [Hookpoint(site, i) for i in range(n_layers) for site in operation.default_sites or ()]
            pairs += [(source, p) for p in writes if points is None or p in points or p.site is Site.BLOCK_IN]
        else:
            pairs.append((source, Hookpoint(entry.site or source_site, layer)))
    return [_placement(entry, Hookpoint(source_site, source), target, peers) for source, target in pairs]


def _placement(entry: _Entry, source: Hookpoint, target: Hookpoint, peers: tuple[Any, ...]) -> Placement:
    vector = entry.stored.vector
    vector.at(source.layer, source.site)
    normalize: Normalize = entry.normalize  # type: ignore[assignment]  # checked by normalized_scale
    return Placement(
        vector=vector,
        source=source,
        target=target,
        operation=entry.operation,
        multiplier=entry.multiplier,
        scope=entry.scope,
        skip_first=entry.skip_first,
        normalize=normalize,
        scale=normalized_scale(vector, source, target, entry.normalize, peers),
        file=entry.stored.label,
        file_sha256=entry.stored.sha256,
    )


def _chosen_layers(entry: _Entry, n_layers: int) -> Sequence[int]:
    vector = entry.stored.vector
    if entry.layers == "all":
        return vector.layers
    if isinstance(entry.layers, tuple):
        return entry.layers
    if len(vector.layers) == 1:
        return vector.layers
    raise LayerError(
        f"vector {vector.name!r} has {len(vector.layers)} layers ({vector.layers[0]} to {vector.layers[-1]}); "
        "say which: layer=N, layer=A-B for several together, or layer=all."
    )


def _items(value: Any, *, strip: bool) -> list[Any]:
    if isinstance(value, str):
        # A marker's own white space counts, so scopes are not stripped.
        parts = [part.strip() if strip else part for part in value.split(";")]
        if any(not part for part in parts):
            raise ConfigError(f"{value!r} has an empty item.")
        return list(parts)
    if isinstance(value, list | tuple):
        if not value:
            raise ConfigError("an empty list has no meaning here.")
        return list(value)
    return [value]


def _layers(value: Any) -> Layers:
    if value is None or value == "all":
        return value  # type: ignore[no-any-return]
    if isinstance(value, str) and (match := _RANGE.fullmatch(value)):
        first, last = int(match[1]), int(match[2])
        if first > last:
            raise LayerError(f"layer range {value!r} runs backwards; write {last}-{first}.")
        return tuple(range(first, last + 1))
    return (_one_layer(value),)


def _one_layer(value: Any) -> int:
    if isinstance(value, str):
        if not _LAYER.fullmatch(value):
            raise LayerError(f"layer {value!r} is no whole number; write 12, 10-14, 10;12 or all.")
        value = int(value)
    if isinstance(value, float) and value < 0 and value.is_integer():
        value = int(value)  # lm-eval's own parser reads layer=-1 as -1.0
    if isinstance(value, bool) or not isinstance(value, int):
        raise LayerError(f"layer {value!r} is no whole number; write 12, 10-14, 10;12 or all.")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value) or not any(c.isdigit() for c in value.split("e")[0].split("E")[0]):
            raise ConfigError(f"{name} {value!r} is no number; write a plain decimal such as 1.5 or -2.")
        value = float(value)
    return check_multiplier(value)


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ConfigError(f"{name} {value!r} is neither true nor false.")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} {value!r} is no text.")
    return value
