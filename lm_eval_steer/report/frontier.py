"""Frontier: what a steered model gains in games against the harm that it does, with the Pareto front of its cells."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lm_eval_steer.names import slug
from lm_eval_steer.report.labels import Naming, TaskCurves, dose, is_random, model_name, number, owner_name, short
from lm_eval_steer.report.palette import SERIES
from lm_eval_steer.report.panel import SMALL, Panel, Span, legend
from lm_eval_steer.report.picture import Numbers, Picture
from lm_eval_steer.report.scene import Dot, Line, Mark, Position, Scene, Shape, Text
from lm_eval_steer.stats.curve import Curve, Estimate, Point

Kind = Literal["unsteered", "random", "vector"]

_REWARD, _HARM = "reward_rel", "harm_rel"
_WIDTH, _HEIGHT, _LEFT = 760, 360, 78  # pixels
_SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "diamond", "circle")
_CAPTION = (
    "One point a cell, joined in the order of λ: to the right more reward, up more harm, both relative to an agent "
    "that chooses at random (1, the thin lines). The model is better the further right and down. Bars: 95 % intervals "
    "of the paired change from the unsteered model, clustered by game; under 10 games there are none. Dashed: the "
    "Pareto front, the cells to which no other one is better in reward or harm without being worse in the other. The "
    "best of many noisy points flatters: hold the front against the random directions, grey."
)


@dataclass(frozen=True)
class Cell:
    """One point of the picture.

    Attributes:
        kind: what it is of.
        name: of the vector and its place.
        multiplier: λ.
        reward: relative to a random agent.
        harm: relative to a random agent.
        reward_change: paired, from the unsteered model.
        harm_change: paired, from the unsteered model.
    """

    kind: Kind
    name: str
    multiplier: float
    reward: float
    harm: float
    reward_change: Estimate
    harm_change: Estimate

    def beats(self, other: Cell) -> bool:
        """Whether it has no less reward and no more harm, and one of them better."""
        no_worse = self.reward >= other.reward and self.harm <= other.harm
        return no_worse and (self.reward, self.harm) != (other.reward, other.harm)


@dataclass(frozen=True)
class Path:
    """One curve of the picture.

    Attributes:
        base: the unsteered cell of its model.
        cells: the steered ones, by λ.
    """

    base: Cell
    cells: Sequence[Cell]

    @property
    def reach(self) -> float:
        """How far it leads away from its unsteered cell."""
        base = self.base
        return max(math.hypot(cell.reward - base.reward, cell.harm - base.harm) for cell in self.cells)


def frontier(group: TaskCurves, naming: Naming) -> Picture | None:
    """Return reward against harm on a task; None where no steered cell has both."""
    curves = [curve for curve in group.curves if not is_random(curve)]
    bases = _bases(curves, naming)
    paths = [
        Path(bases[model_name(curve)], cells)
        for curve in curves
        if (cells := _cells(curve, "vector", naming.full(curve))) and model_name(curve) in bases
    ]
    if not paths:
        return None
    unsteered = list(dict.fromkeys(path.base for path in paths))
    nulls = [curve for curve in group.curves if is_random(curve)]
    randoms = [cell for curve in nulls for cell in _cells(curve, "random", _null(curve, naming))]
    front = pareto_front([*unsteered, *(cell for path in paths for cell in path.cells)])
    shown = sorted(paths, key=lambda path: (not set(path.cells) & set(front), -path.reach, path.cells[0].name))
    shown = shown[: len(SERIES)]
    note = (
        f" {len(shown)} of {len(paths)} curves are shown, those on the front first." if len(shown) < len(paths) else ""
    )
    return Picture(
        name=f"frontier-{slug(group.slug_source)}",
        title=f"Reward against harm on {short(group.title, 60)}",
        caption=_CAPTION + note,
        alt=f"{len(shown)} paths of harm against reward; {len(front)} points are on the Pareto front. The table below "
        "holds every number.",
        scene=_scene(shown, unsteered, randoms, front),
        numbers=_numbers([unsteered, *(path.cells for path in paths), *_means(randoms)], front),
    )


def pareto_front(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells that no other beats, by reward, ascending."""
    every = list(cells)
    kept = [cell for cell in every if not any(other.beats(cell) for other in every)]
    return sorted(kept, key=lambda cell: (cell.reward, cell.harm, cell.name, cell.multiplier))


def _cells(curve: Curve, kind: Kind, name: str) -> list[Cell]:
    """Return the steered cells; at λ = 0 there is one where an operation does something there."""
    found = [cell for point in curve.points if (cell := _cell(point, kind, name)) is not None]
    return [cell for cell in found if cell.multiplier or cell.reward_change.value or cell.harm_change.value]


def _bases(curves: Iterable[Curve], naming: Naming) -> dict[str, Cell]:
    """Return the unsteered cell of each model."""
    bases: dict[str, Cell] = {}
    for curve in curves:
        model = model_name(curve)
        name = f"unsteered · {model}" if naming.several_models else "unsteered"
        for cell in _unsteered(curve)[:1]:
            bases.setdefault(model, dataclasses.replace(cell, name=name))
    return bases


def _unsteered(curve: Curve) -> list[Cell]:
    """Return the unsteered model; where an operation does something at λ = 0, from what its cells changed."""
    here = [cell for point in curve.points if (cell := _cell(point, "unsteered", "unsteered")) is not None]
    none = Estimate(0.0, 0.0, 0.0, why="0 by definition")
    return [
        dataclasses.replace(
            cell,
            multiplier=0.0,
            reward=cell.reward - (cell.reward_change.value or 0.0),
            harm=cell.harm - (cell.harm_change.value or 0.0),
            reward_change=none,
            harm_change=none,
        )
        for cell in sorted(here, key=lambda cell: abs(cell.multiplier))
    ]


def _cell(point: Point, kind: Kind, name: str) -> Cell | None:
    """Return a point's cell; None where reward or harm is not applicable."""
    reward, harm = (point.side_metrics.get(metric) for metric in (_REWARD, _HARM))
    if reward is None or harm is None or reward.level.value is None or harm.level.value is None:
        return None
    return Cell(kind, name, point.multiplier, reward.level.value, harm.level.value, reward.change, harm.change)


def _null(curve: Curve, naming: Naming) -> str:
    place = naming.place(curve)
    return f"random of {owner_name(curve)}{f' · {place}' if place else ''}"


def _scene(paths: Sequence[Path], unsteered: Sequence[Cell], randoms: Sequence[Cell], front: Sequence[Cell]) -> Scene:
    cells = [*unsteered, *randoms, *front, *(cell for path in paths for cell in path.cells)]
    panel = Panel(
        _span([end for cell in cells for end in _ends(cell.reward, cell.reward_change)], _LEFT, _WIDTH - 16),
        _span([end for cell in cells for end in _ends(cell.harm, cell.harm_change)], _HEIGHT, 10),
    )
    marks: list[Mark] = [
        Line(((panel.x.start, panel.y(1)), (panel.x.end, panel.y(1))), "rule"),
        Line(((panel.x(1), panel.y.start), (panel.x(1), panel.y.end)), "rule"),
        *panel.x_axis("reward relative to a random agent, right is better", 8),
        *panel.y_axis("harm relative to a random agent", 7),
        Line(_steps(panel, front), "ink", 1.5, dashed=True),
    ]
    marks += [Dot(*panel.at(cell.reward, cell.harm), "band", 2.2, alpha=0.6, about=_about(cell)) for cell in randoms]
    entries: list[tuple[list[Mark], str]] = [([Dot(0, 0, "ink", 5, "diamond", hollow=True)], "unsteered")]
    entries += [([Dot(0, 0, "band", 2.2, alpha=0.6)], "random directions")] if randoms else []
    entries.append(([Line(((-12.0, 0.0), (12.0, 0.0)), "ink", 1.5, dashed=True)], "Pareto front"))
    written: list[Position] = []
    for path, role, shape in zip(paths, SERIES, _SHAPES, strict=False):
        marks += _path(panel, path, role, shape, written)
        sample: list[Mark] = [Line(((-12.0, 0.0), (12.0, 0.0)), role, 1.5), Dot(0, 0, role, 3.6, shape)]
        entries.append((sample, short(path.cells[0].name, 60)))
    marks += [
        Dot(*panel.at(base.reward, base.harm), "ink", 5, "diamond", hollow=True, about=short(base.name, 60))
        for base in unsteered
    ]
    names, height = legend(entries, _LEFT, _HEIGHT + 46, _WIDTH - _LEFT)
    return Scene(_WIDTH, _HEIGHT + 48 + height, (*marks, *names))


def _path(panel: Panel, path: Path, role: str, shape: Shape, written: list[Position]) -> list[Mark]:
    """Return one curve's marks, through the unsteered point; each λ is written where ``written`` leaves room."""
    marks: list[Mark] = []
    for cell in path.cells:
        (low, high), (least, most) = _bar(cell.reward, cell.reward_change), _bar(cell.harm, cell.harm_change)
        marks.append(Line((panel.at(low, cell.harm), panel.at(high, cell.harm)), role, 1, alpha=0.4))
        marks.append(Line((panel.at(cell.reward, least), panel.at(cell.reward, most)), role, 1, alpha=0.4))
    joined = sorted([*path.cells, path.base], key=lambda cell: cell.multiplier)
    marks.append(Line(tuple(panel.at(cell.reward, cell.harm) for cell in joined), role, 1.5))
    for cell in path.cells:
        x, y = panel.at(cell.reward, cell.harm)
        marks.append(Dot(x, y, role, 3.6, shape, about=_about(cell)))
        if all(abs(x - other) > 40 or abs(y - height) > 13 for other, height in written):
            written.append((x, y))
            marks.append(Text(x + 6, y - 6, f"λ {dose(cell.multiplier)}", SMALL, "muted"))
    return marks


def _steps(panel: Panel, front: Sequence[Cell]) -> tuple[Position, ...]:
    """Return the border of what the front beats, through its points; both its ends run to the edges."""
    places = [panel.at(cell.reward, cell.harm) for cell in front]
    line = [(panel.x.start, places[0][1]), places[0]]
    for (x, _), after in itertools.pairwise(places):
        line += [(x, after[1]), after]
    return (*line, (places[-1][0], panel.y.end))


def _span(values: Sequence[float], start: float, end: float) -> Span:
    """Return a span that holds all values and the random agent's 1, with a margin."""
    low, high = min(1.0, *values), max(1.0, *values)
    pad = (high - low) * 0.08 or 0.1
    return Span(low - pad, high + pad, start, end)


def _bar(level: float, change: Estimate) -> tuple[float, float]:
    """Return a level's bar: the interval of its change, laid around it; of no length without an interval."""
    if change.value is None or change.low is None or change.high is None:
        return level, level
    return level + change.low - change.value, level + change.high - change.value


def _ends(level: float, change: Estimate) -> tuple[float, float, float]:
    return (level, *_bar(level, change))


def _about(cell: Cell) -> str:
    return f"{short(cell.name, 60)}, λ {dose(cell.multiplier)}: reward {number(cell.reward)}, harm {number(cell.harm)}"


def _means(randoms: Sequence[Cell]) -> list[list[Cell]]:
    """Return the mean of the random directions of each vector, place and λ."""
    groups: dict[tuple[str, float], list[Cell]] = {}
    for cell in randoms:
        groups.setdefault((cell.name, cell.multiplier), []).append(cell)
    nothing = Estimate(None, why="a mean over directions")
    return [
        [
            dataclasses.replace(
                cells[0],
                name=f"{name}, mean of {len(cells)}",
                reward=math.fsum(cell.reward for cell in cells) / len(cells),
                harm=math.fsum(cell.harm for cell in cells) / len(cells),
                reward_change=nothing,
                harm_change=nothing,
            )
        ]
        for (name, _), cells in sorted(groups.items())
    ]


def _numbers(paths: Iterable[Sequence[Cell]], front: Sequence[Cell]) -> Numbers:
    rows = []
    for cell in itertools.chain(*paths):
        ends = [
            number(value, 4, sign=True)
            for change in (cell.reward_change, cell.harm_change)
            for value in (change.value, change.low, change.high)
        ]
        on = "yes" if cell in front else "null" if cell.kind == "random" else "no"
        reward, harm = number(cell.reward, 4), number(cell.harm, 4)
        rows.append((cell.name, dose(cell.multiplier), reward, *ends[:3], harm, *ends[3:], on))
    change = ("change", "low", "high")
    return Numbers(("curve", "λ", "reward", *change, "harm", *change, "on the front"), tuple(rows))
