"""Panel: one pair of axes in a scene; data to pixels, ticks, the zero lines; and legends below panels."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lm_eval_steer.report.labels import number
from lm_eval_steer.report.scene import Area, Line, Mark, Position, Text, text_width

WIDTH = 960.0  # pixels, a page's column
SMALL = 10.5


@dataclass(frozen=True)
class Span:
    """An interval of data on an interval of pixels.

    Attributes:
        low: smallest value.
        high: largest value.
        start: pixel of ``low``.
        end: pixel of ``high``.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Return at most ``most`` round values in the interval, 0 among them where it is inside."""
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 2.5, 5, 10, 20) if _count(self.low, self.high, s * power) <= most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def span(values: Iterable[float], start: float, end: float, margin: float = 0.06) -> Span:
    """Return a span that holds all values and 0, with a margin; of no width it becomes one of 1."""
    found = [0.0, *values]
    low, high = min(found), max(found)
    pad = (high - low) * margin or 0.5
    return Span(low - pad, high + pad, start, end)


@dataclass(frozen=True)
class Panel:
    """Axes in a scene.

    Attributes:
        x: data to pixels, to the right.
        y: data to pixels, upwards: its start is the lower edge.
    """

    x: Span
    y: Span

    def at(self, x: float, y: float) -> Position:
        """Return the place of a point."""
        return self.x(x), self.y(y)

    def line(self, xs: Sequence[float], ys: Sequence[float]) -> tuple[Position, ...]:
        """Return the places of points."""
        return tuple(self.at(x, y) for x, y in zip(xs, ys, strict=True))

    def band(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float]) -> tuple[Position, ...]:
        """Return the outline of the area between two lines."""
        return (*self.line(xs, low), *reversed(self.line(xs, high)))

    def zeros(self) -> list[Mark]:
        """Return the lines through 0."""
        return [
            Line(((self.x.start, self.y(0)), (self.x.end, self.y(0))), "rule"),
            Line(((self.x(0), self.y.start), (self.x(0), self.y.end)), "rule"),
        ]

    def x_axis(self, title: str, most: int = 6) -> list[Mark]:
        """Return the lower axis: ticks, numbers and what it is."""
        bottom = self.y.start
        marks: list[Mark] = [Line(((self.x.start, bottom), (self.x.end, bottom)), "muted")]
        ticks = self.x.ticks(most)
        for tick in ticks:
            marks.append(Line(((self.x(tick), bottom), (self.x(tick), bottom + 4)), "muted"))
            marks.append(Text(self.x(tick), bottom + 16, _tick(tick, ticks), SMALL, "muted", "middle"))
        marks.append(Text((self.x.start + self.x.end) / 2, bottom + 32, title, SMALL, "ink", "middle"))
        return marks

    def y_axis(self, title: str, most: int = 5) -> list[Mark]:
        """Return the left axis: ticks, numbers and what it is."""
        left = self.x.start
        marks: list[Mark] = []
        ticks = self.y.ticks(most)
        for tick in ticks:
            marks.append(Line(((left - 4, self.y(tick)), (left, self.y(tick))), "muted"))
            marks.append(Text(left - 7, self.y(tick) + 3.5, _tick(tick, ticks), SMALL, "muted", "end"))
        middle = (self.y.start + self.y.end) / 2
        widest = max((text_width(_tick(tick, ticks), SMALL) for tick in ticks), default=0.0)
        marks.append(Text(left - 14 - widest, middle, title, SMALL, "ink", "middle", upright=True))
        return marks


def legend(entries: Sequence[tuple[Sequence[Mark], str]], x: float, y: float, width: float) -> tuple[list[Mark], float]:
    """Return a legend's marks and its height; entries flow into lines.

    Args:
        entries: marks drawn around (0, 0), 12 pixels to both sides; and what they mean.
        x: left edge.
        y: upper edge.
        width: of a line.
    """
    marks: list[Mark] = []
    left, line = x, y + 8
    for sample, text in entries:
        room = 34 + text_width(text) + 18
        if left > x and left + room > x + width:
            left, line = x, line + 20
        marks += [shifted(mark, left + 14, line) for mark in sample]
        marks.append(Text(left + 34, line + 4, text))
        left += room
    return marks, line + 14 - y


def shifted(mark: Mark, x: float, y: float) -> Mark:
    """Return a mark moved."""
    if isinstance(mark, Line | Area):
        return dataclasses.replace(mark, points=tuple((a + x, b + y) for a, b in mark.points))
    return dataclasses.replace(mark, x=mark.x + x, y=mark.y + y)


def _count(low: float, high: float, step: float) -> int:
    return math.floor(high / step + 1e-9) - math.ceil(low / step - 1e-9) + 1


def _tick(value: float, ticks: Sequence[float]) -> str:
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=1.0)
    digits = max(0, min(6, -math.floor(math.log10(step) + 1e-9)))
    if round(step * 10**digits, 6) % 1:
        digits += 1
    return number(value, digits) if value else "0"
