"""The grammar of model arguments and of spec files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lm_eval_steer.errors import ConfigError, InputError, LayerError
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.model_args import OWN_ARGUMENTS, check_unknown, parse_arguments
from lm_eval_steer.plan import SteeringPlan
from tests.conftest import random_vector


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    many = random_vector(8, 6, name="many")
    paths = {"many": many, "one": many.select([3]), "other": random_vector(8, 6, seed=1, name="other")}
    for name, vector in paths.items():
        save_vector(vector, tmp_path / f"{name}.safetensors")
    return {name: str(tmp_path / f"{name}.safetensors") for name in paths}


def plan(n_layers: int = 6, **arguments: object) -> SteeringPlan:
    return parse_arguments(arguments).resolve(n_layers)


def targets(result: SteeringPlan) -> list[str]:
    return [str(placement.target) for placement in result.placements]


def test_nothing_given_is_the_empty_plan() -> None:
    assert plan().id == "unsteered"


def test_defaults(files: dict[str, str]) -> None:
    (placement,) = plan(vector=files["one"]).placements
    assert str(placement.target) == "block_out.3"
    assert (placement.operation, placement.multiplier, str(placement.scope)) == ("add", 1.0, "after_prompt")
    assert not placement.skip_first


def test_several_layers_must_be_named(files: dict[str, str]) -> None:
    with pytest.raises(LayerError, match="say which: layer=N"):
        plan(vector=files["many"])


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (2, [2]),
        ("2", [2]),
        ("1-3", [1, 2, 3]),
        ("1;3", [1, 3]),
        ([1, 3], [1, 3]),
        ("all", list(range(6))),
        (-1, [5]),
        (-1.0, [5]),
    ],
)
def test_layer_grammar(files: dict[str, str], layer: object, expected: list[int]) -> None:
    assert targets(plan(vector=files["many"], layer=layer)) == [f"block_out.{i}" for i in expected]


@pytest.mark.parametrize("layer", ["012", "1.0", 1.0, "1-", "3-1", "x", True, "", "1;;2", [], "1,2", "²"])
def test_layers_without_one_meaning_are_refused(files: dict[str, str], layer: object) -> None:
    with pytest.raises(ConfigError):
        plan(vector=files["many"], layer=layer)


def test_layer_out_of_range_names_the_range(files: dict[str, str]) -> None:
    with pytest.raises(LayerError, match="out of range; this model has layers 0 to 5"):
        plan(vector=files["many"], layer=6)


def test_a_layer_given_twice_is_an_error(files: dict[str, str]) -> None:
    with pytest.raises(LayerError, match="given twice"):
        plan(vector=files["many"], layer="2;2")


def test_lists_zip_and_single_items_repeat(files: dict[str, str]) -> None:
    result = plan(vector=f"{files['many']};{files['other']}", layer="1;2", multiplier="0.5;-2", scope="all")
    assert [(p.vector.name, str(p.target), p.multiplier, str(p.scope)) for p in result.placements] == [
        ("many", "block_out.1", 0.5, "all"),
        ("other", "block_out.2", -2.0, "all"),
    ]


def test_lists_of_different_length_are_refused(files: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"3 items where another list has|2 items where another list has 3"):
        plan(vector=files["many"], layer="1;2", multiplier="1;2;3")


def test_vector_layer_applies_another_layers_vector(files: dict[str, str]) -> None:
    (placement,) = plan(vector=files["many"], layer=4, vector_layer=2).placements
    assert (str(placement.source), str(placement.target)) == ("block_out.2", "block_out.4")


def test_site_moves_the_target_only(files: dict[str, str]) -> None:
    (placement,) = plan(vector=files["many"], layer=2, site="mlp_out").placements
    assert placement.source == Hookpoint(Site.BLOCK_OUT, 2)
    assert placement.target == Hookpoint(Site.MLP_OUT, 2)


def test_ablate_edits_every_write_unless_a_site_is_given(files: dict[str, str]) -> None:
    assert len(plan(vector=files["many"], layer=2, operation="ablate", scope="all").placements) == 3 * 6
    assert targets(plan(vector=files["many"], layer=2, operation="ablate", site="block_out")) == ["block_out.2"]


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "012", "1_0", "0x10", "", "--1", "e5", ".", True, "½"])
def test_multipliers_without_one_meaning_are_refused(files: dict[str, str], value: object) -> None:
    with pytest.raises(ConfigError):
        plan(vector=files["one"], multiplier=value)


@pytest.mark.parametrize(("value", "expected"), [("1.5", 1.5), (2, 2.0), ("-1e-2", -0.01), (".5", 0.5), ("-0", 0.0)])
def test_multipliers(files: dict[str, str], value: object, expected: float) -> None:
    assert plan(vector=files["one"], multiplier=value).placements[0].multiplier == expected


def test_minus_zero_and_zero_are_one_plan(files: dict[str, str]) -> None:
    assert plan(vector=files["one"], multiplier=-0.0).id == plan(vector=files["one"], multiplier=0).id


@pytest.mark.parametrize(
    "name", ["multipler", "layers", "vectors", "scop", "skipfirst", "alpha", "coefficient", "normalise"]
)
def test_a_near_miss_is_an_error_with_a_suggestion(name: str) -> None:
    with pytest.raises(ConfigError, match="Did you mean"):
        check_unknown([name])


@pytest.mark.parametrize("name", ["attn_implementation", "device_map", "quantization_config", "torch_dtype"])
def test_arguments_of_from_pretrained_pass(name: str) -> None:
    check_unknown([name])


def test_arguments_without_a_vector_are_refused() -> None:
    with pytest.raises(ConfigError, match="without vector"):
        plan(layer=3)


def test_normalize_unit_and_set(files: dict[str, str]) -> None:
    (unit,) = plan(vector=files["one"], normalize="unit").placements
    assert float(unit.direction().norm()) == pytest.approx(1.0, abs=1e-6)
    pair = plan(vector=f"{files['many']};{files['other']}", layer=3, normalize="set").placements
    norms = [float(p.direction().norm()) for p in pair]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    with pytest.raises(ConfigError, match="two or more"):
        plan(vector=files["one"], normalize="set")


def test_one_vector_given_twice_is_no_set(files: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="two or more"):
        plan(vector=files["many"], layer="1;2", normalize="set")


def test_a_whole_number_beyond_floats_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="not finite"):
        plan(vector=files["one"], multiplier=10**400)


def test_normalize_dose_needs_recorded_norms(files: dict[str, str]) -> None:
    with pytest.raises(InputError, match="does not record the residual norm"):
        plan(vector=files["one"], normalize="dose")


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_yaml_and_json_specs_are_the_flat_plan(files: dict[str, str], tmp_path: Path) -> None:
    flat = plan(vector=files["many"], layer="1-2", multiplier=2, scope="front:1")
    item = {"vector": "many.safetensors", "layer": "1-2", "multiplier": 2, "scope": "front:1"}
    as_json = write(tmp_path, "plan.json", json.dumps({"placements": [item]}))
    as_yaml = write(
        tmp_path,
        "plan.yaml",
        "placements:\n- {vector: many.safetensors, layer: 1-2, multiplier: 2, scope: 'front:1'}\n",
    )
    assert plan(spec=as_json).id == plan(spec=as_yaml).id == flat.id
    assert plan(spec={"placements": [{**item, "vector": files["many"]}]}).id == flat.id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("placements: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("placements: []\nplacements: []", "given twice"),
        ("placements:\n- {vector: v, layer: 012}", "plain decimal"),
        ("- a", "expected an object"),
        ("placements: {}", "a list 'placements'"),
        ("placements: [3]", "is no object"),
        ("placements: []\nlayer: 3", "unknown spec key"),
        ("placements:\n- {vector: v, multipler: 3}", "Did you mean 'multiplier'"),
        ("{", "while parsing"),
        ("? [a]\n: 1", "a key must be a plain word"),
        ("placements:\n- {vector: [[a]], layer: 1}", "is no text"),
        ("placements:\n- {vector: v, multiplier: 1:30.5}", "plain decimal"),
        ("placements:\n- {vector: v, multiplier: 012.5}", "plain decimal"),
    ],
)
def test_bad_specs(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(spec=write(tmp_path, "plan.yaml", text))


def test_a_spec_and_flat_arguments_exclude_each_other(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both given"):
        plan(spec=write(tmp_path, "p.yaml", "placements: []"), layer=3)


@pytest.mark.parametrize("path", ["../many.safetensors", "sub/../../many.safetensors"])
def test_a_relative_path_may_not_leave_the_specs_folder(files: dict[str, str], tmp_path: Path, path: str) -> None:
    (tmp_path / "inner").mkdir()
    spec = write(tmp_path / "inner", "plan.yaml", f"placements:\n- {{vector: {path}, layer: 1}}")
    with pytest.raises(InputError, match="leaves the folder"):
        plan(spec=spec)


def test_a_symlink_out_of_the_specs_folder_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "v.safetensors").symlink_to(files["many"])
    with pytest.raises(InputError, match="leaves the folder"):
        plan(spec=write(tmp_path / "inner", "plan.yaml", "placements:\n- {vector: v.safetensors, layer: 1}"))


def test_every_argument_is_one_the_model_takes() -> None:
    import inspect

    from lm_eval_steer.model import SteeredHF

    assert set(OWN_ARGUMENTS) <= set(inspect.signature(SteeredHF.__init__).parameters)
