"""SweepSpec: what a sweep is asked for, and the cells that it means."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval_steer.axes import parse_layers
from lm_eval_steer.errors import ConfigError
from lm_eval_steer.files import content_id
from lm_eval_steer.gate_args import check_gate_keys
from lm_eval_steer.hookpoint import parse_site
from lm_eval_steer.layer_order import OrderRequest
from lm_eval_steer.model_args import PlanRequest, parse_arguments
from lm_eval_steer.operations import get_operation
from lm_eval_steer.plan import NORMALIZE, check_multiplier
from lm_eval_steer.scope import TokenScope, assistant_marker
from lm_eval_steer.spec_file import read_spec
from lm_eval_steer.suggest import choice_message
from lm_eval_steer.sweep.cell import Cell
from lm_eval_steer.sweep.grid import check_control_files, make_cells
from lm_eval_steer.sweep.nulls import parse_nulls
from lm_eval_steer.sweep.spec_values import READERS, explicit_request
from lm_eval_steer.sweep.system_prompts import NONE, parse_system_prompts


@dataclass(frozen=True)
class SweepSpec:
    """A sweep: axes whose every combination is a cell, or explicit plans; and the tasks, with how they are asked.

    Attributes:
        vectors: names or paths.
        layers: ``all``, ``12``, ``10-14`` or ``4,10-14``; one at a time.
        multipliers: λ.
        scopes: which tokens.
        operations: how the vector is applied.
        site: where in the block; None for the vector's own.
        skip_first: leave the first token, the attention sink, alone.
        normalize: none, unit, dose or set; ``set`` is over all vectors of the sweep.
        gates: under which condition vectors act, each the ``gate`` keys of a placement; None for every request.
        orders: orders of the blocks, ``skip:15``, beside the vectors or alone; the other axes are not for them.
        nulls: rows that say what chance would do, ``random:20,shuffled,letter,prompt,other``; "" for none.
        system_prompts: names with their texts; None for a text that each task declares, and for ``none``.
        placements: explicit plans instead of axes, each model arguments or ``{placements: [...]}``.
        allow_foreign_vector: accept vectors of other models.
        tasks: names of lm-eval tasks.
        include_path: folder with task files of the user's own, as lm-eval's ``--include_path``.
        limit: items a task; None for all.
        num_fewshot: examples before an item; None for what the task says.
        chat: apply the chat template.
        batch_size: items in one forward.
        seed: of the few-shot draw and of the null directions.
        base: folder of the spec file; relative vector paths are taken from it and may not leave it.
    """

    vectors: tuple[str, ...] = ()
    layers: str = "all"
    multipliers: tuple[float, ...] = (1.0,)
    scopes: tuple[str, ...] = ("after_prompt",)
    operations: tuple[str, ...] = ("add",)
    site: str | None = None
    skip_first: bool = False
    normalize: tuple[str, ...] = ("none",)
    gates: tuple[Mapping[str, Any] | None, ...] = (None,)
    orders: tuple[str, ...] = ()
    nulls: str = ""
    system_prompts: Mapping[str, str | None] = field(default_factory=lambda: {NONE: None})
    placements: tuple[Mapping[str, Any], ...] = ()
    allow_foreign_vector: bool = False
    tasks: tuple[str, ...] = ()
    include_path: str | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    chat: bool = False
    batch_size: int = 8
    seed: int = 1234
    base: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_file(cls, path: Path | str) -> SweepSpec:
        """Return the sweep that a ``.yaml``, ``.yml`` or ``.json`` file asks for.

        Raises:
            ConfigError: it cannot be read, or says something that is not allowed.
        """
        return cls.from_dict(read_spec(path), base=Path(path).expanduser().resolve().parent)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], base: Path | None = None) -> SweepSpec:
        """Return the sweep that flags, or a spec file's object, ask for; None stands for absent.

        Lists may be text as on the command line: items joined by commas, scopes by ``;`` (a marker may hold a comma),
        multipliers as ``-1,0,1`` or ``-2:2:0.5``. A gate ``none`` is every request.

        Raises:
            ConfigError: an unknown key, or a value that is not allowed.
        """
        known = [f.name for f in dataclasses.fields(cls) if f.name != "base"]
        for key in value:
            if key not in known:
                raise ConfigError(f"sweep: {choice_message('key', str(key), known)}")
        given = {key: item for key, item in value.items() if item is not None}
        read = {key: READERS.get(key, lambda item: item)(item) for key, item in given.items()}
        return cls(**read, base=base)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON values that :meth:`from_dict` reads; the folder it came from is not in it."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "base"}
        values["system_prompts"] = dict(self.system_prompts)
        for key, default in (("gates", (None,)), ("orders", ())):
            if values[key] == default:  # younger than the ids of specs in ledgers, which stay as they are
                del values[key]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @property
    def own_tasks(self) -> Path | None:
        """Folder of the user's own tasks, from the folder of the spec file; None for none."""
        return None if self.include_path is None else Path(self.base or "", self.include_path).expanduser()

    @property
    def id(self) -> str:
        """Content id of what was asked for: 16 hexadecimal digits."""
        return content_id(self.to_dict())

    def requests(self) -> tuple[PlanRequest, ...]:
        """Read every vector and control file and check what needs no model; a sweep calls this before it loads one.

        Returns:
            One request a vector and gate, its layer and multiplier left open, then one an order; or one an explicit
            plan.

        Raises:
            ConfigError: an argument, a layer that a vector lacks, or a null that cannot be had.
            InputError: a vector that cannot be read.
        """
        requests = self._explicit() if self.placements else self._axes()
        check_control_files(self, requests)
        return requests

    def _explicit(self) -> tuple[PlanRequest, ...]:
        return tuple(explicit_request(item, self.base, self.allow_foreign_vector) for item in self.placements)

    def _axes(self) -> tuple[PlanRequest, ...]:
        common = {"skip_first": self.skip_first, "allow_foreign_vector": self.allow_foreign_vector, "site": self.site}
        requests = tuple(
            parse_arguments({"vector": label, **common, **(gate or {})}, self.base)
            for label in self.vectors
            for gate in self.gates
        )
        for request in requests:
            parse_layers(self.layers, request.entries[0].stored.vector.layers)
        return requests + tuple(parse_arguments({"order": order}) for order in self.orders)

    def cells(self, n_layers: int, tokenizer: Any = None) -> list[Cell]:
        """Return the cells for a model of ``n_layers`` blocks: for each system prompt the unsteered one, then plans.

        A plan that leaves the model as it is (λ = 0) is the unsteered one, and of equal plans only the first is a
        cell; the labels of the others are its aliases. The order is that of the axes: system prompts (no prompt
        first), vectors, gates, scopes, operations, normalisations, layers, multipliers, then orders; each one's nulls
        after its own.

        Args:
            n_layers: of the model.
            tokenizer: of the model, whose chat template has the marker of a bare ``from_marker``; None leaves it open.

        Raises:
            SteerError: as :meth:`requests`, and for a layer, normalisation, scope or null that cannot be had.
        """
        cells = make_cells(self, self.requests(), n_layers)
        if tokenizer is None:
            return cells
        marker = partial(assistant_marker, tokenizer)
        return [dataclasses.replace(cell, plan=cell.plan.with_marker(marker)) for cell in cells]


_AXES = ("layers", "multipliers", "scopes", "operations", "site", "skip_first", "normalize", "gates")


def _check(spec: SweepSpec) -> None:
    axes = ("vectors", *_AXES, "orders")
    given = [f.name for f in dataclasses.fields(spec) if f.name in axes and getattr(spec, f.name) != f.default]
    if spec.placements and given:
        raise ConfigError(f"sweep: placements and {', '.join(given)} are both given; write plans, or axes.")
    if not spec.placements and not spec.vectors and not spec.orders:
        raise ConfigError("sweep: name at least one vector (or orders, or placements).")
    if not spec.vectors and spec.orders and given != ["orders"]:
        raise ConfigError(f"sweep: {', '.join(set(given) - {'orders'})} are of vectors, and none is named.")
    if not spec.tasks:
        raise ConfigError("sweep: name at least one task.")
    if spec.own_tasks is not None and not spec.own_tasks.is_dir():
        raise ConfigError(f"sweep: include_path {spec.include_path!r} is no folder.")
    for key in ("multipliers", "scopes", "operations", "normalize", "gates"):
        _check_list(key, getattr(spec, key), empty=bool(spec.placements))
    for key in ("vectors", "orders", "tasks"):
        _check_list(key, getattr(spec, key), empty=True)
    for key in ("skip_first", "chat", "allow_foreign_vector"):
        if not isinstance(getattr(spec, key), bool):
            raise ConfigError(f"sweep: {key} is true or false, not {getattr(spec, key)!r}.")
    for key, least in (("limit", 1), ("num_fewshot", 0), ("batch_size", 1), ("seed", 0)):
        _check_whole(key, getattr(spec, key), least, optional=key in ("limit", "num_fewshot"))
    _check_words(spec)


def _check_words(spec: SweepSpec) -> None:
    for vector in spec.vectors:
        if ";" in vector:
            raise ConfigError(f"sweep: vector {vector!r}: vectors that act together are a plan; use placements.")
    for multiplier in spec.multipliers:
        check_multiplier(multiplier)
    for scope in spec.scopes:
        TokenScope.parse(scope)
    for operation in spec.operations:
        get_operation(operation)
    for order in spec.orders:
        OrderRequest.parse(order)
    for gate in spec.gates:
        check_gate_keys({} if gate is None else gate)
    for word in spec.normalize:
        if word not in NORMALIZE:
            raise ConfigError(f"sweep: {choice_message('normalize', word, NORMALIZE)}")
    if "set" in spec.normalize and len(spec.vectors) < 2:
        raise ConfigError("sweep: normalize=set is the mean norm of the sweep's vectors; name two or more.")
    if spec.site is not None:
        parse_site(spec.site)
    parse_system_prompts(spec.system_prompts)
    if parse_nulls(spec.nulls).other and max(len(spec.vectors), len(spec.placements)) < 2:
        raise ConfigError("sweep: --nulls other compares the sweep's vectors with each other; name two or more.")


def _check_list(key: str, values: Sequence[Any], *, empty: bool) -> None:
    if not values and not empty:
        raise ConfigError(f"sweep: {key} is empty.")
    twice = sorted({str(value) for value in values if list(values).count(value) > 1})
    if twice:
        raise ConfigError(f"sweep: {key} names {', '.join(twice)} twice.")


def _check_whole(key: str, value: object, least: int, *, optional: bool) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"sweep: {key} is a whole number from {least} on, not {value!r}.")
