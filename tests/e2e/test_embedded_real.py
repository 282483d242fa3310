"""SmolLM2-135M-Instruct out of the package index: the folder is the real model, and needs no network any more."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lm_eval_steer import embedded
from lm_eval_steer.files import sha256_file

pytestmark = [pytest.mark.slow, pytest.mark.real]


@pytest.fixture(scope="module")
def folder() -> Path:
    return embedded.ensure()


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **named: Any) -> Any:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_every_file_is_the_one_recorded(folder: Path) -> None:
    told = embedded.describe()
    assert told["path"] == str(folder)
    assert {"LICENSE", "NOTICE", "README.md", "model.safetensors", "tokenizer.json"} <= set(told["fingerprint_files"])
    for name, digest in told["fingerprint_files"].items():
        assert sha256_file(folder / name) == digest, name
    assert "Apache License" in (folder / "LICENSE").read_text()


def test_second_call_in_a_new_process_reads_no_weights_and_loads_no_torch(folder: Path) -> None:
    code = (
        "import sys; opened = [];"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None);"
        "from lm_eval_steer import embedded; print(embedded.ensure());"
        "print([n for n in ('torch', 'transformers', 'gguf') if n in sys.modules]);"
        "print([n for n in opened if n.endswith(('.safetensors', '.gguf', '.whl', 'tokenizer.json'))])"
    )
    root = str(Path(embedded.__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout == f"{folder}\n[]\n[]\n"


@pytest.mark.usefixtures("_no_network")
def test_tokenizer_splits_digits_and_keeps_newlines_together(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("\n\n1 22 333")["input_ids"] == [1116, 33, 216, 34, 34, 216, 35, 35, 35]
    assert tokenizer.decode(tokenizer("\n\n1 22 333")["input_ids"]) == "\n\n1 22 333"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token_id) == ("<|im_start|>", "<|im_end|>", 2)
    assert tokenizer.model_max_length == 8192
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert tokenizer(chat)["input_ids"].count(1) == 2, "one <|im_start|> a turn, and none added in front"


@pytest.mark.usefixtures("_no_network")
def test_model_answers_a_question(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert (model.dtype, model.config.num_hidden_layers, model.config.hidden_size) == (torch.float32, 30, 576)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    batch = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**batch, max_new_tokens=20, do_sample=False)[0, batch["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
