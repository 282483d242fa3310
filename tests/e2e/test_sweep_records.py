"""What every record of a sweep must say, whatever the prompts are: few-shot, chat, truncation, long answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lm_eval.api.task
import pytest
import transformers

from lm_eval_steer import evaluation
from lm_eval_steer.cli.main import main
from lm_eval_steer.errors import ConfigError
from lm_eval_steer.evaluation import evaluate_plan, load_tasks, steered
from lm_eval_steer.sweep.ledger import Ledger
from lm_eval_steer.sweep.run import Swept
from lm_eval_steer.sweep.spec import SweepSpec
from tests.tiny_models import build
from tests.toy_tasks import CHAT, TASKS, install, numbers, spec, sweep, tokenizer

TEXTS = {
    "toy_text": {"pos": "Say yes.", "neg": "Say no.", "terse": "Be brief."},
    "toy_letter": {"pos": "Say A.", "neg": "Say B.", "terse": "Be brief."},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install(tmp_path, monkeypatch)


def assert_plain_numbers(place: Path, wanted: SweepSpec, swept: Swept) -> None:
    """Every cell has, item by item, the answers of the plain hooked loop over lm-eval's own requests."""
    model, words = build("llama"), tokenizer(wanted.chat)
    ledger = Ledger.open(place / "ledger", create=False)
    for record, cell in zip(swept.records, wanted.cells(4), strict=True):
        rows = {(row["task"], row["doc_id"]): row for row in ledger.read_samples(record.cell_id)}
        with steered(model, words, cell.plan, batch_size=4) as lm:
            for name in wanted.tasks:
                tasks = load_tasks([name], words, seed=wanted.seed)
                if wanted.num_fewshot is not None:
                    tasks["tasks"][name].set_config(key="num_fewshot", value=wanted.num_fewshot)
                text = None if cell.system_prompt is None else TEXTS[name][cell.system_prompt]
                found = evaluate_plan(
                    lm, tasks, limit=wanted.limit, chat=wanted.chat, seed=wanted.seed, system_prompt=text
                )
                for sample in found["samples"][name]:
                    row = rows[name, sample["doc_id"]]
                    assert row["prompt_hash"] == sample["prompt_hash"], (cell.words, name)
                    assert numbers(row["responses"]) == pytest.approx(numbers(str(sample["resps"])), abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_fewshot": 2},
        {"chat": True},
        {"num_fewshot": 2, "chat": True, "scopes": "all"},
        {"system_prompts": "none,pos,neg", "chat": True},
        {"system_prompts": {"pos": None, "terse": "Be brief."}, "num_fewshot": 2, "nulls": "prompt"},
        {"num_fewshot": 8},  # longer than the tiny model's context: truncated on the left
    ],
    ids=str,
)
def test_every_answer_is_the_plain_loops(place: Path, options: dict[str, Any]) -> None:
    wanted = spec(place, **options)
    assert_plain_numbers(place, wanted, sweep(place, wanted))


def test_few_shot_prompts_are_equal_in_all_cells(place: Path) -> None:
    swept = sweep(place, spec(place, num_fewshot=2))
    other = sweep(place, spec(place, num_fewshot=2, seed=7))
    none = sweep(place, spec(place))
    for task in TASKS:
        hashes = [{record.tasks[task]["prompt_hash"] for record in each.records} for each in (swept, other, none)]
        assert [len(each) for each in hashes] == [1, 1, 1]
        assert len(set.union(*hashes)) == 3
        assert {record.tasks[task]["num_fewshot"] for record in swept.records} == {2}
        rows = [Ledger.open(place / "ledger").read_samples(record.cell_id) for record in swept.records]
        assert len({tuple(row["prompt_hash"] for row in cell) for cell in rows}) == 1


def test_other_options_under_the_same_version_are_other_cells(place: Path) -> None:
    wanted = spec(place, tasks=["toy_text"], layers="1", multipliers="2")
    before = sweep(place, wanted)
    file = place / "tasks" / "toy_text.yaml"
    changed = file.read_text().replace("yes", "surely")
    assert changed != file.read_text()
    file.write_text(changed)
    after = sweep(place, wanted)
    assert not {record.cell_id for record in before.records} & {record.cell_id for record in after.records}
    assert after.computed_blocks > 0


def test_longer_prompts_than_the_model_takes_are_in_the_test_above(place: Path) -> None:
    words = tokenizer()
    tasks = load_tasks(["toy_text"], words)
    tasks["tasks"]["toy_text"].set_config(key="num_fewshot", value=8)
    with steered(build("llama"), words, spec(place).cells(4)[0].plan) as lm:
        evaluation.build_requests(lm, tasks, limit=6)
        lengths = [len(words.encode("".join(each.arguments))) for each in tasks["tasks"]["toy_text"].instances]
        assert min(lengths) > lm.max_length


def test_model_and_data_are_loaded_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place / "model"
    build("llama").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    loads: list[str] = []

    def counted(where: Any, name: str) -> None:
        real = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *a, **k: loads.append(name) or real(*a, **k))

    counted(transformers.AutoModelForCausalLM, "from_pretrained")
    counted(lm_eval.api.task.ConfigurableTask, "download")
    command = ["sweep", "--pretrained", str(folder), "--vector", str(place / "joy.safetensors"), "--layers", "all"]
    command += ["--multipliers=-1,1", "--tasks", ",".join(TASKS), "--limit", "4", "--ledger", str(place / "cli")]
    command += ["--system-prompts", "none,pos,neg", "--nulls", "random:2", "--lm-eval-output", str(place / "out")]
    assert main(command) == 0
    records = Ledger.open(place / "cli").read_cells()
    assert len(records) == 3 * (1 + 4 * 2 * 3)
    assert all(evaluation.result_files(place / "out" / record.cell_id) for record in records)
    assert sorted(loads) == ["download", "download", "from_pretrained"]


# ------------------------------------------------------------------------------------------------ system prompts


def test_records_of_a_system_prompt_say_so(place: Path) -> None:
    wanted = spec(place, system_prompts="neg,none", nulls="prompt", layers="2", multipliers="1")
    swept = sweep(place, wanted)
    rows = [(r.labels["system_prompt"], r.labels["vector"], r.labels["control"]) for r in swept.records]
    assert rows == [
        (None, "unsteered", None),
        (None, "joy", None),
        ("pos", "prompt-pos", "prompt"),
        ("neg", "prompt-neg", "prompt"),
        ("neg", "joy", None),
    ]
    for record in swept.records:
        for task, entry in record.tasks.items():
            name = record.labels["system_prompt"]
            assert entry["higher_is_better"] == {"acc": True}
            assert entry.get("system_prompt") == (None if name is None else TEXTS[task][str(name)])
    assert len({record.tasks["toy_text"]["prompt_hash"] for record in swept.records}) == 3
    assert len({record.tasks["toy_text"]["data_hash"] for record in swept.records}) == 1
    assert sweep(place, wanted).computed_blocks == 0
    status = Ledger.open(place / "ledger").status()
    assert (status.cells, status.expected, status.missing) == (5, 5, 0)


def test_cells_without_a_system_prompt_keep_their_ids(place: Path) -> None:
    plain = sweep(place, spec(place)).records
    both = sweep(place, spec(place, system_prompts="pos,none")).records
    assert [record.cell_id for record in both[: len(plain)]] == [record.cell_id for record in plain]
    given = sweep(place, spec(place, system_prompts={"pos": "Another text."})).records
    assert not {record.cell_id for record in given} & {record.cell_id for record in both}


def test_requests_are_built_once_a_task_and_system_prompt(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[str, str | None]] = []
    real = lm_eval.api.task.ConfigurableTask.build_all_requests

    def counted(task: Any, **options: Any) -> None:
        built.append((task.config.task, options["system_instruction"]))
        real(task, **options)

    monkeypatch.setattr(lm_eval.api.task.ConfigurableTask, "build_all_requests", counted)
    sweep(place, spec(place, system_prompts="none,pos"))
    assert sorted(built, key=str) == sorted(
        [(name, text) for name in TASKS for text in (None, TEXTS[name]["pos"])], key=str
    )


def test_a_task_without_the_prompt_is_an_error_before_the_model_is_loaded(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", "--pretrained", str(place / "nowhere"), "--vector", str(place / "joy.safetensors")]
    command += ["--tasks", "toy_text", "--ledger", str(place / "cli")]
    assert main([*command, "--system-prompts", "terse"]) == 2
    assert "task toy_text declares no system prompt 'terse' (it declares: neg, pos)" in capsys.readouterr().err
    assert main([*command, "--system-prompts", "pos"]) == 3
    assert "nowhere" in capsys.readouterr().err


def test_a_chat_template_that_drops_the_system_prompt_is_found_out(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = CHAT.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
    monkeypatch.setattr("tests.toy_tasks.CHAT", refuses)
    with pytest.raises(ConfigError, match="the chat template drops it"):
        sweep(place, spec(place, system_prompts="pos", chat=True))


def test_one_text_under_two_names_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match="the same text"):
        sweep(place, spec(place, system_prompts={"one": "Be brief.", "two": "Be brief."}))
