"""File: translations that were made elsewhere, found by id and segment or by their source text."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from lm_eval_steer.crosslingual.items import language_of, read_rows
from lm_eval_steer.crosslingual.segments import SCHEMAS, row_id
from lm_eval_steer.errors import ConfigError, DataError, InputError
from lm_eval_steer.files import content_id, sha256_bytes

_SHAPES = (
    "Rows are whole translated items, or have id, segment and translation, or source and translation; a column lang "
    "where there are several languages"
)


class FileBackend:
    """Looks translations up.

    Args:
        path: a ``.jsonl``, ``.json`` or ``.csv`` file; ``{lang}`` in it stands for the language.

    Attributes:
        identity: ``file:``, the file's name and a hash of its bytes (of every language's file with ``{lang}``).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: dict[str, _Found] = {}
        self.identity = f"file:{path.name}@{content_id([sha256_bytes(_bytes(each)) for each in _places(path)], 8)}"

    def translate(self, texts: list[str], src: str, tgt: str) -> list[str]:
        """Return the translations of source texts.

        Raises:
            DataError: the file has none for one of them.
        """
        known = self._of(tgt).by_text
        for text in texts:
            if text not in known:
                raise DataError(f"{self._place(tgt)} has no {tgt} translation of {text[:80]!r}. {_SHAPES}.")
        return [known[text] for text in texts]

    def given(self, row: str, segment: str, tgt: str) -> str | None:
        """Return the translation of a segment by the row's id, where the file has it."""
        return self._of(tgt).by_segment.get((row, segment))

    def made_from(self, row: str, tgt: str) -> str | None:
        """Return the ``source_hash`` of a whole row, where the file's row carries one."""
        return self._of(tgt).hashes.get(row)

    def _place(self, tgt: str) -> Path:
        return Path(str(self._path).replace("{lang}", tgt)).expanduser()

    def _of(self, tgt: str) -> _Found:
        if tgt not in self._read:
            self._read[tgt] = _found(self._place(tgt), tgt)
        return self._read[tgt]


class _Found:
    """The translations of one language."""

    def __init__(self) -> None:
        self.by_segment: dict[tuple[str, str], str] = {}
        self.by_text: dict[str, str] = {}
        self.hashes: dict[str, str] = {}


def _found(path: Path, tgt: str) -> _Found:
    if path.suffix == ".csv":
        rows: list[Mapping[str, object]] = list(
            csv.DictReader(io.StringIO(_bytes(path).decode("utf-8-sig"), newline=""))
        )
    else:
        rows = list(read_rows(path)[1])
    found = _Found()
    for index, row in enumerate(rows):
        where = f"{path}, row {index + 1}"
        if row.get("lang") not in (None, "", tgt):
            continue
        schema = next((each for each in SCHEMAS if each.fits(row)), None)
        if schema is not None:
            _check_language(path, row, tgt)
            name = str(row.get("src_doc_id") or row_id(row, index))
            found.by_segment |= {(name, each.name): each.text for each in schema.segments(row, where)}
            if row.get("source_hash"):
                found.hashes[name] = str(row["source_hash"])
        elif row.get("id") is not None and row.get("segment"):
            found.by_segment[str(row["id"]), str(row["segment"])] = _translation(row, where)
        elif row.get("source"):
            found.by_text[str(row["source"])] = _translation(row, where)
        else:
            raise DataError(f"{where}: {_SHAPES}; found {', '.join(row)}.")
    return found


def _check_language(path: Path, row: Mapping[str, object], tgt: str) -> None:
    """Refuse whole rows whose file says that they are in another language."""
    if row.get("lang") is None and language_of(path, []) != tgt:
        raise ConfigError(f"{path} holds rows without lang and is not named after {tgt}; call it {tgt}.jsonl.")


def _translation(row: Mapping[str, object], where: str) -> str:
    value = row.get("translation")
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: translation is {value!r}; it must be a text.")
    return value


def _places(path: Path) -> list[Path]:
    """Return the file, or with ``{lang}`` the files of all languages."""
    full = path.expanduser()
    if "{lang}" not in str(full):
        return [full]
    return sorted(Path(full.anchor).glob(str(full.relative_to(full.anchor)).replace("{lang}", "*")))


def _bytes(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from None
