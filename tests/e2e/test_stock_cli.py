"""The stock command: ``lm_eval --model steered_hf`` at λ = 0 is ``lm_eval --model hf``, bit by bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lm_eval_steer.formats.native import save_vector
from tests.conftest import random_vector
from tests.tiny_models import WIDTH, build, tiny_tokenizer

pytestmark = pytest.mark.slow

COMMON = "custom_dataset: !function data.load\ntest_split: test\nnum_fewshot: 0\nmetadata: {version: 1.0}\n"
TASKS = {
    "tiny_choice": "output_type: multiple_choice\ndoc_to_text: '{{text}}'\ndoc_to_choice: ['yes it is', 'no']\n"
    "doc_to_target: 0\nmetric_list: [{metric: acc}]\n",
    "tiny_rolling": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
    "metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]\n",
    "tiny_generate": "output_type: generate_until\ndoc_to_text: '{{text}}'\ndoc_to_target: 'x'\n"
    "generation_kwargs: {until: ['zzz'], max_gen_toks: 6}\n"
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
}
DATA = """
from datasets import Dataset, DatasetDict

def load(**kwargs):
    texts = ["the quick brown fox", "a", "numbers 1 2 3 and more text than the others have", "question: why?"]
    return DatasetDict({"test": Dataset.from_list([{"text": text} for text in texts])})
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    build("llama").save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    save_vector(random_vector(WIDTH, 4), folder / "v.safetensors")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "data.py").write_text(DATA)
    for name, text in TASKS.items():
        (folder / "tasks" / f"{name}.yaml").write_text(f"task: {name}\n{text}{COMMON}")
    return folder


def lm_eval(place: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    tasks = ",".join(TASKS)
    command = [sys.executable, "-m", "lm_eval", "run", *arguments, "--include_path", str(place / "tasks")]
    command += [
        "--tasks",
        tasks,
        "--output_path",
        str(place / name),
        "--log_samples",
        "--batch_size",
        "3",
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "HF_HOME": str(place / "hf")}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment, cwd=place)


def outcome(place: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    (results,) = (place / name).rglob("results_*.json")
    samples = {
        path.name.split("_2")[0]: [(s["doc_id"], s["resps"]) for s in map(json.loads, path.read_text().splitlines())]
        for path in (place / name).rglob("samples_*.jsonl")
    }
    return json.loads(results.read_text()), samples


def test_lambda_zero_is_hf_bit_by_bit_and_lambda_two_is_not(place: Path) -> None:
    model = f"pretrained={place / 'model'},dtype=float32"
    steered = f"{model},vector={place / 'v.safetensors'},layer=1,scope=all"
    runs = {
        "hf": lm_eval(place, "hf", "--model", "hf", "--model_args", model),
        "zero": lm_eval(place, "zero", "--model", "steered_hf", "--model_args", f"{steered},multiplier=0"),
        "two": lm_eval(place, "two", "--model", "steered_hf", "--model_args", f"{steered},multiplier=20"),
    }
    assert {name: run.returncode for name, run in runs.items()} == dict.fromkeys(runs, 0), runs["zero"].stderr[-3000:]
    plain, plain_samples = outcome(place, "hf")
    zero, zero_samples = outcome(place, "zero")
    assert zero["results"] == plain["results"]
    assert zero_samples == plain_samples
    assert len(plain_samples) == 3
    two, two_samples = outcome(place, "two")
    assert all(two_samples[name] != plain_samples[name] for name in plain_samples)
    steering = two["config"]["steering"]
    assert steering["plan"]["placements"][0]["multiplier"] == 20.0
    assert steering["plan"]["placements"][0]["file_sha256"]
    assert zero["config"]["steering"]["neutral"] is True


def test_a_user_error_is_one_message(place: Path) -> None:
    run = lm_eval(place, "bad", "--model", "steered_hf", "--model_args", f"pretrained={place / 'model'},multipler=2")
    assert run.returncode == 2
    assert "Did you mean 'multiplier'?" in run.stderr
    assert "Traceback" not in run.stderr
