"""``lm-eval-steer verify`` finds nothing wrong with a right edit, and names every error that is planted here."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lm_eval_steer import handle as handle_module
from lm_eval_steer.cli import verify as command
from lm_eval_steer.edit import Edit
from lm_eval_steer.errors import EXIT_INPUT, EXIT_OK, ConfigError
from lm_eval_steer.extraction.extract import Extraction, Options, extract
from lm_eval_steer.extraction.pair_source import PairItem, PairSource
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.hooks import edit_site
from lm_eval_steer.inspection.pair_reading import read_pairs
from lm_eval_steer.inspection.verification import Verification
from lm_eval_steer.inspection.verify import verify
from lm_eval_steer.operations import OPERATIONS
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.positions import Chosen
from lm_eval_steer.scope import TokenScope
from lm_eval_steer.vector import Provenance, SteeringVector
from tests.steer_tools import direction, hook_count, placement, plan
from tests.tiny_models import LAYERS, build, shared, shared_layout, tiny_tokenizer

PROMPT = "How are you, quick brown fox? Answer:"
WORDS = ("fox", "dog", "lazy", "brown", "quick", "over")


def look(what: SteeringPlan, family: str = "llama", **options: Any) -> Verification:
    return verify(shared(family), tiny_tokenizer(), shared_layout(family), what, PROMPT, new_tokens=3, **options)


def at(site: Site = Site.BLOCK_OUT, layer: int = 1, **kwargs: Any) -> SteeringPlan:
    return plan(placement(Hookpoint(site, layer), direction(3), **kwargs))


def named(found: Verification) -> dict[str, str]:
    return {check.name: check.says for check in found.wrong}


# ------------------------------------------------------------------------------------------------ right edits


FAMILIES = [
    pytest.param(name, marks=[] if name in ("llama", "gpt2", "mamba") else pytest.mark.slow)
    for name in ("llama", "gpt2", "mamba", "qwen3", "gpt_neox", "gemma2", "falcon", "olmo2", "bloom")
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", [Site.BLOCK_OUT, Site.BLOCK_IN])
def test_a_right_edit_passes_every_check(family: str, site: Site) -> None:
    found = look(at(site), family)
    assert named(found) == {}
    assert {check.status for check in found.checks if check.name in ("place", "edit", "scope fires")} == {"good"}


def test_no_hook_stays() -> None:
    look(at())  # transformers leaves hooks of its own in a model that was once asked for hidden_states
    before = hook_count(shared("llama"))
    look(at(), pairs=None)
    assert hook_count(shared("llama")) == before


@pytest.mark.parametrize("site", [Site.ATTN_OUT, Site.MLP_OUT, Site.HEAD_Z])
def test_a_right_edit_of_a_write_passes(site: Site) -> None:
    assert named(look(at(site, layer=LAYERS - 1))) == {}


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - {"affine", "head_shift"}))
def test_every_operation_passes(operation: str) -> None:
    found = look(at(operation=operation, multiplier=1.5))
    assert named(found) == {}
    assert [check.status for check in found.checks if check.name == "edit"] == ["good"]


def test_operations_of_a_site_or_an_origin_of_their_own_pass() -> None:
    assert named(look(at(Site.HEAD_Z, operation="head_shift"))) == {}
    point = Hookpoint(Site.BLOCK_OUT, 1)
    vector = SteeringVector("v", {point: direction(1)}, Provenance("x"), origins={point: direction(2)})
    found = look(SteeringPlan((Placement(vector, point, point, operation="affine"),)))
    assert named(found) == {}
    assert [check.status for check in found.checks if check.name == "edit"] == ["good"]


def test_a_basis_passes() -> None:
    point = Hookpoint(Site.BLOCK_OUT, 1)
    vector = SteeringVector("v", {point: torch.stack([direction(1), direction(2)])}, Provenance("x"), "basis")
    assert named(look(SteeringPlan((Placement(vector, point, point, operation="ablate"),)))) == {}


@pytest.mark.parametrize(
    "scope", ["all", "after_prompt", "prompt", "last_prompt", "front:2", "window:1:3", "each_last"]
)
def test_every_scope_passes(scope: str) -> None:
    assert named(look(at(scope=scope))) == {}


def test_several_places_pass_and_nnsight_agrees() -> None:
    pytest.importorskip("nnsight", reason="needs the nnsight extra")
    found = look(plan(placement(Hookpoint(Site.BLOCK_OUT, 0)), placement(Hookpoint(Site.ATTN_OUT, 2))))
    assert named(found) == {}
    assert [check.status for check in found.checks if check.name == "nnsight"] == ["good"]


def test_a_vector_of_rows_passes() -> None:
    rows = torch.stack([direction(1), direction(2)])
    assert named(look(plan(placement(Hookpoint(Site.BLOCK_IN, 1), rows, scope="front:2")))) == {}


def test_the_prompt_is_shown_with_its_steered_tokens() -> None:
    found = look(at(scope="window:1:3"))
    assert [token.position for token in found.tokens if token.steered] == [1, 2]
    assert "".join(token.text for token in found.tokens) == PROMPT
    assert found.fired[0].positions == (1, 2)
    assert found.fired[0].new_tokens == 0
    assert [each.layer for each in found.effects] == [0, 1, 2]


def test_without_nnsight_the_check_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnsight", None)
    found = look(at())
    (check,) = [each for each in found.checks if each.name == "nnsight"]
    assert check.status == "not run"
    assert 'pip install "lm-eval-steer[nnsight]"' in check.says


def test_a_neutral_plan_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to verify"):
        look(at(multiplier=0.0))


# ------------------------------------------------------------------------------------------------ planted in the hooks


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace where an edit is installed."""

    def plant(move: Callable[[Hookpoint], Hookpoint]) -> None:
        def moved(layout: Any, point: Hookpoint, edit: Any, *, prepend: bool) -> Any:
            return edit_site(layout, move(point), edit, prepend=prepend)

        monkeypatch.setattr(handle_module, "edit_site", moved)

    return plant


@pytest.mark.parametrize(("by", "word"), [(1, "late"), (-1, "early")])
def test_a_hook_one_layer_off_is_named(plant: Callable[..., None], by: int, word: str) -> None:
    plant(lambda point: Hookpoint(point.site, min(max(point.layer + by, 0), LAYERS - 1)))
    errors = named(look(at()))
    assert f"layer off by one (too {word})" in errors["place"]
    assert "layer off by one" in errors["layer base"]


def test_a_hook_at_the_wrong_site_is_named(plant: Callable[..., None]) -> None:
    plant(lambda point: Hookpoint(Site.MLP_OUT, point.layer))
    assert "wrong site: the edit is at mlp_out.1" in named(look(at()))["place"]


@pytest.mark.parametrize(("factor", "words"), [(-1.0, "sign flipped"), (2.0, "double addition"), (3.0, "3 times")])
def test_another_factor_is_named(monkeypatch: pytest.MonkeyPatch, factor: float, words: str) -> None:
    right = Edit.apply

    def scaled(self: Edit, hidden: Tensor, chosen: Chosen) -> Tensor:
        return hidden + factor * (right(self, hidden, chosen) - hidden)

    monkeypatch.setattr(Edit, "apply", scaled)
    errors = named(look(at()))
    assert words in errors["edit"]
    if pytest.importorskip("nnsight"):
        assert "other logits" in errors["nnsight"]


def test_a_second_hook_behind_the_first_is_a_double_addition() -> None:
    module = shared_layout("llama").blocks[1]
    hook = module.register_forward_hook(lambda _m, _a, out: out + direction(3))
    try:
        errors = named(look(at()))
    finally:
        hook.remove()
    assert "double addition" in errors["edit"]


def test_a_second_hook_at_the_next_block_s_input_is_a_double_addition() -> None:
    module = shared_layout("llama").blocks[2]
    hook = module.register_forward_pre_hook(lambda _m, args: (args[0] + direction(3), *args[1:]))
    try:
        errors = named(look(at()))
    finally:
        hook.remove()
    assert "double addition" in errors["place"]


@pytest.fixture
def choose_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edit every column, padding too."""

    def everything(batch: Any, _spans: Any, _step: int, columns: int, copies: int, **_options: Any) -> Chosen:
        total = batch.rows * columns * copies
        return Chosen(torch.arange(total), torch.zeros(total, dtype=torch.long), total)

    monkeypatch.setattr(handle_module, "choose", everything)


@pytest.mark.usefixtures("choose_all")
def test_steered_padding_is_named() -> None:
    errors = named(look(at(scope="all")))
    assert errors == {
        f"padding, {side}": f"steered padding: 3 padding position(s) were edited in a {side} batch."
        for side in ("right-padded", "left-padded")
    }


@pytest.mark.usefixtures("choose_all")
def test_other_tokens_than_the_scope_s_are_named() -> None:
    errors = named(look(at(scope="last_prompt")))
    assert "positions, right-padded" in errors
    assert "against the scope" in errors["new tokens"]


def test_a_scope_that_never_fires_is_named() -> None:
    assert "never fires" in named(look(at(scope="front:1", skip_first=True)))["scope fires"]


def test_the_naive_scope_of_generated_tokens_only_never_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TokenScope._range
    monkeypatch.setattr(
        TokenScope, "_range", lambda self, request, decoder: (right(self, request, decoder)[0] + 1, None)
    )
    assert "never fires" in named(look(at(scope="after_prompt")))["scope fires"]


def test_a_marker_that_is_absent_is_named() -> None:
    assert "never fires" in named(look(at(scope="from_marker:zzz")))["scope fires"]


# ------------------------------------------------------------------------------------------------ planted in the file


@pytest.fixture(scope="module")
def source() -> PairSource:
    items = [
        PairItem(str(n), f"How is the {w}?", f"How is the {w}?\nAnswer:", f"yes, the {w} is", f"no {w}")
        for n, w in enumerate(WORDS)
    ]
    return PairSource("toy", tuple(items))


@pytest.fixture(scope="module")
def made(source: PairSource) -> dict[Site, Extraction]:
    model, layout = shared("llama"), shared_layout("llama")
    return {
        site: extract(model, tiny_tokenizer(), source, Options(site=site), layout=layout)
        for site in (Site.BLOCK_OUT, Site.MLP_OUT)
    }


def judge(vector: SteeringVector, source: PairSource, layer: int = 1) -> Verification:
    point = Hookpoint(vector.site, layer)
    given = dataclasses.replace(placement(Hookpoint(vector.site, 0)), vector=vector, source=point, target=point)
    return look(SteeringPlan((given,)), pairs=read_pairs(source, vector, tiny_tokenizer()))


def relabelled(vector: SteeringVector, label: Callable[[Hookpoint], Hookpoint], factor: float = 1.0) -> SteeringVector:
    tensors = {label(key): factor * value for key, value in vector.tensors.items() if label(key).layer < LAYERS}
    return dataclasses.replace(vector, tensors={key: value for key, value in tensors.items() if key.layer >= 0})


def test_a_right_file_is_the_difference_of_its_pairs(made: dict[Site, Extraction], source: PairSource) -> None:
    for site, extraction in made.items():
        found = judge(extraction.vector, source)
        assert "source" not in named(found), site
        here = next(each for each in found.effects if each.layer == 1)
        assert here.cosine == pytest.approx(1.0, abs=1e-5)


def test_the_input_of_a_block_is_judged_as_the_output_of_the_one_before(
    made: dict[Site, Extraction], source: PairSource
) -> None:
    inputs = relabelled(made[Site.BLOCK_OUT].vector, lambda key: Hookpoint(Site.BLOCK_IN, key.layer + 1))
    assert "source" not in named(judge(inputs, source, layer=2))


@pytest.mark.parametrize("by", [-1, 1])
def test_a_file_one_layer_off_is_named(made: dict[Site, Extraction], source: PairSource, by: int) -> None:
    shifted = relabelled(made[Site.BLOCK_OUT].vector, lambda key: Hookpoint(key.site, key.layer + by))
    says = named(judge(shifted, source))["source"]
    assert "layer off by one" in says
    assert f"block_out.{1 - by}" in says


def test_a_file_of_another_site_is_named(made: dict[Site, Extraction], source: PairSource) -> None:
    other = relabelled(made[Site.MLP_OUT].vector, lambda key: Hookpoint(Site.BLOCK_OUT, key.layer))
    assert "wrong site" in named(judge(other, source))["source"]


def test_a_file_with_the_sign_flipped_is_named(made: dict[Site, Extraction], source: PairSource) -> None:
    flipped = relabelled(made[Site.BLOCK_OUT].vector, lambda key: key, factor=-1.0)
    assert "sign flipped" in named(judge(flipped, source))["source"]


def test_a_scope_that_does_not_fit_the_pairs_is_said(made: dict[Site, Extraction], source: PairSource) -> None:
    vector, point = made[Site.BLOCK_OUT].vector, Hookpoint(Site.BLOCK_OUT, 1)
    scope = TokenScope.parse("from_marker:quick brown fox? Ans")
    pairs = read_pairs(source, vector, tiny_tokenizer())
    found = look(SteeringPlan((Placement(vector, point, point, scope=scope),)), pairs=pairs)
    (check,) = [each for each in found.checks if each.name == "effect"]
    assert check.status == "not run"
    assert "does not fit the pairs" in check.says


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    build("llama").save_pretrained(path)
    tiny_tokenizer(chat=True).save_pretrained(path)
    return path


def call(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["verify", *map(str, words)])
    code: int = args.run(args)
    return code


def test_the_command_says_what_it_saw(
    folder: Path, tmp_path: Path, made: dict[Site, Extraction], capsys: pytest.CaptureFixture[str]
) -> None:
    file, pairs = tmp_path / "v.safetensors", tmp_path / "pairs.jsonl"
    save_vector(made[Site.BLOCK_OUT].vector, file)
    rows = [{"question": f"How is the {w}?", "positive": f"yes, the {w} is", "negative": f"no {w}"} for w in WORDS]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    common = (file, "--pretrained", folder, "--layer", 1, "--device", "cpu", "--prompt", "How are you?")
    assert call(*common, "--pairs", pairs) == EXIT_OK
    text = capsys.readouterr().out
    assert "hidden_states[2]" in text
    assert "source: its cosine with the pairs' difference at block_out.1 is 1.000" in text
    code = call(*common, "--scope", "front:1", "--skip-first", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (code, told["ok"]) == (EXIT_INPUT, False)
    assert {check["name"] for check in told["checks"] if check["status"] == "wrong"} >= {"scope fires"}
