"""The sweep engine where a second reader looked: what could be silently wrong, against each plan alone."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_steer.errors import NonFiniteError, UntouchedError
from lm_eval_steer.model import SteeredHF
from lm_eval_steer.plan import SteeringPlan
from lm_eval_steer.sweep import versions
from lm_eval_steer.sweep.budget import Budget
from lm_eval_steer.sweep.engine import SweepLM
from lm_eval_steer.vector import Provenance, SteeringVector
from tests.conftest import random_vector
from tests.steered import generate, loglikelihood, make_plan
from tests.tiny_models import WIDTH, build, tiny_tokenizer
from tests.toy_tasks import install, spec
from tests.toy_tasks import sweep as run_toy

VECTOR = random_vector(WIDTH, 4)
OTHER = random_vector(WIDTH, 4, seed=3)
PAIRS = [
    ("the context of it", " an answer"),
    ("the", " a"),
    ("the", " b"),
    ("a longer context than the others", " yes"),
]


def sweep(plans: Sequence[SteeringPlan], *, family: str = "llama", **options: Any) -> SweepLM:
    """The engine on a fresh tiny model."""
    options = {"batch_size": 3, "max_length": 48, **options}
    return SweepLM(build(family), tokenizer=tiny_tokenizer(), plans=[SteeringPlan(), *plans], **options)


def alone(plan: SteeringPlan, family: str = "llama") -> SteeredHF:
    """The same model under one plan."""
    return SteeredHF(build(family), tokenizer=tiny_tokenizer(), plan=plan, batch_size=3, max_length=48)


def assert_equal_cells(lm: SweepLM, pairs: Sequence[tuple[str, str]], family: str = "llama") -> None:
    """Every cell gives what its plan gives alone."""
    for cell, plan in enumerate(lm.plans):
        lm.cell = cell
        expected = loglikelihood(alone(plan, family), pairs)
        ours = loglikelihood(lm, pairs)
        assert [value for value, _ in ours] == pytest.approx([value for value, _ in expected], abs=1e-4), plan
        assert [best for _, best in ours] == [best for _, best in expected], plan


class Kept:
    """Blocks in a dict."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}

    def get(self, block_id: str) -> Any:
        return self.arrays.get(block_id)

    def put(self, block_id: str, arrays: Any) -> None:
        self.arrays[block_id] = arrays

    def claimed(self, _block_id: str) -> bool:
        return False

    @contextlib.contextmanager
    def computing(self, block_id: str) -> Iterator[bool]:
        yield block_id not in self.arrays


# ------------------------------------------------------------------------------------------------ cells side by side


@pytest.mark.parametrize("path", ["tree", "rows", None])
@pytest.mark.parametrize("scope", ["after_prompt", "all"])
def test_a_cell_that_breaks_does_not_break_its_neighbours(
    path: Any, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Budget, "cells", lambda *_: 8)  # a tiny model's memory would hold one
    plans = [make_plan(VECTOR, 1, scope=scope, multiplier=m) for m in (1.0, 2.0, 1e6)]
    options: dict[str, Any] = {"tokenizer": tiny_tokenizer(), "batch_size": 3, "max_length": 48}
    lm = SweepLM(build("gpt2").half(), plans=[SteeringPlan(), *plans], path=path, **options)
    for cell, plan in enumerate(plans, 1):
        lm.cell = cell
        single = SteeredHF(build("gpt2").half(), plan=plan, **options)
        if cell == 3:
            with pytest.raises(NonFiniteError):
                loglikelihood(single, PAIRS)
            with pytest.raises(NonFiniteError):
                loglikelihood(lm, PAIRS)
        else:
            expected = [value for value, _ in loglikelihood(single, PAIRS)]
            assert [value for value, _ in loglikelihood(lm, PAIRS)] == pytest.approx(expected, abs=0.05)
    assert lm.chosen is not None
    assert lm.chosen.path == (path or "tree")


def test_the_self_check_does_not_overlook_what_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = sweep([make_plan(VECTOR, layer, multiplier=2.0) for layer in (0, 1, 3)])
    shared = lm.scorer.run_shared

    def broken(items: Any, requests: Any, cells: Any, path: str) -> Any:
        for part in shared(items, requests, cells, path):
            if path == "tree" and part.cells != (0,):
                last = part.scores[-1][-1]
                part.scores[-1][-1] = dataclasses.replace(last, log_probs=torch.full_like(last.log_probs, math.nan))
            yield part

    monkeypatch.setattr(lm.scorer, "run_shared", broken)
    loglikelihood(lm, PAIRS)
    assert lm.chosen is not None
    assert lm.chosen.path == "rows"


@pytest.mark.slow
def test_all_scopes_in_one_sweep() -> None:
    scopes = ["after_prompt", "all", "prompt", "last_prompt", "each_last", "front:2", "window:1:2", "from_marker:the"]
    plans = [
        make_plan(VECTOR, layer, scope=scope, multiplier=m, skip_first=skip)
        for scope in scopes
        for layer, m in ((0, -2.0), (3, 1.5))
        for skip in (False, True)
        if not (skip and scope == "front:1")
    ]
    assert_equal_cells(sweep(plans), [("what is the context", " an answer"), ("the the", " a"), ("of the", " b")])


def test_the_marker_may_occur_in_an_answer() -> None:
    pairs = [
        ("the first the second", " the third the"),
        ("the first the second", " the"),
        ("the first the second", " x the y"),
        ("a the ", "the b"),
    ]
    assert_equal_cells(sweep([make_plan(VECTOR, n, scope="from_marker:the", multiplier=2.0) for n in (0, 2)]), pairs)


@pytest.mark.slow
def test_answers_may_be_prefixes_of_one_another_and_come_twice() -> None:
    answers = [" a", " a b", " a b c", " a b c d", " a b", " a"]
    pairs = [(context, answer) for context in ("the context", "the context a", "q" * 200) for answer in answers]
    for scope in ("after_prompt", "all"):
        assert_equal_cells(sweep([make_plan(VECTOR, n, scope=scope, multiplier=2.0) for n in (0, 2)]), pairs)


def test_empty_contexts_and_requests_longer_than_the_model() -> None:
    pairs = [("", "an answer"), ("", "b"), ("q" * 300, " " + "xy" * 15), ("q" * 300, " z"), ("the", " " + "x" * 40)]
    for scope in ("after_prompt", "all"):
        assert_equal_cells(sweep([make_plan(VECTOR, n, scope=scope, multiplier=2.0) for n in (0, 2)]), pairs)


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_a_window_that_only_later_requests_exceed(family: str) -> None:
    lm = sweep([make_plan(VECTOR, n, multiplier=2.0) for n in (0, 2)], family=family)
    assert_equal_cells(lm, PAIRS[:3], family)
    assert lm.chosen is not None
    assert lm.chosen.path == "tree"
    assert_equal_cells(lm, [("z" + "xy" * 22, " a"), ("y" + "xy" * 21, " b")], family)


@pytest.mark.parametrize("operations", [("add", "ablate"), ("ablate", "add"), ("add", "clamp")])
def test_placements_at_one_place_act_in_their_order(operations: tuple[str, str]) -> None:
    first, second = operations
    plans = [
        SteeringPlan(
            make_plan(OTHER, layer, scope="all", operation=first, multiplier=3.0).placements
            + make_plan(VECTOR, layer, operation=second, multiplier=m).placements
        )
        for layer in (1, 3)
        for m in (1.0, 2.0)
    ]
    assert_equal_cells(sweep(plans), PAIRS)


def test_a_zero_vector_changes_nothing() -> None:
    zeros = {key: torch.zeros(WIDTH) for key in VECTOR.tensors}
    nothing = SteeringVector("nothing", zeros, Provenance("zero", control="zero"))
    lm = sweep([make_plan(nothing, n, scope=scope) for n in (0, 3) for scope in ("after_prompt", "all")])
    unsteered = loglikelihood(lm, PAIRS)
    for cell in range(1, len(lm.plans)):
        lm.cell = cell
        assert [v for v, _ in loglikelihood(lm, PAIRS)] == pytest.approx([v for v, _ in unsteered], abs=1e-5)


def test_each_placement_has_to_steer_something() -> None:
    """As for one plan alone: what one placement steers does not hide that another steers nothing."""
    silent = make_plan(OTHER, 2, scope="front:1", skip_first=True)
    lm = sweep([SteeringPlan(make_plan(VECTOR, 1).placements + silent.placements)])
    lm.cell = 1
    loglikelihood(lm, PAIRS)
    single = alone(lm.plans[1])
    loglikelihood(single, PAIRS)
    with pytest.raises(UntouchedError):
        single.steering.check_touched()
    with pytest.raises(UntouchedError):
        lm.check_cell()


def test_an_interrupted_computation_is_not_taken_for_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = sweep([make_plan(VECTOR, 1)])
    score = lm.scorer.score
    monkeypatch.setattr(lm.scorer, "score", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        loglikelihood(lm, PAIRS)
    monkeypatch.setattr(lm.scorer, "score", score)
    assert_equal_cells(lm, PAIRS)


# ------------------------------------------------------------------------------------------------ block ids


def block_ids(plans: Sequence[SteeringPlan], *, texts: bool = False, model: Any = None, **options: Any) -> set[str]:
    """The ids of the blocks that some requests make."""
    kept = Kept()
    options = {"batch_size": 3, "max_length": 48, **options}
    lm = SweepLM(model or build("llama"), tokenizer=tiny_tokenizer(), plans=plans, blocks=kept, **options)
    lm.cell = 1
    if texts:
        generate(lm, ["the context of it", "and a longer one"])
    else:
        loglikelihood(lm, [("the context of it", " an answer"), ("and a longer one", " b")])
    assert kept.arrays
    return set(kept.arrays)


PLANS = [SteeringPlan(), make_plan(VECTOR, 1), make_plan(VECTOR, 1, multiplier=2.0)]


@pytest.mark.parametrize("texts", [False, True])
def test_what_changes_numbers_changes_block_ids(texts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = block_ids(PLANS, texts=texts)
    assert block_ids(PLANS, texts=texts) == ids
    eager = build("llama")
    eager.set_attn_implementation("eager")
    assert not ids & block_ids(PLANS, texts=texts, model=eager), "attention implementation"
    assert not ids & block_ids(PLANS, texts=texts, model=build("llama").to(torch.bfloat16)), "dtype"
    other = [SteeringPlan(), make_plan(OTHER, 1), make_plan(OTHER, 1, multiplier=2.0)]
    assert not ids & block_ids(other, texts=texts), "vector"
    front = [SteeringPlan(), *(make_plan(VECTOR, 1, scope=f"window:0:{n}") for n in (1, 2))]
    more = [SteeringPlan(), *(make_plan(VECTOR, 1, scope=f"window:{n}:2") for n in (1, 0))]
    steered = [block_ids(p, texts=texts) - ids for p in (front, more)]
    assert not steered[0] & steered[1], "scope"
    monkeypatch.setattr(versions, "version", lambda name: f"0.0.{len(name)}")
    versions.numeric_versions.cache_clear()
    try:
        assert not ids & block_ids(PLANS, texts=texts), "software"
    finally:
        monkeypatch.undo()
        versions.numeric_versions.cache_clear()


def test_a_models_own_way_of_generating_changes_the_ids_of_its_texts_only() -> None:
    penalised = build("llama")
    penalised.generation_config.repetition_penalty = 1.7
    assert not block_ids(PLANS, texts=True) & block_ids(PLANS, texts=True, model=penalised)
    assert block_ids(PLANS) == block_ids(PLANS, model=penalised)


def test_texts_of_placements_at_one_place_act_in_their_order() -> None:
    plans = [
        SteeringPlan(
            make_plan(OTHER, 3, scope="all", operation="add", multiplier=m).placements
            + make_plan(OTHER, 3, scope="all", operation="ablate").placements
        )
        for m in (4.0, 9.0)
    ]
    lm = sweep(plans)
    for cell in (1, 2):
        lm.cell = cell
        assert generate(lm, ["the context", "a"]) == generate(alone(lm.plans[cell]), ["the context", "a"])
    assert lm.generation.chosen is not None
    assert lm.generation.chosen.path != "plain"


# ------------------------------------------------------------------------------------------------ one ledger, many runs


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install(tmp_path, monkeypatch)


def results(place: Path, **options: Any) -> list[Any]:
    """Labels and metrics of every cell of a sweep into the folder's ledger."""
    records = run_toy(place, spec(place, **options)).records
    return [(record.labels, {name: task["metrics"] for name, task in record.tasks.items()}) for record in records]


@pytest.mark.slow
def test_other_limits_and_batches_in_one_ledger_do_not_mix(place: Path) -> None:
    few, many = results(place, limit=3), results(place, limit=6)
    assert results(place, limit=3, batch_size=1) == few
    (place / "ledger").rename(place / "first")
    assert results(place, limit=6) == many
    assert results(place, limit=3) == few
    assert few != many


def test_two_tasks_may_ask_the_same(place: Path) -> None:
    text = (place / "tasks" / "toy_letter.yaml").read_text()
    (place / "tasks" / "toy_twin.yaml").write_text(text.replace("toy_letter", "toy_twin"))
    alone = [(labels, tasks["toy_letter"]) for labels, tasks in results(place, tasks=["toy_letter"])]
    (place / "ledger").rename(place / "first")
    both = results(place, tasks=["toy_letter", "toy_twin"])
    assert [(labels, tasks["toy_letter"]) for labels, tasks in both] == alone
    assert all(tasks["toy_letter"] == tasks["toy_twin"] for _, tasks in both)


def test_equal_texts_with_other_tokens_are_other_requests() -> None:
    texts, lm = ("context", " answer"), sweep([])
    found = [lm._loglikelihood_tokens([(texts, context, [8])])[0] for context in ([5, 6, 7], [9, 10, 11], [5, 6, 7])]
    fresh = [sweep([])._loglikelihood_tokens([(texts, context, [8])])[0] for context in ([5, 6, 7], [9, 10, 11])]
    assert found == [*fresh, fresh[0]]
    assert fresh[0] != fresh[1]


@pytest.mark.parametrize(("layer", "rows"), [(1, 1), (3, 4)])
def test_the_last_mlp_computes_what_is_read_where_nobody_edits_behind_it(layer: int, rows: int) -> None:
    plans = [make_plan(VECTOR, layer=layer, multiplier=1.0, scope="all")]
    lm, seen = sweep(plans, path="rows"), []
    lm.model.model.layers[-1].mlp.down_proj.register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[:2]))
    lm._loglikelihood_tokens([(("a", "b"), [5, 6, 7, 8], [9])])
    assert seen == [(1, 4), (1, rows)]  # the trunk is lm-eval's own forward
