"""Spec files: a plan as YAML or JSON, read strictly (no tags, no repeated keys, no octal numbers)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from lm_eval_steer.errors import ConfigError

_DECIMAL = re.compile(r"[+-]?(0|[1-9]\d*)?(\.\d*)?([eE][+-]?\d+)?")


class _StrictLoader(yaml.SafeLoader):
    """YAML without tags, with an error for a key given twice and for a number such as 012."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"line {key_node.start_mark.line + 1}: a key must be a plain word.")
        key = loader.construct_object(key_node)
        if key in seen:
            raise ConfigError(f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice.")
        seen.add(key)
    return dict(loader.construct_mapping(node, deep=True))


def _integer(loader: _StrictLoader, node: yaml.ScalarNode) -> int:
    digits = node.value.lstrip("+-")
    if not digits.isdigit() or (len(digits) > 1 and digits[0] == "0"):
        raise ConfigError(f"line {node.start_mark.line + 1}: write {node.value!r} as a plain decimal number.")
    return int(node.value)


def _float(loader: _StrictLoader, node: yaml.ScalarNode) -> float:
    if not _DECIMAL.fullmatch(node.value):
        raise ConfigError(f"line {node.start_mark.line + 1}: write {node.value!r} as a plain decimal number.")
    return float(node.value)


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _float)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _integer)


def read_spec(path: Path | str) -> dict[str, Any]:
    """Return the object that a ``.yaml``, ``.yml`` or ``.json`` file holds.

    Raises:
        ConfigError: missing, unreadable, tagged, with a repeated key, or no object.
    """
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"spec {file}: cannot be read: {error}.") from None
    try:
        data = json.loads(text, object_pairs_hook=_pairs) if file.suffix == ".json" else yaml.load(text, _StrictLoader)
    except ConfigError as error:
        raise ConfigError(f"spec {file}: {error}") from None
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"spec {file}: {' '.join(str(error).split())}.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"spec {file}: expected an object with 'placements', found {type(data).__name__}.")
    return data


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"the key {key!r} is given twice.")
    return dict(pairs)
