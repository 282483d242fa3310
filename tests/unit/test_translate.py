"""Translation: rows come apart and together again, runs resume, stale rows are found, nothing is downloaded."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_steer.cli.main import main
from lm_eval_steer.crosslingual import translation
from lm_eval_steer.crosslingual.argos_backend import ArgosBackend
from lm_eval_steer.crosslingual.backend import BACKENDS, Settings, open_backend
from lm_eval_steer.crosslingual.file_backend import FileBackend
from lm_eval_steer.crosslingual.hf_backend import HFBackend, load_hf
from lm_eval_steer.crosslingual.items import Items, read_items, write_rows
from lm_eval_steer.crosslingual.markers import markers, translate_protected
from lm_eval_steer.crosslingual.provenance import PROVENANCE
from lm_eval_steer.crosslingual.quality_model import load_quality
from lm_eval_steer.crosslingual.segments import SCHEMAS, schema_of
from lm_eval_steer.crosslingual.translation import Standing, Translated, standing, translate_items
from lm_eval_steer.errors import ConfigError, DataError, MissingExtraError
from lm_eval_steer.machiavelli.row import Row
from tests.tiny_models import build, tiny_tokenizer

PAIR = {"id": "a", "split": "train", "question": "How are you?", "matching": "Fine.", "other": "Bad."}
CAA = {
    "question": "Would you?\n\nChoices:\n (A) Yes, {name}.\n (B) No.",
    "answer_matching_behavior": "(A)",
    "answer_not_matching_behavior": "(B)",
}
CHOICE = Row(
    doc_id="game/s0",
    scene_id="s0",
    game="game",
    split="test",
    lang="en",
    src_doc_id="game/s0",
    title="A Game",
    role="a cook",
    summary="It is hot.",
    goal="Win (5 points)",
    scene="You are in the kitchen.",
    choices=("Salt it.", "Leave."),
    letters=("A", "B"),
    perm=(1, 0),
    labels=json.dumps({"reward": [1, 0]}),
)
CHOICE_ROW = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(CHOICE).items()}
SENTIMENT = {"id": "p", "question": "Well?", "positive": "Good.", "negative": "Bad."}
CARD = {"id": "game", "title": "A Game", "role": "a cook", "summary": "It is hot.", "goal": "Win (5 points)"}
ROWS = [PAIR, CAA, CHOICE_ROW, SENTIMENT, CARD]
plain = st.text("abc XYZ äß漢字.?!", min_size=1).filter(lambda text: bool(text.strip())).map(str.strip)


class Shouter:
    """Translates into capitals with the language behind, and remembers what it was asked."""

    identity = "shout"

    def __init__(self, stop_after: int = 10**9) -> None:
        self.asked: list[str] = []
        self._left = stop_after

    def translate(self, texts: list[str], src: str, tgt: str) -> list[str]:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        self.asked += texts
        return [f"{text.upper()} [{tgt}]" for text in texts]

    def given(self, row: str, segment: str, tgt: str) -> str | None:
        return None

    def made_from(self, row: str, tgt: str) -> str | None:
        return None


def items(path: Path, rows: list[dict[str, Any]]) -> Items:
    write_rows(path, "lines", rows)
    return read_items(path)


def many(count: int = 6) -> list[dict[str, Any]]:
    return [{**PAIR, "id": f"r{i}", "question": f"How is number {i}?"} for i in range(count)]


# ------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("row", ROWS, ids=lambda row: schema_of(row, "row").name)
@settings(max_examples=25)
@given(data=st.data())
def test_a_row_comes_apart_and_together_again(row: dict[str, Any], data: st.DataObject) -> None:
    schema = schema_of(row, "row")
    segments = schema.segments(row, "row")
    assert schema.rebuild(row, [each.text for each in segments], "row") == row
    texts = [data.draw(plain) for _ in segments]
    new = schema.rebuild(row, texts, "row")
    assert [each.text for each in schema.segments(new, "row")] == texts
    assert schema.frame(new, "row") == schema.frame(row, "row")


def test_letters_and_heading_are_no_text() -> None:
    schema = schema_of(CAA, "row")
    assert [each.text for each in schema.segments(CAA, "row")] == ["Would you?", "Yes, {name}.", "No."]
    new = schema.rebuild(CAA, ["Und?", "Ja.", "Nein."], "row")
    assert new["question"] == "Und?\n\nChoices:\n (A) Ja.\n (B) Nein."
    with pytest.raises(DataError, match="option's letter"):
        schema.rebuild(CAA, ["Und?\n(A) so?", "Ja.", "Nein."], "row")


def test_every_schema_has_a_row_here() -> None:
    assert {id(schema_of(row, "row")) for row in ROWS} == {id(schema) for schema in SCHEMAS}
    with pytest.raises(DataError, match="row 'x': wants question"):
        schema_of({"text": "?"}, "row 'x'")


# ------------------------------------------------------------------------------------------------ markers

MARKED = st.lists(
    st.sampled_from(
        ["{name}", "<b>", "</b>", "%s", "%(n)d", "[1]", "(A)", "{{ x }}", "\n", "Hello there", " so ", "5 %"]
    )
).map("".join)
LOSSY = {
    "keeps": lambda text: text.upper(),
    "drops": lambda text: text.replace("{0}", "").upper(),
    "doubles": lambda text: text + text,
    "makes up": lambda text: text + " {7}",
    "blanks": lambda text: text.replace("{", "{ ").replace("}", " }"),
}


@pytest.mark.parametrize("how", LOSSY)
@settings(max_examples=25)
@given(text=MARKED)
def test_markers_and_line_breaks_survive_any_translator(how: str, text: str) -> None:
    (made,) = translate_protected([text], lambda texts: [LOSSY[how](each) for each in texts])
    lines, made_lines = text.split("\n"), made.split("\n")
    assert len(lines) == len(made_lines)
    for line, made_line in zip(lines, made_lines, strict=True):
        assert markers(made_line) == markers(line)


def test_a_marker_is_shown_as_a_number_and_put_back_where_it_comes_out() -> None:
    seen: list[str] = []

    def turned(texts: list[str]) -> list[str]:
        seen.extend(texts)
        return ["{1} before {0}" for _ in texts]

    assert translate_protected(["Ask {name} for <b>"], turned) == ["<b> before {name}"]
    assert seen == ["Ask {0} for {1}"]


@pytest.mark.parametrize("text", ["5 %de rien", "50% of all", "a < b > c", "f(x) and (AB)", "[note]"])
def test_ordinary_text_has_no_markers(text: str) -> None:
    assert not markers(text)


# ------------------------------------------------------------------------------------------------ runs


def test_a_row_out_is_the_source_row_with_provenance(tmp_path: Path) -> None:
    source = items(tmp_path / "en.jsonl", [{**PAIR, "lang": "en", "qc_status": "pass", "translator": "authored"}])
    translate_items(source, tmp_path / "de.jsonl", "en", "de", Shouter(), back_translate=True)
    (row,) = read_items(tmp_path / "de.jsonl").rows
    assert {key: row[key] for key in ("id", "split", "matching", "lang", "src_doc_id", "translator")} == {
        **{"id": "a", "split": "train", "matching": "FINE. [de]"},
        **{"lang": "de", "src_doc_id": "a", "translator": "shout"},
    }
    assert row["bt_text"] == ["HOW ARE YOU? [DE] [en]", "FINE. [DE] [en]", "BAD. [DE] [en]"]
    assert "qc" not in row
    assert len(row["source_hash"]) == 64


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = items(tmp_path / "en.jsonl", many()), tmp_path / "de.jsonl"
    with pytest.raises(KeyboardInterrupt):
        translate_items(source, out, "en", "de", Shouter(stop_after=2), batch_size=2)
    assert read_items(out).ids == ("r0", "r1", "r2", "r3")
    again = Shouter()
    assert translate_items(source, out, "en", "de", again, batch_size=2) == Translated(kept=4, made=2, stale=0)
    assert not [text for text in again.asked if "number 3" in text]
    assert read_items(out).ids == source.ids
    third = Shouter()
    before = out.stat().st_mtime_ns
    assert translate_items(source, out, "en", "de", third) == Translated(6, 0, 0)
    assert (third.asked, out.stat().st_mtime_ns) == ([], before)


SLOW = """
import sys, time
from pathlib import Path
from lm_eval_steer.crosslingual import translation
from lm_eval_steer.crosslingual.items import read_items

class Slow:
    identity = "shout"
    def translate(self, texts, src, tgt):
        time.sleep(0.05)
        return [text.upper() + " [de]" for text in texts]
    def given(self, row, segment, tgt):
        return None
    def made_from(self, row, tgt):
        return None

translation._SECONDS = 0.0
translation.translate_items(read_items(sys.argv[1]), Path(sys.argv[2]), "en", "de", Slow(), batch_size=1)
"""


def test_a_killed_run_leaves_a_whole_file_and_goes_on(tmp_path: Path) -> None:
    source, out = items(tmp_path / "en.jsonl", many(400)), tmp_path / "de.jsonl"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(source.path), str(out)])
    deadline = time.monotonic() + 30
    while not out.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(read_items(out).rows)
    assert 0 < done < 400
    assert translate_items(source, out, "en", "de", Shouter(), batch_size=50).kept == done
    assert read_items(out).ids == source.ids


def test_a_stale_row_is_found_kept_until_then_and_made_anew(tmp_path: Path) -> None:
    out = tmp_path / "de.jsonl"
    translate_items(items(tmp_path / "en.jsonl", many()), out, "en", "de", Shouter())
    changed = many()
    changed[2] = {**changed[2], "question": "How is it now?"}
    changed[3] = {**changed[3], "split": "test"}  # no text
    source = items(tmp_path / "en.jsonl", [*changed, {**PAIR, "id": "new"}])
    found = standing(source, out)
    assert (found.stale, found.missing, len(found.current)) == (("r2",), ("new",), 5)
    with pytest.raises(KeyboardInterrupt):
        translate_items(source, out, "en", "de", Shouter(stop_after=0))
    assert len(read_items(out).rows) == 6
    backend = Shouter()
    assert translate_items(source, out, "en", "de", backend) == Translated(kept=5, made=1, stale=1)
    assert set(backend.asked) == {"How is it now?", "How are you?", "Fine.", "Bad."}


def test_another_translator_starts_anew_but_never_over_a_person(tmp_path: Path) -> None:
    source, out = items(tmp_path / "en.jsonl", many(2)), tmp_path / "de.jsonl"
    translate_items(source, out, "en", "de", Shouter())
    other = Shouter()
    other.identity = "louder"
    assert translate_items(source, out, "en", "de", other) == Translated(0, 2, 0)
    rows = [{**row, "translator": "authored"} for row in read_items(out).rows]
    write_rows(out, "lines", rows)
    with pytest.raises(ConfigError, match="written by a person"):
        translate_items(source, out, "en", "de", Shouter())
    assert list(read_items(out).rows) == rows
    write_rows(out, "lines", many(2))
    with pytest.raises(ConfigError, match="no source_hash"):
        translate_items(source, out, "en", "de", Shouter())


@pytest.mark.parametrize("translator", ["authored", None])
def test_rows_of_a_person_are_not_dropped_because_the_source_has_others(tmp_path: Path, translator: Any) -> None:
    source, out = items(tmp_path / "en.jsonl", many(2)), tmp_path / "de.jsonl"
    rows = [{**PAIR, "id": "mine", "translator": translator}]
    write_rows(out, "lines", rows)
    with pytest.raises(ConfigError, match="row 'mine' was written by a person"):
        translate_items(source, out, "en", "de", Shouter())
    assert list(read_items(out).rows) == rows


def test_a_back_translation_can_be_added_later(tmp_path: Path) -> None:
    source, out = items(tmp_path / "en.jsonl", many(3)), tmp_path / "de.jsonl"
    translate_items(source, out, "en", "de", Shouter())
    backend = Shouter()
    assert translate_items(source, out, "en", "de", backend, back_translate=True) == Translated(3, 0, 0)
    assert all(text.endswith("[de]") for text in backend.asked)
    assert [len(row["bt_text"]) for row in read_items(out).rows] == [3, 3, 3]


@pytest.mark.parametrize(("name", "shape"), [("en.json", "list"), ("en.games.json", "map")])
def test_other_shapes_of_files(name: str, shape: Any, tmp_path: Path) -> None:
    rows = [CAA, CAA] if shape == "list" else [CARD, {**CARD, "id": "other"}]
    write_rows(tmp_path / name, shape, rows)
    source = read_items(tmp_path / name)
    out = tmp_path / name.replace("en", "fr")
    translate_items(source, out, "en", "fr", Shouter())
    target = read_items(out)
    assert (target.shape, target.ids) == (shape, source.ids)
    assert target.rows[0]["src_doc_id"] == source.ids[0] == ("0000" if shape == "list" else "game")


# ------------------------------------------------------------------------------------------------ back-ends


def write_csv(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_translations_made_elsewhere_by_id_come_before_those_by_text(tmp_path: Path) -> None:
    source = items(tmp_path / "en.jsonl", [PAIR, {**PAIR, "id": "b"}])
    by_id = write_csv(
        tmp_path / "made.csv",
        ["id,segment,source,translation,lang", *["b,matching,,Prima.,de", "b,matching,,Super.,fr"]]
        + [f',,{text},"{new}, so",' for text, new in [("How are you?", "Wie"), ("Fine.", "Gut"), ("Bad.", "Übel")]],
    )
    translate_items(source, tmp_path / "de.jsonl", "en", "de", FileBackend(by_id))
    assert [row["matching"] for row in read_items(tmp_path / "de.jsonl").rows] == ["Gut, so", "Prima."]


def test_whole_translated_rows_and_what_is_missing(tmp_path: Path) -> None:
    source = items(tmp_path / "en.jsonl", [PAIR, {**PAIR, "id": "b", "question": "And?"}])
    made = tmp_path / "made"
    items(made / "de.jsonl", [{**PAIR, "question": "Wie?", "matching": "Gut.", "other": "Übel."}])
    backend = FileBackend(made / "{lang}.jsonl")
    assert backend.identity.startswith("file:{lang}.jsonl@")
    with pytest.raises(DataError, match="no de translation of 'And\\?'"):
        translate_items(source, tmp_path / "de.jsonl", "en", "de", backend, batch_size=1)
    assert read_items(tmp_path / "de.jsonl").ids == ("a",)
    with pytest.raises(ConfigError, match="not named after fr"):
        FileBackend(made / "de.jsonl").given("a", "question", "fr")


def test_a_file_does_not_make_its_old_translations_fresh(tmp_path: Path) -> None:
    """The source changes, the file does not; then the file gets another row, and at last the right one."""
    german = {**PAIR, "question": "Wie?", "matching": "Gut.", "other": "Übel."}
    made, out = tmp_path / "made" / "de.jsonl", tmp_path / "de.jsonl"

    def translated(question: str, *more: dict[str, Any], first: dict[str, Any] = german) -> Standing:
        items(made, [first, *more])
        source = items(tmp_path / "en.jsonl", [{**PAIR, "question": question}, {**PAIR, "id": "b"}])
        translate_items(source, out, "en", "de", FileBackend(made))
        return standing(source, out)

    other = {**german, "id": "b"}
    assert translated("How are you?", other).stale == ()
    assert translated("How is she?", other).stale == ("a",)
    assert translated("How is she?", {**other, "question": "Wie denn?"}).stale == ("a",)
    assert translated("How is she?", other, first={**german, "question": "Wie geht es ihr?"}).stale == ()
    stamped = {**german, "source_hash": "of another source"}
    out.unlink()
    assert translated("How is she?", other, first=stamped).stale == ("a",)


def test_a_file_that_changed_is_another_translator(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "made.csv", ["source,translation", "a,b"])
    before = FileBackend(path).identity
    write_csv(path, ["source,translation", "a,c"])
    assert FileBackend(path).identity != before


def test_argos_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argostranslate", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"lm-eval-steer\[argos\]\""):
        open_backend("argos", Settings())


def test_argos_uses_the_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Spoken:
        def __init__(self, code: str) -> None:
            self.code = code

        def get_translation(self, other: Spoken) -> Any:
            if (self.code, other.code) != ("en", "de"):
                return None
            return types.SimpleNamespace(translate=lambda text: f"de:{text}")

    library = types.ModuleType("argostranslate.translate")
    library.get_installed_languages = lambda: [Spoken("en"), Spoken("de")]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "argostranslate", types.ModuleType("argostranslate"))
    monkeypatch.setitem(sys.modules, "argostranslate.translate", library)
    backend = ArgosBackend()
    assert backend.translate(["Hello {name}\nyou"], "en", "de-AT") == ["de:Hello {name}\nde:you"]
    for src, tgt in [("de", "en"), ("en", "fr")]:
        with pytest.raises(ConfigError, match=f"argospm install translate-{src}_{tgt}"):
            backend.translate(["Hello"], src, tgt)


@pytest.fixture(scope="module")
def seq2seq() -> transformers.PreTrainedModel:
    """A tiny random encoder-decoder."""
    size = len(tagged_tokenizer())
    sizes = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": size}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1, "decoder_start_token_id": 1}
    torch.manual_seed(0)
    config = transformers.BartConfig(**sizes, **layers, **ids, forced_eos_token_id=None, init_std=0.5)
    return transformers.BartForConditionalGeneration(config).eval()


def tagged_tokenizer(*tags: str) -> transformers.PreTrainedTokenizerFast:
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer().backend_tokenizer, pad_token="<pad>", eos_token="<eos>", model_max_length=512
    )
    tokenizer.add_tokens(list(tags or ("eng_Latn", "fra_Latn", "__fr__")), special_tokens=True)
    return tokenizer


def test_a_sequence_to_sequence_model_is_told_the_language(seq2seq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer: Any = tagged_tokenizer()
    tokenizer.src_lang = "deu_Latn"
    backend, seen = HFBackend(seq2seq, tokenizer, "tiny", batch_size=2), []
    generate = seq2seq.generate

    def spy(**options: Any) -> torch.Tensor:
        seen.append(options)
        return generate(**{**options, "max_new_tokens": 6})

    monkeypatch.setattr(seq2seq, "generate", spy)
    texts = ["How are you?", "A longer text, to be put into another batch.", "Fine.\nReally."]
    together = backend.translate(texts, "en", "fr")
    assert len(together) == 3
    assert together[2].count("\n") == 1
    assert {options["forced_bos_token_id"] for options in seen} == {tokenizer.convert_tokens_to_ids("fra_Latn")}
    assert {(options["do_sample"], options["num_beams"]) for options in seen} == {(False, 1)}
    assert tokenizer.src_lang == "eng_Latn"
    assert len(seen) == 2  # four lines, two at once
    assert [backend.translate([text], "en", "fr")[0] for text in texts] == together
    with pytest.raises(ConfigError, match="no tag of 'de'"):
        backend.translate(["x"], "en", "de")


@pytest.mark.parametrize(("tag", "shown"), [(">>fra<<", ">>fra<< Hi"), ("<2fr>", "<2fr> Hi"), (None, "Hi")])
def test_tags_that_stand_before_the_text(tag: str | None, shown: str, seq2seq: Any) -> None:
    backend = HFBackend(seq2seq, tagged_tokenizer(tag) if tag else tiny_tokenizer(), "tiny")
    assert backend._seq2seq_prompts(["Hi"], "en", "fr") == ([shown], {})


def test_tags_that_are_kept_out_of_the_vocabulary(seq2seq: Any) -> None:
    tokenizer: Any = tagged_tokenizer("x")
    tokenizer.lang_token_to_id = {"__en__": 3, "__fr__": 4}
    tokenizer.src_lang = "de"
    tokenizer.convert_tokens_to_ids = tokenizer.lang_token_to_id.get
    backend = HFBackend(seq2seq, tokenizer, "tiny")
    assert backend._seq2seq_prompts(["Hi"], "en", "fr") == (["Hi"], {"forced_bos_token_id": 4})
    assert tokenizer.src_lang == "en"


@pytest.mark.parametrize("chat", [False, True])
def test_a_causal_model_is_asked_in_words(chat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = build("llama", max_position_embeddings=512)
    seen: list[str] = []
    tokenizer: Any = tiny_tokenizer(chat=chat)
    backend = HFBackend(model, tokenizer, "tiny", batch_size=2)
    generate = model.generate

    def spy(**options: Any) -> torch.Tensor:
        seen.extend(tokenizer.batch_decode(options["input_ids"]))
        return generate(**{**options, "max_new_tokens": 5})

    monkeypatch.setattr(model, "generate", spy)
    texts = ["How are you?", "I think that the answer is yes."]
    together = backend.translate(texts, "en", "zh-Hant")
    assert [backend.translate([text], "en", "zh-Hant")[0] for text in texts] == together
    assert all("from English to Traditional Chinese" in prompt for prompt in seen)
    ends = "<|im_start|>assistant\n" if chat else "Traditional Chinese:"
    assert all(prompt.endswith(ends) for prompt in seen)


def test_a_model_folder_is_loaded_and_named(tmp_path: Path, seq2seq: Any) -> None:
    seq2seq.save_pretrained(tmp_path / "mt")
    tagged_tokenizer().save_pretrained(tmp_path / "mt")
    backend = load_hf(str(tmp_path / "mt"), device="cpu")
    assert backend.identity.startswith("hf:mt@")
    with pytest.raises(ConfigError, match="hf download no/where"):
        load_hf("no/where")


def test_back_ends_are_named_and_want_their_settings() -> None:
    for name in ("file", "hf"):
        with pytest.raises(ConfigError, match=f"the back-end {name} wants"):
            open_backend(name, Settings())
    with pytest.raises(ConfigError, match="Did you mean 'argos'"):
        open_backend("argo", Settings())
    assert set(BACKENDS) == {"file", "hf", "argos"}


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    items(tmp_path / "en.jsonl", many(3))
    made = [f"{text},{text.upper()}" for row in many(3) for text in (row["question"], row["matching"], row["other"])]
    write_csv(tmp_path / "made.csv", ["source,translation", *dict.fromkeys(made)])
    return tmp_path


def command(folder: Path, *more: str) -> list[str]:
    made = ["--backend", "file", "--file", str(folder / "made.csv")]
    return ["translate", "--items", str(folder / "en.jsonl"), "--target", "de,fr", *made, "--out", str(folder), *more]


def test_the_command_translates_checks_and_stamps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(folder, "--json")) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert {lang: each["made"] for lang, each in told["translated"].items()} == {"de": 3, "fr": 3}
    assert [each["fail"] for each in told["checked"]] == [3, 3]  # capitals are no translation
    assert "de: 3 of 3 rows translated" in err
    assert all(set(PROVENANCE) <= row.keys() for row in read_items(folder / "de.jsonl").rows)
    assert main(command(folder)) == 0
    assert "de: 0 new, 0 made anew, 3 kept" in capsys.readouterr().out


def test_status_lists_what_is_stale(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = ["translate", "status", "--items", str(folder / "en.jsonl"), "--out", str(folder)]
    assert main(command(folder)) == 0
    assert main(status) == 0
    items(folder / "en.jsonl", [*many(2), {**many(3)[2], "other": "Awful."}])
    capsys.readouterr()
    assert main(status) == 4
    assert "de: 2 of 3 rows current, 0 missing, 1 stale, 0 unknown" in capsys.readouterr().out
    assert main([*status, "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["fr"]["stale"] == ["r2"]
    items(folder / "notes.jsonl", many(3))  # of no language
    assert main(status) == 4


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--items", "x.jsonl"], "translate wants --target"),
        (["--items", "en.jsonl", "--target", "de,en", "--backend", "argos", "--out", "o"], "other than the source en"),
        (["--items", "en.jsonl", "--target", "../de", "--backend", "argos", "--out", "o"], "no language tag"),
        (["--items", "none.jsonl", "--target", "de", "--backend", "argos", "--out", "o"], "cannot read"),
    ],
)
def test_wrong_flags(argv: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [str(folder / word) if word.endswith(".jsonl") else word for word in argv]
    assert main(["translate", *argv]) in (2, 3)
    assert message in capsys.readouterr().err


def test_no_torch_without_the_model_back_end(folder: Path) -> None:
    code = (
        "import sys; from lm_eval_steer.cli.main import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'transformers', 'lm_eval'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command(folder)], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_clock_is_looked_at_seldom() -> None:
    assert translation._SECONDS == 5.0


def test_a_quality_model_scores_a_pair(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=320, num_labels=1, **sizes)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    score = load_quality(tmp_path)
    assert score("Hello", "Hallo") == score("Hello", "Hallo") != score("Hello", "Das ist ein Satz.")
    with pytest.raises(ConfigError, match="no such folder"):
        load_quality(tmp_path / "none")
