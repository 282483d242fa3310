"""Alignment file: how well a model finds the same item in another language, and cosines of vectors; what it says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_steer.errors import InputError
from lm_eval_steer.names import printable

SCHEMA = 1
THRESHOLD = 0.5
"""A model that finds under half of the items at its best layer is said not to know one of the two languages."""

UNKNOWN = "model does not know the language"


@dataclass(frozen=True)
class Alignment:
    """What ``lm-eval-steer align`` found for one model and family.

    Attributes:
        fingerprint: of the model, as the records have it.
        family: without ``xl_``.
        items: how many it looked among; chance is one over that.
        precision: layer → language → other language → share of items found at rank 1.
        cosines: (layer, vector id, vector id) → cosine.
    """

    fingerprint: Mapping[str, Any]
    family: str
    items: int
    precision: Mapping[int, Mapping[str, Mapping[str, float]]]
    cosines: Mapping[tuple[int, str, str], float]

    def between(self, a: str, b: str, layer: int) -> float | None:
        """Return the mean of both directions at a layer; None where the file has not both languages."""
        rows = self.precision.get(layer, {})
        both = [rows.get(a, {}).get(b), rows.get(b, {}).get(a)]
        known = [value for value in both if value is not None]
        return sum(known) / 2 if len(known) == 2 else None

    def best(self, a: str, b: str) -> float | None:
        """Return the same at the layer where it is largest."""
        found = [value for layer in self.precision if (value := self.between(a, b, layer)) is not None]
        return max(found, default=None)

    def of_sources(self, sources: Iterable[str], language: str, layer: object) -> tuple[float | None, float | None]:
        """Return the best and the layer's own alignment of a vector's languages with a task's, the mean over them."""
        others = [source for source in sources if source != language]  # "all" is none, and so nothing is known
        best = [self.best(other, language) for other in others]
        here = [self.between(other, language, layer) if isinstance(layer, int) else None for other in others]
        return _mean(best), _mean(here)


def read_alignments(paths: Sequence[Path | str]) -> list[Alignment]:
    """Return what some alignment files say.

    Raises:
        InputError: one cannot be read, or is none; two are of the same model and family.
    """
    found: dict[tuple[Any, ...], Path] = {}
    alignments = []
    for path in map(Path, paths):
        each = _read(path)
        key = (each.fingerprint.get("config"), each.fingerprint.get("weights"), each.family)
        if key in found:
            raise InputError(
                f"--alignment {printable(str(path))} and {printable(str(found[key]))} are both of the family "
                f"{each.family!r} on one model. Name one; lm-eval-steer align --languages takes all languages at once."
            )
        found[key] = path
        alignments.append(each)
    return alignments


def find(alignments: Iterable[Alignment], model: Mapping[str, Any], family: str) -> Alignment | None:
    """Return the alignment of a model and family; None where nobody measured it."""
    wanted = model.get("fingerprint") or {}
    for each in alignments:
        same = all(each.fingerprint.get(part) == wanted.get(part) for part in ("config", "weights"))
        if same and wanted and each.family == family:
            return each
    return None


def _read(path: Path) -> Alignment:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] > SCHEMA:
            raise ValueError(f"its schema is {data['schema']}, this version reads up to {SCHEMA}")
        precision = {
            int(layer): {a: {b: float(value) for b, value in row.items()} for a, row in rows.items()}
            for layer, rows in data["precision"].items()
        }
        pairs = {(int(c["layer"]), str(c["a"]), str(c["b"])): float(c["cosine"]) for c in data.get("cosines", [])}
        both = pairs | {(layer, b, a): value for (layer, a, b), value in pairs.items()}
        family = str(data["family"]).removeprefix("xl_")
        return Alignment(dict(data["model"]["fingerprint"]), family, int(data["items"]), precision, both)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"--alignment {printable(str(path))} is no file of lm-eval-steer align ({type(error).__name__}: {error}). "
            "Make it with lm-eval-steer align --out FILE."
        ) from error


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
