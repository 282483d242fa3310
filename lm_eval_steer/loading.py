"""A model and its tokenizer for the project's own commands; lm-eval's models load theirs themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_eval_steer.errors import ConfigError, InputError
from lm_eval_steer.suggest import choice_message

EMBEDDED = "embedded"
DTYPES = ("float32", "bfloat16", "float16", "auto")


def load_causal_lm(
    pretrained: str, dtype: str = "float32", device: str | None = None, revision: str | None = None
) -> tuple[Any, Any]:
    """Load a causal language model in evaluation mode, and its tokenizer.

    Args:
        pretrained: a folder, a name on the hub, or ``embedded`` for the model that the package index ships.
        dtype: one of :data:`DTYPES`.
        device: where the model goes, such as ``cpu`` or ``cuda:0``; None takes a GPU where there is one.
        revision: branch, tag or commit on the hub.

    Returns:
        The model and the tokenizer.

    Raises:
        ConfigError: an unknown dtype or device.
        InputError: the folder is missing, is no model, or the hub does not have it.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if dtype not in DTYPES:
        raise ConfigError(choice_message("dtype", str(dtype), DTYPES))
    where = _device(device)
    place = resolve(pretrained)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision or "main")
        kind = "auto" if dtype == "auto" else getattr(torch, dtype)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=kind, revision=revision or "main")
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{pretrained!r} cannot be loaded as a causal language model: {reason} "
            f"Name a folder that from_pretrained reads, a model on the hub, or {EMBEDDED!r}."
        ) from error
    return model.to(where).eval(), tokenizer


def resolve(pretrained: str) -> str:
    """Return what ``from_pretrained`` is given: the folder of ``embedded``, else the words themselves.

    Raises:
        InputError: it is written as a path and there is no such folder, or the folder has no ``config.json``.
    """
    if pretrained == EMBEDDED:
        from lm_eval_steer import embedded

        return str(embedded.ensure())
    path = Path(pretrained).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{pretrained!r} is a folder without config.json, so it is no model.")
        return str(path)
    if path.is_file():
        raise InputError(f"{pretrained!r} is a file; name the model's folder.")
    if not pretrained or path.is_absolute() or pretrained.startswith((".", "~")) or pretrained.count("/") > 1:
        raise InputError(f"no folder {pretrained!r}. Name a model's folder, a model on the hub, or {EMBEDDED!r}.")
    return pretrained


def model_label(pretrained: str) -> str:
    """Return a model's name for records: never the place of a folder on this machine, only the folder's own name."""
    if pretrained == EMBEDDED:
        from lm_eval_steer.embedded_registry import MODELS

        return MODELS["smollm2"].title
    path = Path(pretrained).expanduser()
    return path.resolve().name if path.is_dir() else pretrained


def _device(device: str | None) -> Any:
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r}: {str(error).split(chr(10))[0]}") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: this machine or this build of torch has no CUDA; use cpu.")
    return chosen
