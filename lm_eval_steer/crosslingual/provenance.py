"""Provenance: where the text of a translated row comes from, and whether its source is still the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lm_eval_steer.files import canonical_json, sha256_bytes

if TYPE_CHECKING:
    from lm_eval_steer.crosslingual.segments import Segment

#: What a row has beside its source row.
PROVENANCE = ("lang", "src_doc_id", "translator", "bt_text", "qc", "qc_status", "source_hash")

#: The translator of a row that a person wrote in its language.
AUTHORED = "authored"


def source_hash(segments: Iterable[Segment]) -> str:
    """Return the sha256 of a source row's segments, names and texts, in order.

    A change of a label or a split leaves it; a change of a letter in a text does not.
    """
    return sha256_bytes(canonical_json([[each.name, each.text] for each in segments]).encode("ascii"))


def without_provenance(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as its author wrote it."""
    return {key: value for key, value in row.items() if key not in PROVENANCE}


def back_texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row's back-translation, a text for each segment or one for all; none is an empty tuple."""
    found = row.get("bt_text")
    if isinstance(found, str):
        return (found,) if found.strip() else ()
    return tuple(str(text) for text in found or ())
