"""lm-eval's ``--model steered`` CSV: features of sparse autoencoders by row, here from local folders."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import ClassVar

from lm_eval_steer.errors import InputError, VectorFileError
from lm_eval_steer.files import contained
from lm_eval_steer.formats.base import Converted, Format, Origin, Told, Use, as_direction, finite_number
from lm_eval_steer.formats.hook_names import LAYER_BASE, parse_hook_name
from lm_eval_steer.formats.sae import WEIGHTS, Loader, SaeRow, decoder_row
from lm_eval_steer.formats.steered_pt import parse_action
from lm_eval_steer.suggest import choice_message
from lm_eval_steer.vector import SteeringVector

_WANTED = ("loader", "sparse_model", "feature_index", "steering_coefficient")
_COLUMNS = (*_WANTED, "action", "hookpoint", "head_index", "sae_id", "description")
Row = dict[str, str]


class SteeredCsv(Format):
    """The ``.csv`` of lm-eval's ``--model steered``; one vector a row, placements in a plan with scope ``all``.

    ``sparse_model`` is a local folder, relative to the CSV's own folder; nothing is downloaded. Rows at one hookpoint
    add up, where upstream keeps the last. ``b_dec`` is the origin of ``clamp`` and is left out of ``add``.

    Source: lm_eval/models/hf_steered.py (``derive_steer_config``), lm-eval 0.4.13.
    """

    name: ClassVar[str] = "steered_csv"
    title: ClassVar[str] = "lm-eval's --model steered .csv"

    def recognises(self, path: Path) -> bool:
        """Say whether the file is called ``.csv``."""
        return path.suffix.lower() == ".csv" and path.is_file()

    def read(self, path: Path, told: Told) -> Converted:
        """Return a vector a row and how each is applied (see :meth:`Format.read`)."""
        rows = _read_rows(path)
        vectors: list[SteeringVector] = []
        uses: list[Use] = []
        seen: dict[tuple[object, ...], int] = {}
        for line, row in rows:
            where = f"{path}, line {line}"
            name = told.name if len(rows) == 1 else f"{told.name}-{len(vectors) + 1}"
            vector, use = _convert(path, row, where, told, name, len(vectors))
            key = (use.point, use.operation, vector.id)
            if key in seen:
                raise VectorFileError(
                    f"{where}: the feature of line {seen[key]} again, at the same hookpoint; give it once, with the "
                    "coefficient you mean."
                )
            seen[key] = line
            vectors.append(vector)
            uses.append(use)
        return Converted(tuple(vectors), tuple(uses))


def _read_rows(path: Path) -> list[tuple[int, Row]]:
    """Return (line number, row) with stripped cells; every known column is there."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            _check_header(path, header)
            rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise VectorFileError(f"{path}: not a CSV file: {error}.") from None
    if not rows:
        raise VectorFileError(f"{path}: it has a header and no rows.")
    result = []
    for line, cells in rows:
        if any(cell.strip() for cell in cells[len(header) :]):
            raise VectorFileError(f"{path}, line {line}: {len(cells)} cells under {len(header)} columns.")
        padded = cells + [""] * (len(header) - len(cells))
        row = dict.fromkeys(_COLUMNS, "") | dict(zip(header, (c.strip() for c in padded), strict=False))
        result.append((line, row))
    return result


def _check_header(path: Path, header: list[str]) -> None:
    named = [column for column in header if column]
    for column in named:
        if column not in _COLUMNS:
            raise VectorFileError(f"{path}: {choice_message('column', column[:60], _COLUMNS)}")
        if named.count(column) > 1:
            raise VectorFileError(f"{path}: the column {column!r} is there twice.")
    missing = [column for column in _WANTED if column not in named]
    if missing:
        raise VectorFileError(f"{path}: it lacks the column {missing[0]!r}; wanted: {', '.join(_WANTED)}.")


def _convert(path: Path, row: Row, where: str, told: Told, name: str, number: int) -> tuple[SteeringVector, Use]:
    loader = _loader(row["loader"], where)
    if row["head_index"]:
        raise VectorFileError(f"{where}: head_index {row['head_index']!r}: there is no site for single heads yet.")
    action = parse_action(row["action"] or "add", where)
    feature = _whole(row["feature_index"], where)
    try:
        sae = decoder_row(_folder(path, row, loader, where), loader, feature)
    except InputError as error:
        raise type(error)(f"{where}: {error}") from None
    point = parse_hook_name(row["hookpoint"] or _hook_name(sae, where), where)
    origins = {}
    if action == "clamp":
        if sae.bias is None or sae.normalize_activations != "none":
            raise VectorFileError(
                f"{where}: clamp reads the activation the SAE was trained on, and this SAE has "
                + ("no b_dec." if sae.bias is None else f"normalize_activations {sae.normalize_activations!r}.")
            )
        origins = {point: as_direction(sae.bias, where)}
    notes = {key: value for key, value in row.items() if key in _COLUMNS and value} | {
        "sae_hook_name": sae.hook_name,
        "normalize_activations": sae.normalize_activations,
    }
    origin = Origin(SteeredCsv.name, path, LAYER_BASE, (path, sae.weights), notes, sae.model_id)
    vector = origin.vector(told, {point: as_direction(sae.direction, where)}, origins, name)
    return vector, Use(number, point, finite_number(row["steering_coefficient"], where), action)


def _loader(text: str, where: str) -> Loader:
    if text == "sparsify":
        return "sparsify"
    if text == "sae_lens":
        return "sae_lens"
    raise VectorFileError(f"{where}: {choice_message('loader', text[:60], WEIGHTS)}")


def _folder(path: Path, row: Row, loader: Loader, where: str) -> Path:
    folder = path.parent / row["sparse_model"]
    if not row["sparse_model"] or not folder.is_dir():
        raise VectorFileError(
            f"{where}: sparse_model {row['sparse_model']!r} is no folder in {path.parent.resolve()}. Nothing is "
            "downloaded here: fetch the SAE yourself (for example: hf download NAME --local-dir DIR) and write DIR."
        )
    inner = row["sae_id"] if loader == "sae_lens" else row["hookpoint"]
    if loader == "sparsify" and not inner:
        raise VectorFileError(
            f"{where}: sparsify wants a hookpoint, which is also the folder's name inside sparse_model."
        )
    return contained(inner, folder) if inner else folder


def _hook_name(sae: SaeRow, where: str) -> str:
    if sae.hook_name is None:
        raise VectorFileError(f"{where}: no hookpoint, and the SAE's cfg.json names none; fill the column in.")
    return sae.hook_name


def _whole(text: str, where: str) -> int:
    number = finite_number(text, f"{where}, feature_index")
    if number != math.floor(number) or number < 0:
        raise VectorFileError(f"{where}: feature_index {text!r} is no whole number from 0 on.")
    return int(number)
