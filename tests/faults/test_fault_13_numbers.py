"""Row 13: odd numbers, repeated keys and lists have one meaning by CLI and by Python, or are an error (2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lm_eval._cli.utils import key_val_to_dict
from lm_eval.utils import simple_parse_args_string

from lm_eval_steer.cli.run import check_repeated_keys
from lm_eval_steer.errors import EXIT_USAGE, ConfigError
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.model_args import check_unknown, parse_arguments
from tests.conftest import random_vector


@pytest.fixture
def vector(tmp_path: Path) -> str:
    save_vector(random_vector(8, 20), tmp_path / "v.safetensors")
    return str(tmp_path / "v.safetensors")


def by_cli(text: str) -> dict[str, Any]:
    return key_val_to_dict(text)


def by_python(text: str) -> dict[str, Any]:
    return simple_parse_args_string(text)


@pytest.mark.parametrize("parse", [by_cli, by_python])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
def test_numbers_that_are_none(vector: str, parse: Any, value: str) -> None:
    with pytest.raises(ConfigError, match=r"is not finite|is no number") as caught:
        parse_arguments(parse(f"vector={vector},layer=3,multiplier={value}"))
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("parse", [by_cli, by_python])
@pytest.mark.parametrize(
    ("text", "layers"), [("layer=10;11", [10, 11]), ("layer=10-12", [10, 11, 12]), ("layer=012", [12])]
)
def test_layers_mean_the_same_both_ways(vector: str, parse: Any, text: str, layers: list[int]) -> None:
    plan = parse_arguments(parse(f"vector={vector},{text}")).resolve(20)
    assert [placement.target.layer for placement in plan.placements] == layers


def test_a_list_by_cli_is_the_list_and_by_string_an_error(vector: str) -> None:
    plan = parse_arguments(by_cli(f"vector={vector},layer=[1,2]")).resolve(20)
    assert [placement.target.layer for placement in plan.placements] == [1, 2]
    with pytest.raises(ConfigError, match="'\\[1' is no whole number"):
        parse_arguments({k: v for k, v in by_python(f"vector={vector},layer=[1,2]").items() if k != "2]"})


@pytest.mark.parametrize("parse", [by_cli, by_python])
def test_layers_is_a_near_miss(parse: Any) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'layer'"):
        check_unknown(list(parse("layers=3")))


def test_a_repeated_key_is_an_error_of_our_own_command() -> None:
    with pytest.raises(ConfigError, match="multiplier"):
        check_repeated_keys(["--model_args", "vector=v,multiplier=1,multiplier=2", "--tasks", "t"])
