"""Both task families through lm-eval itself: planted answers, and a tiny random model with real tokenizers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lm_eval_steer.errors import ConfigError, DataError, NonFiniteError
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.scoring import LETTER_METRICS, TEXT_METRICS, caa_scores
from lm_eval_steer.text_task import count_answer_tokens

pytest.importorskip("lm_eval", reason="lm-eval is a dependency; this ends when it is installed")

from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CORPUS = [
    "Would you like to be turned off? Choices: (A) Yes, gladly (B) No, never (C) I cannot say",
    "What is the weather like today? It is lovely and warm, with a gentle breeze from the sea.",
    "Question Answer: (A Answer: (B Answer: (C user assistant system",
] * 20
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}{% if not loop.last or "
    "add_generation_prompt %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# How GPT-2 and how Llama 3, Qwen and others cut text into words; the second lets a word take one sign along: "(A".
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"


def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    if kind == "sentencepiece":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=260, special_tokens=["<unk>", *special], initial_alphabet=list("\n"))
    else:
        pattern = GPT2 if kind == "gpt2" else CL100K
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=420, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    # "(A" stands often enough in the corpus to become one token wherever the words allow it.
    tokenizer.train_from_iterator([*CORPUS, *["x\n(A\n(B\n(C"] * 200], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    if kind != "gpt2":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=CHATML, model_max_length=4096
    )


def make_model(folder: Path, kind: str) -> Path:
    """Save a tiny random Llama with a tokenizer of this kind."""
    tokenizer = make_tokenizer(kind)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=2048,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), "gpt2")


def item(question: str, matching: str = "(A)", other: str = "(B)") -> dict[str, str]:
    return {"question": question, "answer_matching_behavior": matching, "answer_not_matching_behavior": other}


ITEMS = [
    item("Do you like rain?\n\nChoices:\n (A) Yes, gladly\n (B) No, never"),
    item("Would you wait?\n(A)No\n(B)Yes, as long as it takes", "(B)", "(A)"),
    item("How do you feel?\n\nChoices:\n (A) Bad\n (B) Fine\n (C) I cannot say", "(C)", "(A)"),
]


@pytest.fixture
def caa_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Synthetic CAA files of two behaviours in upstream's layout, named by CAA_DATA_DIR."""
    for behaviour in ("refusal", "survival-instinct"):
        path = tmp_path / "test" / behaviour / "test_dataset_ab.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(ITEMS))
    monkeypatch.setenv("CAA_DATA_DIR", str(tmp_path))
    return tmp_path


class Planted(LM):
    """Answers every request with a score that a function makes of its document and option number."""

    def __init__(self, score) -> None:
        super().__init__()
        self.score = score

    def loglikelihood(self, requests):
        return [(self.score(request.doc, request.idx), False) for request in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def run(model, tasks: list[str], **kwargs):
    metadata = kwargs.pop("metadata", {})
    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False, metadata=metadata)
    return simple_evaluate(
        model=model, tasks=tasks, task_manager=manager, bootstrap_iters=0, log_samples=True, **kwargs
    )


pytestmark = pytest.mark.filterwarnings("ignore:.*has sha256:UserWarning")
LIKING = {"Yes, gladly": -1.0, "No, never": -3.0, "No": -0.5, "Yes, as long as it takes": -0.25, "Bad": -2.0,
          "Fine": -1.5, "I cannot say": -4.0}  # fmt: skip


@pytest.mark.usefixtures("caa_folder")
def test_letter_task_follows_the_text_not_the_letter() -> None:
    """A model that scores an option by its text gets the same score in every order, and no position bias on average."""
    results = run(Planted(lambda doc, index: LIKING[doc["options"][index]]), ["caa_refusal"])
    samples = results["samples"]["caa_refusal"]
    assert [sample["doc"]["order"] for sample in samples] == [0, 1, 0, 1, 0, 1, 2]
    expected = {0: 2.0, 1: 0.25, 2: -4.0 - math.log(math.exp(-2) + math.exp(-1.5))}
    for sample in samples:
        index = int(sample["doc"]["item_id"].rsplit("/", 1)[1])
        assert sample["logit_diff"] == pytest.approx(expected[index], abs=1e-9)
        assert sample["p_match"] == pytest.approx(1 / (1 + math.exp(-expected[index])), abs=1e-9)
        assert sample["match"] == (0.0 if index == 2 else 1.0)
    assert sum(sample["position_bias"] for sample in samples[:2]) == pytest.approx(0, abs=1e-12)
    assert caa_scores(samples)["refusal/test/001"] == pytest.approx(1 / (1 + math.exp(-0.25)))
    assert results["versions"]["caa_refusal"] == 1.0


@pytest.mark.usefixtures("caa_folder")
def test_letter_task_unmasks_a_model_that_always_says_a() -> None:
    results = run(Planted(lambda doc, index: -0.1 if index == 0 else -3.1), ["caa_refusal"], limit=4)
    scores = results["results"]["caa_refusal"]
    assert scores["logit_diff,none"] == pytest.approx(0, abs=1e-9)
    assert scores["p_match,none"] == pytest.approx(0.5)
    assert scores["match,none"] == pytest.approx(0.5)
    assert scores["position_bias,none"] == pytest.approx(1 / (1 + math.exp(-3)) - 0.5)
    assert scores["mass,none"] == pytest.approx(math.exp(-0.1) + math.exp(-3.1))


@pytest.mark.usefixtures("caa_folder")
@pytest.mark.parametrize("kind", ["gpt2", "cl100k", "sentencepiece"])
def test_letters_are_one_token_and_text_counts_are_lm_evals_own(kind: str, tmp_path_factory) -> None:
    folder = str(make_model(tmp_path_factory.mktemp(kind), kind))
    lm = HFLM(pretrained=folder, device="cpu", batch_size=4)
    tasks = ["caa_refusal", "caa_survival_instinct_text", "control_positivity"]
    for chat in (False, True):
        results = run(lm, tasks, apply_chat_template=chat, limit=6, metadata={"pretrained": folder})
        for sample in results["samples"]["caa_refusal"]:
            assert {len(lm._encode_pair(*arguments)[1]) for arguments in sample["arguments"]} == {1}
            assert 0 < sample["mass"] <= 1
        for task in tasks[1:]:
            for sample in results["samples"][task]:
                per_token = [
                    answer[0] / len(lm._encode_pair(*arguments)[1])
                    for answer, arguments in zip(sample["filtered_resps"], sample["arguments"], strict=True)
                ]
                match = per_token.pop(sample["doc"]["matching"])
                other = math.log(sum(map(math.exp, per_token)))
                assert sample["logit_diff_tok"] == pytest.approx(match - other, abs=1e-9)
        for task, metrics in zip(tasks, (LETTER_METRICS, TEXT_METRICS, TEXT_METRICS), strict=True):
            scores = results["results"][task]
            assert all(math.isfinite(scores[f"{metric},none"]) for metric in metrics)
            assert {key.split(",")[0] for key in scores if key.endswith(",none")} >= set(metrics)


def test_why_the_bracket_needs_a_blank_before_it() -> None:
    """Llama 3 and Qwen know "(A" as one token, so after a bare bracket nothing would be left to score."""
    tokenizer = make_tokenizer("cl100k")
    with pytest.raises(DataError, match="no token of its own"):
        count_answer_tokens(tokenizer, "<|im_start|>assistant\n(", "A")
    assert count_answer_tokens(tokenizer, "<|im_start|>assistant\nAnswer: (", "A") == 1


@pytest.mark.usefixtures("caa_folder")
def test_request_cache_and_second_run_give_the_same_scores(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path / "requests"))
    lm = HFLM(pretrained=str(model_folder), device="cpu", batch_size=4)
    runs = [
        run(lm, ["caa_refusal_text"], cache_requests=True, metadata={"pretrained": str(model_folder)})["results"]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


@pytest.mark.usefixtures("caa_folder")
def test_stock_hf_model_by_name_needs_no_more_than_its_model_arguments(model_folder: Path) -> None:
    arguments = {"pretrained": str(model_folder), "dtype": "float32"}
    results = run("hf", ["control_positivity"], model_args=arguments, metadata=arguments, device="cpu", limit=3)
    assert math.isfinite(results["results"]["control_positivity"]["logit_diff_tok,none"])


def test_without_a_tokenizer_the_run_ends_before_the_first_request() -> None:
    asked = []
    with pytest.raises(ConfigError, match=r"control_positivity .*--metadata"):
        run(Planted(lambda doc, index: asked.append(doc) or -1.0), ["control_positivity"], limit=2)
    assert not asked


def test_a_tokenizer_that_is_none_is_named(tmp_path: Path) -> None:
    metadata = {"pretrained": str(tmp_path / "nowhere")}
    with pytest.raises(ConfigError, match=r"cannot load a tokenizer from .*nowhere"):
        run(Planted(lambda doc, index: -1.0), ["control_positivity"], metadata=metadata)


def test_missing_files_end_the_run_with_the_folder_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAA_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"refusal/test_dataset_ab\.json.*CAA_DATA_DIR"):
        run(Planted(lambda doc, index: -1.0), ["caa_refusal"])


@pytest.mark.usefixtures("caa_folder")
def test_logits_that_are_no_numbers_are_not_scored() -> None:
    with pytest.raises(NonFiniteError, match="option 2 of 2"):
        run(Planted(lambda doc, index: math.nan if index else -1.0), ["caa_refusal"])


@pytest.mark.usefixtures("caa_folder")
@pytest.mark.parametrize("task", ["caa_refusal", "caa_refusal_text"])
def test_predict_only_asks_for_no_metric(task: str, model_folder: Path) -> None:
    results = run(
        Planted(lambda doc, index: -1.0), [task], predict_only=True, metadata={"pretrained": str(model_folder)}
    )
    assert results["samples"][task][0]["metrics"] in ([], ["bypass"])
