"""From GGUF to a folder: a one-block model made here goes through the real loader and comes back equal."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lm_eval_steer import embedded_unpack
from lm_eval_steer.errors import InputError

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes that byte-level BPE uses."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in plain] + [chr(256 + index) for index in range(256 - len(plain))]


def write_gguf(path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
    width, inner = 16, 32
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *byte_symbols(), "ĊĊ", "Ġ1"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["Ċ Ċ", "Ġ 1"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd": (len(tokens), width), "output_norm": (width,)}
    shapes |= {f"blk.0.{name}": (width,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {f"blk.0.attn_{name}": (width, width) for name in ("q", "output")}
    shapes |= {f"blk.0.attn_{name}": (8, width) for name in ("k", "v")}
    shapes |= {"blk.0.ffn_gate": (inner, width), "blk.0.ffn_up": (inner, width), "blk.0.ffn_down": (width, inner)}
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.3, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    write_gguf(root / "tiny.gguf")
    (root / "out").mkdir()
    embedded_unpack.unpack(root / "tiny.gguf", root / "out", split_digits=True, progress=lambda line: None)
    return root / "out"


def test_unpacked_folder_is_an_ordinary_model(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert getattr(model.config, "quantization_config", None) is None
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.model_max_length == 64
    # Digits stand alone, so the pair "Ġ1" is never merged; the two newlines before a digit are.
    assert tokenizer.convert_ids_to_tokens(tokenizer("\n\n1 1")["input_ids"]) == ["ĊĊ", "1", "Ġ", "1"]


def test_files_can_be_shared(folder: Path) -> None:
    assert len({one.stat().st_mode & 0o777 for one in folder.iterdir()}) == 1


def test_progress_reaches_stderr_and_the_loader_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "out").mkdir()
    before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    embedded_unpack.unpack(
        tmp_path / "tiny.gguf", tmp_path / "out", split_digits=False, progress=lambda line: print(line, file=sys.stderr)
    )
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == before
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[0] for line in err.splitlines()] == ["reading", "writing", "checking"]


class FakeTokenizer:
    def __init__(self, shift: int = 0, chat_template: str | None = None) -> None:
        self.shift, self.chat_template = shift, chat_template

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(one) + self.shift for one in text]}


def test_changed_tokenizer_is_refused() -> None:
    embedded_unpack._check_tokenizer(FakeTokenizer(), FakeTokenizer())
    with pytest.raises(InputError, match="tokenizer changed on reload"):
        embedded_unpack._check_tokenizer(FakeTokenizer(), FakeTokenizer(1))
    with pytest.raises(InputError, match="chat template changed"):
        embedded_unpack._check_tokenizer(FakeTokenizer(chat_template="a"), FakeTokenizer(chat_template="b"))


def test_changed_logits_are_refused() -> None:
    import torch

    def fake(bias: float) -> Any:
        model: Any = lambda ids: SimpleNamespace(logits=ids.float() + bias)
        return SimpleNamespace(eval=lambda: model)

    embedded_unpack._check_logits(fake(0.0), fake(0.0), [1, 2])
    with pytest.raises(InputError, match=r"differ by up to 0\.5"):
        embedded_unpack._check_logits(fake(0.0), fake(0.5), [1, 2])
    with pytest.raises(InputError, match="differ"):
        embedded_unpack._check_logits(fake(float("nan")), fake(float("nan")), [1, 2])
    assert torch.is_inference_mode_enabled() is False
