"""Grid: the cells that a sweep's axes mean, with the labels that tables call them by."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lm_eval_steer.axes import parse_layers
from lm_eval_steer.model_args import PlanRequest
from lm_eval_steer.operations import get_operation
from lm_eval_steer.plan import Normalize, SteeringPlan, normalized_scale
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.sweep.cell import Cell
from lm_eval_steer.sweep.nulls import PROMPTS, NullRows, Nulls, parse_nulls
from lm_eval_steer.sweep.records import UNSTEERED, Label
from lm_eval_steer.sweep.system_prompts import NONE
from lm_eval_steer.vector import SteeringVector

if TYPE_CHECKING:
    from lm_eval_steer.sweep.spec import SweepSpec

Labels = dict[str, Label]
_Labelled = tuple[SteeringPlan, Labels]


def make_cells(spec: SweepSpec, requests: Sequence[PlanRequest], n_layers: int) -> list[Cell]:
    """Return the cells of a sweep; see :meth:`SweepSpec.cells`."""
    names = _names(entry.stored.vector for request in requests for entry in request.entries)
    nulls = make_nulls(spec, requests, n_layers)
    points = list(_points(spec, requests, n_layers, names, nulls))
    return [
        cell
        for prompt, steered in system_prompts(spec, nulls.rows).items()
        for cell in _under_prompt(prompt, points if steered else [])
    ]


def make_nulls(spec: SweepSpec, requests: Sequence[PlanRequest], n_layers: int | None = None) -> Nulls:
    """Return what makes the null directions of a sweep."""
    stored = [entry.stored for request in requests for entry in request.entries]
    return Nulls(parse_nulls(spec.nulls), spec.seed, stored, n_layers)


def check_control_files(spec: SweepSpec, requests: Sequence[PlanRequest]) -> None:
    """Read every control file that the nulls need.

    Raises:
        ConfigError: one is missing, or is another vector's.
    """
    nulls = make_nulls(spec, requests)
    for request in requests:
        vectors = [entry.stored.vector for entry in request.entries]
        for control in nulls.rows.controls:
            if control.kind != "random" and nulls.apply(control, vectors):
                for vector in vectors:
                    nulls.vector(vector, control)


def system_prompts(spec: SweepSpec, nulls: NullRows) -> dict[str | None, bool]:
    """Return the system prompts of a sweep, none first, and whether plans are applied under them.

    The prompt null adds the unsteered model under its two prompts, and under none, to compare them with.
    """
    names = {None if name == NONE else name: True for name in spec.system_prompts}
    if nulls.prompt:
        names = {**dict.fromkeys((None, *PROMPTS), False), **names}
    return dict(sorted(names.items(), key=lambda item: item[0] is not None))


def _under_prompt(prompt: str | None, points: Iterable[_Labelled]) -> list[Cell]:
    """Return the cells under one system prompt, the unsteered one first, each plan once."""
    labels: dict[str, Labels] = {UNSTEERED: _unsteered(prompt)}
    plans: dict[str, SteeringPlan] = {UNSTEERED: SteeringPlan()}
    aliases: dict[str, list[Labels]] = {UNSTEERED: []}
    for plan, found in points:
        key = UNSTEERED if plan.neutral else plan.id
        own = {**found, "system_prompt": prompt}
        if key in plans:
            aliases[key].append(own)
        else:
            plans[key], labels[key], aliases[key] = plan, own, []
    return [Cell(plan, labels[key], tuple(aliases[key])) for key, plan in plans.items()]


def _unsteered(prompt: str | None) -> Labels:
    """Return the labels of the empty plan. Under a system prompt it is the prompt null, however it came about."""
    labels: Labels = {"vector": UNSTEERED, **dict.fromkeys(_KEYS), "multiplier": 0.0}
    return (
        labels
        if prompt is None
        else {**labels, "vector": f"prompt-{prompt}", "control": "prompt", "system_prompt": prompt}
    )


def _points(
    spec: SweepSpec, requests: Sequence[PlanRequest], n_layers: int, names: Mapping[int, str], nulls: Nulls
) -> Iterator[_Labelled]:
    peers = tuple(entry.stored.vector for request in requests for entry in request.entries[:1])
    for request in requests:
        whole = bool(spec.placements) or request.order is not None
        plans = iter([request.resolve(n_layers)]) if whole else _axes(spec, request, n_layers, peers)
        group = [(plan, _labels(plan, names)) for plan in plans]
        yield from group
        for control in nulls.rows.controls:
            for plan, labels in group:
                if not nulls.apply(control, [placement.vector for placement in plan.placements]):
                    continue
                marks: Labels = {"control": control.kind, "control_of": labels["vector"]}
                yield nulls.plan(plan, control), {**labels, **marks, "vector": f"{labels['vector']}-{control}"}


def _axes(
    spec: SweepSpec, request: PlanRequest, n_layers: int, peers: tuple[SteeringVector, ...]
) -> Iterator[SteeringPlan]:
    entry = request.entries[0]
    layers = parse_layers(spec.layers, entry.stored.vector.layers)
    for scope, operation, normalize in itertools.product(spec.scopes, spec.operations, spec.normalize):
        together = get_operation(operation).layers_together
        for chosen, multiplier in itertools.product([layers] if together else [(i,) for i in layers], spec.multipliers):
            point = dataclasses.replace(
                entry, scope=TokenScope.parse(scope), operation=operation, layers=chosen, multiplier=multiplier
            )
            plan = dataclasses.replace(request, entries=(point,)).resolve(n_layers)
            yield plan if normalize == "none" else _normalized(plan, normalize, peers)


def _normalized(plan: SteeringPlan, word: str, peers: tuple[SteeringVector, ...]) -> SteeringPlan:
    normalize: Normalize = word  # type: ignore[assignment]  # checked when the spec was made
    return SteeringPlan(
        tuple(
            dataclasses.replace(
                placement,
                normalize=normalize,
                scale=normalized_scale(placement.vector, placement.source, placement.target, word, peers),
            )
            for placement in plan.placements
        )
    )


def _names(vectors: Iterable[SteeringVector]) -> dict[int, str]:
    """Return each vector's name by identity; two vectors of one name get a part of their ids."""
    ids = {id(vector): (vector.name, vector.id) for vector in vectors}
    return {
        key: name if len({other for same, other in ids.values() if same == name}) == 1 else f"{name}-{content[:8]}"
        for key, (name, content) in ids.items()
    }


def _labels(plan: SteeringPlan, names: Mapping[int, str]) -> Labels:
    placements = plan.placements
    if plan.order is not None:
        order: Labels = {"vector": plan.order.label, "operation": "layer_order", "scope": "all", "multiplier": 1.0}
        # Where any blocks may run in any order, the order itself is the name.
        changed = () if plan.order.change == "run" else plan.order.changed
        blocks = _span(changed) if changed else None
        return {**dict.fromkeys(_KEYS), "layer": blocks, "normalize": "none", "skip_first": False, **order}
    # An operation that edits every site at every layer is told apart by the layer that its direction is of.
    everywhere = len({placement.target.site for placement in placements}) > 1
    layers = [placement.source.layer if everywhere else placement.target.layer for placement in placements]
    return {
        "system_prompt": None,
        "vector": _joined([names[id(placement.vector)] for placement in placements]),
        "control": _joined([placement.vector.provenance.control for placement in placements]),
        "control_of": None,
        "layer": _span(sorted(set(layers))),
        "site": _joined([placement.target.site.value for placement in placements]),
        "scope": _joined([str(placement.scope) for placement in placements]),
        "operation": _joined([placement.operation for placement in placements]),
        "normalize": _joined([placement.normalize for placement in placements]),
        "skip_first": _joined([placement.skip_first for placement in placements]),
        "multiplier": _joined([placement.multiplier for placement in placements]),
    }


_KEYS = ("system_prompt", "control", "control_of", "layer", "site", "scope", "operation", "normalize", "skip_first")


def _joined(values: Sequence[Label]) -> Label:
    """Return the one value, or the different ones joined by ``+``."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else "+".join(map(str, different))


def _span(layers: Sequence[int]) -> Label:
    if len(layers) == 1:
        return layers[0]
    whole = list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if whole else ";".join(map(str, layers))
