"""Where the files of Contrastive Activation Addition come from: a folder of the user's, or the pinned upstream.

``CAA_DATA_DIR`` names a local folder of upstream's layout. Where it is unset, ``datasets`` downloads a file once from
the commit that ``tasks/caa/upstream.json`` pins. That file also holds the sha256 of every upstream file: a download
with another hash is refused, a local file with another hash is used with a warning, because upstream has changed its
test sets over time and a user may have reasons to hold to an older one.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_steer.errors import DataError
from lm_eval_steer.files import sha256_file
from lm_eval_steer.paths import tasks_dir

FOLDER_VARIABLE = "CAA_DATA_DIR"

#: Path of each split's file below the folder, with a place for the behaviour.
LAYOUT = {"generate": "generate/{}/generate_dataset.json", "test": "test/{}/test_dataset_ab.json"}


@dataclass(frozen=True)
class SourceFile:
    """A file on this machine, the sha256 of its bytes, and whether that is the pinned upstream file's."""

    path: Path
    sha256: str
    known: bool


def find(behaviour: str, split: str, folder: Path | str | None = None) -> SourceFile:
    """Return the file of one behaviour and split, downloaded where no folder is named.

    Args:
        behaviour: upstream's name of the behaviour.
        split: a key of :data:`LAYOUT`.
        folder: a local folder; None takes ``CAA_DATA_DIR``, and where that is unset, the pinned upstream.

    Raises:
        DataError: the file is missing or cannot be downloaded, or a download has another hash than the pinned one.
    """
    name = LAYOUT[split].format(behaviour)
    expected = str(_upstream()["files"][name])
    chosen = folder if folder is not None else os.environ.get(FOLDER_VARIABLE)
    path = _local(Path(chosen).expanduser(), name) if chosen else _download(name)
    sha256 = sha256_file(path)
    if sha256 != expected and not chosen:
        raise DataError(
            f"{_url(name)} has sha256 {sha256}, not {expected}: it has changed or did not arrive whole; the copy is "
            f"{path}. {advice()}"
        )
    if sha256 != expected:
        warnings.warn(
            f"{path} has sha256 {sha256}, not {expected} as the pinned upstream file. It is used as it is; every "
            "document carries its hash.",
            stacklevel=2,
        )
    return SourceFile(path, sha256, sha256 == expected)


def advice() -> str:
    """Return the sentence that tells a user which folder to name and what must be in it."""
    layout = " and ".join(name.format("<behaviour>") for name in LAYOUT.values())
    return (
        f"Set {FOLDER_VARIABLE} to a folder that holds {layout}, such as `datasets` in a clone of "
        f"{_upstream()['repository']}."
    )


def _local(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise DataError(f"no file {path}. {advice()}")
    return path


def _download(name: str) -> Path:
    from aiohttp import ClientError
    from datasets import DownloadConfig, DownloadManager

    # The commit is part of the address, so a copy in the cache never needs to be asked about again.
    manager = DownloadManager(download_config=DownloadConfig(use_etag=False))
    try:
        return Path(manager.download(_url(name)))
    except (OSError, ClientError) as error:
        raise DataError(f"cannot download {_url(name)}: {error}. {advice()}") from error


def _url(name: str) -> str:
    upstream = _upstream()
    return str(upstream["url"]).format(commit=upstream["commit"], file=name)


def _upstream() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tasks_dir() / "caa" / "upstream.json").read_text(encoding="utf-8"))
    return content
