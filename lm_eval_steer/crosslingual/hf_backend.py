"""hf: a sequence-to-sequence or a causal model of transformers as a back-end, from local files only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lm_eval_steer.crosslingual.items import base
from lm_eval_steer.crosslingual.languages import language
from lm_eval_steer.crosslingual.markers import translate_protected
from lm_eval_steer.errors import ConfigError
from lm_eval_steer.files import content_id

_PROMPT = "Translate from {src} to {tgt}. Write the translation and nothing else.\n\n{src}: {text}\n{tgt}:"
_ASK = "Translate this text from {src} to {tgt}. Answer with the translation and nothing else.\n\n{text}"
_ROOM = 32  # tokens that an answer may have beside three for each of its text


class HFBackend:
    """Translates greedily, in batches; the same texts give the same answers.

    Args:
        model: sequence-to-sequence or causal.
        tokenizer: of the model.
        name: what the provenance calls the model.
        batch_size: texts a forward pass.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, batch_size: int = 8) -> None:
        self.identity = f"hf:{name}"
        self._model, self._tokenizer, self._size = model, tokenizer, batch_size
        self._seq2seq = bool(model.config.is_encoder_decoder)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token

    def translate(self, texts: list[str], src: str, tgt: str) -> list[str]:
        """Return translations; markers and line breaks stay.

        Raises:
            ConfigError: the model has no such language, or no name is known for it.
        """
        return translate_protected(texts, lambda lines: self._lines(lines, src, tgt))

    def given(self, row: str, segment: str, tgt: str) -> str | None:
        """Return None: every text is translated."""
        return None

    def made_from(self, row: str, tgt: str) -> str | None:
        """Return None: what is translated is the source as it is now."""
        return None

    def _lines(self, lines: list[str], src: str, tgt: str) -> list[str]:
        """Translate lines, long ones together so that little is padded."""
        prompts, options = self._seq2seq_prompts(lines, src, tgt) if self._seq2seq else self._prompts(lines, src, tgt)
        order = sorted(range(len(lines)), key=lambda index: -len(prompts[index]))
        answers = [""] * len(lines)
        for start in range(0, len(order), self._size):
            batch = order[start : start + self._size]
            room = max(len(self._tokenizer(lines[index])["input_ids"]) for index in batch)
            made = self._generate([prompts[index] for index in batch], _ROOM + 3 * room, options)
            for index, answer in zip(batch, made, strict=True):
                answers[index] = answer
        return answers

    def _prompts(self, lines: list[str], src: str, tgt: str) -> tuple[list[str], dict[str, Any]]:
        names = {"src": language(src).name, "tgt": language(tgt).name}
        if not self._tokenizer.chat_template:
            return [_PROMPT.format(**names, text=line) for line in lines], {}
        turns = [[{"role": "user", "content": _ASK.format(**names, text=line)}] for line in lines]
        return self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True), {}

    def _seq2seq_prompts(self, lines: list[str], src: str, tgt: str) -> tuple[list[str], dict[str, Any]]:
        apart = getattr(self._tokenizer, "lang_token_to_id", {})  # M2M100 keeps its tags out of the vocabulary
        tags = {token for token in (*self._tokenizer.get_vocab(), *apart) if _is_tag(token)}
        wanted = _tag(tags, tgt)
        if wanted is None:
            if tags:
                raise ConfigError(f"{self.identity} has no tag of {tgt!r}; it has {', '.join(sorted(tags)[:40])}.")
            return lines, {}
        if wanted.startswith((">>", "<2")):
            return [f"{wanted} {line}" for line in lines], {}
        if hasattr(self._tokenizer, "src_lang"):
            spoken = _tag(tags, src)
            if spoken is None:
                raise ConfigError(f"{self.identity} has no tag of {src!r}; it has {', '.join(sorted(tags)[:40])}.")
            self._tokenizer.src_lang = spoken.strip("_")
        return lines, {"forced_bos_token_id": self._tokenizer.convert_tokens_to_ids(wanted)}

    def _generate(self, prompts: list[str], room: int, options: dict[str, Any]) -> list[str]:
        import torch

        self._tokenizer.padding_side = "right" if self._seq2seq else "left"
        special = self._seq2seq or not self._tokenizer.chat_template
        batch = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=special)
        batch = {key: batch[key].to(self._model.device) for key in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            made = self._model.generate(
                **batch,
                **options,
                do_sample=False,
                num_beams=1,
                max_new_tokens=room,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        new = made if self._seq2seq else made[:, batch["input_ids"].shape[1] :]
        return [_first_line(text) for text in self._tokenizer.batch_decode(new, skip_special_tokens=True)]


def load_hf(name: str, *, batch_size: int = 8, device: str | None = None) -> HFBackend:
    """Return a back-end from a folder, or from what the local cache has of a hub name.

    Raises:
        ConfigError: neither is there, or it cannot be loaded.
    """
    import torch
    import transformers

    folder = Path(name).expanduser()
    place = str(folder) if folder.is_dir() else name
    local: dict[str, Any] = {"local_files_only": True}
    try:
        config: Any = transformers.AutoConfig.from_pretrained(place, **local)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(place, **local)
        kind: Any = (
            transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        )
        model: Any = kind.from_pretrained(place, **local)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load {name!r} from this machine: {error}. Name a folder, or download it first: hf download {name}"
        ) from error
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    shown = f"{folder.name}@{_folder_id(folder)}" if folder.is_dir() else name
    return HFBackend(model.eval().to(chosen), tokenizer, shown, batch_size)


def _folder_id(folder: Path) -> str:
    """Return a short hash of a model folder: its config's bytes, and names and sizes of its weight files."""
    weights = sorted((path.name, path.stat().st_size) for path in folder.glob("*.safetensors"))
    return content_id([(folder / "config.json").read_text(encoding="utf-8"), weights], 8)


def _is_tag(token: str) -> bool:
    """Return whether a token names a language: ``fra_Latn``, ``fr_XX``, ``__fr__``, ``>>fra<<`` or ``<2fr>``."""
    return bool(re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}|[a-z]{2}_[A-Z]{2}|__[a-z]{2,3}__|>>\w+<<|<2[a-z]{2,3}>", token))


def _tag(tags: set[str], tag: str) -> str | None:
    code = base(tag)
    nllb = language(tag).nllb
    known = (nllb, f"__{code}__", f">>{nllb[:3]}<<", f">>{code}<<", f"<2{code}>")
    found = [token for token in known if token in tags]
    return (
        found[0]
        if found
        else next((token for token in sorted(tags) if re.fullmatch(rf"{code}_[A-Z]{{2}}", token)), None)
    )


def _first_line(text: str) -> str:
    """Return the first line that says something: a text of one line has an answer of one line."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
