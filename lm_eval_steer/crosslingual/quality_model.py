"""Quality model: a local regression model that scores a source text and its translation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_eval_steer.errors import ConfigError


def load_quality(path: Path) -> Callable[[str, str], float]:
    """Return a score of a source text and its translation, by a sequence-pair regression model of transformers.

    Args:
        path: a folder with one output and a tokenizer, such as a download of MonoTransQuest.

    Raises:
        ConfigError: there is no such folder, it cannot be loaded, or the model has more than one output.
    """
    import torch
    import transformers

    folder = path.expanduser()
    if not folder.is_dir():
        raise ConfigError(f"--quality {path}: no such folder. Name one that holds a quality estimation model.")
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        kind: Any = transformers.AutoModelForSequenceClassification
        model: Any = kind.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--quality {path} cannot be loaded: {error}") from error
    if model.config.num_labels != 1:
        raise ConfigError(f"--quality {path} has {model.config.num_labels} outputs; a regression model has one.")

    def score(source: str, target: str) -> float:
        with torch.inference_mode():
            batch = tokenizer(source, target, return_tensors="pt", truncation=True)
            return float(model(**batch).logits[0, 0])

    return score
