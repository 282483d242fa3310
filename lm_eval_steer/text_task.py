"""The lm-eval task class of full-text answers: it knows how many tokens each answer has.

Nats per token need the number of tokens that lm-eval really scored. ``process_results`` gets neither the tokenizer
nor the request, and the count depends on the request: a chat template that ends in a newline makes that newline the
first token of the answer. So the count is taken from the finished requests, the way ``TemplateLM._encode_pair``
splits them: white space at the end of the context belongs to the answer, and the answer is what the encoding of
both together has beyond the encoding of the context.

The tokenizer is the one that the model's own arguments name, which lm-eval hands to every task as ``metadata``:
``tokenizer`` if it is given, else ``pretrained``, with ``revision``, ``subfolder``, ``trust_remote_code``,
``use_fast_tokenizer`` and ``gguf_file``. The counts are therefore the same for ``--model hf`` and for
``--model steered_hf``. Where no model arguments exist (an LM object was passed, or an API is asked) the run ends
before the first request, with a message that says what to pass; a count is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.task import ConfigurableTask

from lm_eval_steer.errors import ConfigError, DataError
from lm_eval_steer.measured import MeasuredText

_HOW = (
    'Name the model\'s tokenizer: `--metadata \'{"tokenizer": "NAME_OR_FOLDER"}\'` on the command line; in Python '
    'simple_evaluate(..., metadata={"tokenizer": ...}), or TaskManager(metadata={"tokenizer": ...}) where you make '
    "the task manager yourself."
)


class TextChoiceTask(ConfigurableTask):  # type: ignore[misc]  # lm_eval has no types
    """A ``multiple_choice`` task whose documents reach ``process_results`` with ``answer_tokens``.

    In a task's YAML: ``class: !function lm_eval_steer.text_task.TextChoiceTask``. Documents need ``item_id`` and
    ``order``, which together are unique. With ``kl: true`` in the YAML's ``metadata`` a ``steered_hf`` model answers
    with log-probabilities that know their KL, see :class:`lm_eval_steer.measured.LogProb`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        # lm-eval passes the YAML as it stands; its TaskConfig has no field for the class that it named.
        super().__init__(config={key: value for key, value in config.items() if key != "class"})
        self._tokenizer: Any = None
        self._counts: dict[tuple[str, str], int] = {}
        self._answer_tokens: dict[tuple[str, int], list[int]] = {}

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the requests as lm-eval does, then count the tokens of every answer in them.

        Raises:
            ConfigError: no tokenizer is named, or the one named cannot be loaded.
            DataError: an answer has no token of its own.
        """
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.config.metadata or {}, str(self.config.task))
        super().build_all_requests(**kwargs)
        self._answer_tokens = {}
        # Requests that come from lm-eval's request cache were never constructed here: read them, hook nothing.
        for request in sorted(self.instances, key=lambda each: each.idx):
            counts = self._answer_tokens.setdefault(_key(request.doc), [])
            counts.append(self._count(*request.args[:2]))

    def construct_requests(self, doc: Mapping[str, Any], ctx: str, **kwargs: Any) -> list[Any]:
        """Return lm-eval's requests of a document; with ``kl: true`` their texts are marked."""
        requests: list[Any] = super().construct_requests(doc, ctx, **kwargs)
        if (self.config.metadata or {}).get("kl") is True:
            for request in requests:
                request.arguments = (request.arguments[0], MeasuredText(request.arguments[1]))
        return requests

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
        """Return the YAML's ``process_results`` of the document with its ``answer_tokens``."""
        scores: dict[str, float] = super().process_results(
            {**doc, "answer_tokens": self._answer_tokens[_key(doc)]}, results
        )
        return scores

    def _count(self, context: str, answer: str) -> int:
        if (context, answer) not in self._counts:
            self._counts[context, answer] = count_answer_tokens(self._tokenizer, context, answer)
        return self._counts[context, answer]


def count_answer_tokens(tokenizer: Any, context: str, answer: str) -> int:
    """Return how many tokens lm-eval scores for ``answer`` after ``context``.

    ``len(encode(context + answer)) − len(encode(context without its trailing white space))``, as in
    ``lm_eval.api.model.TemplateLM._encode_pair`` for causal models. Special tokens at the ends are the same in both
    terms and cancel.

    Raises:
        DataError: the answer melts into the context's last token, so lm-eval has nothing to score.
    """
    whole = tokenizer.encode(context + answer, add_special_tokens=False)
    before = tokenizer.encode(context.rstrip(), add_special_tokens=False)
    count = len(whole) - len(before)
    if count < 1:
        raise DataError(
            f"the answer {answer[:60]!r} has no token of its own after {context[-40:]!r}: this tokenizer joins the "
            "two. Let the context end in another character."
        )
    return count


def load_tokenizer(metadata: Mapping[str, Any], task: str) -> Any:
    """Return the tokenizer that the model's arguments name, loaded as ``lm_eval.models.huggingface.HFLM`` loads it.

    Args:
        metadata: the task's metadata, into which lm-eval has merged the model's arguments.
        task: the task's name, for the message.

    Raises:
        ConfigError: no tokenizer is named, or the one named cannot be loaded.
    """
    named = metadata.get("tokenizer") or metadata.get("pretrained")
    if named is None:
        raise ConfigError(f"{task} scores nats per token and was not told the model's tokenizer. {_HOW}")
    if not isinstance(named, str):
        if hasattr(named, "encode"):
            return named
        named = named.name_or_path
    options: dict[str, Any] = {
        "revision": metadata.get("revision", "main"),
        "trust_remote_code": metadata.get("trust_remote_code", False),
    }
    if metadata.get("gguf_file") and not metadata.get("tokenizer"):
        options["gguf_file"] = metadata["gguf_file"]
    else:
        options["use_fast"] = metadata.get("use_fast_tokenizer", True)
    if metadata.get("subfolder"):
        options["subfolder"] = metadata["subfolder"]
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(named, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{task} cannot load a tokenizer from {named!r}: {error} {_HOW}") from error


def _key(doc: Mapping[str, Any]) -> tuple[str, int]:
    return str(doc["item_id"]), int(doc["order"])
