"""Dose and response: per-item scores of one vector and layer over multipliers, and their table."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lm_eval_steer.names import csv_cell, markdown_cell


@dataclass(frozen=True)
class DoseCurve:
    """Scores of the same items at several multipliers.

    Attributes:
        vector: name of the vector.
        control: what null direction it is (``random``), or None for the vector itself.
        layer: canonical layer it was added at.
        relative_dose: ‖v‖ over the mean residual norm there, or None where it is not known.
        scores: multiplier → one score an item (nats per token), the items in one order.
    """

    vector: str
    control: str | None
    layer: int
    relative_dose: float | None
    scores: Mapping[float, Sequence[float]] = field(default_factory=dict)

    @property
    def multipliers(self) -> list[float]:
        """The multipliers, ascending."""
        return sorted(self.scores)

    def mean(self, multiplier: float) -> float:
        """Return the mean score at a multiplier."""
        return math.fsum(self.scores[multiplier]) / len(self.scores[multiplier])

    def effect(self) -> tuple[float, float]:
        """Return the mean of ``score(λ_max) − score(λ_min)`` over items, and its standard error (paired)."""
        low, high = self.multipliers[0], self.multipliers[-1]
        gaps = [b - a for a, b in zip(self.scores[low], self.scores[high], strict=True)]
        mean = math.fsum(gaps) / len(gaps)
        if len(gaps) < 2:
            return mean, math.nan
        variance = math.fsum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
        return mean, math.sqrt(variance / len(gaps))

    def monotone(self) -> bool:
        """Say whether the mean score never falls as λ rises."""
        means = [self.mean(multiplier) for multiplier in self.multipliers]
        return all(a <= b for a, b in itertools.pairwise(means))


def columns(curves: Sequence[DoseCurve]) -> list[float]:
    """Return every multiplier that occurs, ascending."""
    return sorted({multiplier for curve in curves for multiplier in curve.scores})


def rows(curves: Sequence[DoseCurve]) -> list[dict[str, Any]]:
    """Return one row of numbers a curve, as JSON values, in the order given."""
    result = []
    for curve in curves:
        effect, error = curve.effect()
        result.append(
            {
                "vector": curve.vector,
                "control": curve.control,
                "layer": curve.layer,
                "relative_dose": curve.relative_dose,
                "n_items": len(curve.scores[curve.multipliers[0]]),
                "means": {repr(multiplier): curve.mean(multiplier) for multiplier in curve.multipliers},
                "effect": effect,
                "effect_standard_error": None if math.isnan(error) else error,
                "monotone": curve.monotone(),
            }
        )
    return result


def cells(curves: Sequence[DoseCurve]) -> tuple[list[str], list[list[str]]]:
    """Return the table's header and its cells as text: one row a curve; ``dose`` is the relative dose at λ = 1."""
    doses = columns(curves)
    header = [
        "vector",
        "layer",
        "dose",
        *(f"λ {dose:+g}" if dose else "λ 0" for dose in doses),
        "effect ± s.e.",
        "monotone",
    ]
    body = []
    for curve in curves:
        effect, error = curve.effect()
        dose = "" if curve.relative_dose is None else f"{curve.relative_dose:.2f}"
        means = [f"{curve.mean(d):.3f}" if d in curve.scores else "" for d in doses]
        body.append(
            [
                curve.vector,
                str(curve.layer),
                dose,
                *means,
                f"{effect:.3f} ± {error:.3f}",
                "yes" if curve.monotone() else "no",
            ]
        )
    return header, body


def to_markdown(curves: Sequence[DoseCurve]) -> str:
    """Return the table as markdown; nothing in a name is markup."""
    header, body = cells(curves)
    lines = ["| " + " | ".join(map(markdown_cell, row)) + " |" for row in (header, *body)]
    lines.insert(1, "|" + "---|" * len(header))
    return "\n".join(lines) + "\n"


def to_csv(curves: Sequence[DoseCurve]) -> str:
    """Return one line a (curve, multiplier), full precision; no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["vector", "control", "layer", "multiplier", "n_items", "mean", "relative_dose"])
    for curve in curves:
        for multiplier in curve.multipliers:
            scores = curve.scores[multiplier]
            row = [curve.vector, curve.control or "", curve.layer, multiplier, len(scores), curve.mean(multiplier)]
            writer.writerow([csv_cell(value) for value in (*row, curve.relative_dose or "")])
    return out.getvalue()
