"""Alignment of a model's languages: planted states are found, and the command writes what compare reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_steer.cli.main import main
from lm_eval_steer.crosslingual.alignment import hidden_states, precision, precision_at_1, read_parallel, vector_cosines
from lm_eval_steer.errors import ConfigError, DataError, InputError
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.stats.crosslingual.alignment import find, read_alignments
from lm_eval_steer.vector import Provenance, SteeringVector
from tests.tiny_models import LAYERS, WIDTH, build, shared, shared_layout, tiny_tokenizer, token_rows

ITEMS = {
    "en": ["the fox is quick", "a lazy dog", "yes or no", "the answer"],
    "fr": ["le renard est rapide", "un chien paresseux", "oui ou non", "la réponse"],
}


def states(n: int, noise: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """Items that both languages have, each language far from the other, with noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 32, generator=generator)
    return {
        tag: common + 50.0 * at + noise * torch.randn(n, 32, generator=generator) for at, tag in enumerate(("en", "fr"))
    }


def write_items(folder: Path, rows: dict[str, list[str]]) -> Path:
    folder.mkdir()
    for tag, texts in rows.items():
        lines = [
            json.dumps({"id": f"i{at}", "split": "test", "question": text, "matching": "a", "other": "b"})
            for at, text in enumerate(texts)
        ]
        (folder / f"{tag}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_what_languages_share_is_found_and_their_offset_is_not_in_the_way() -> None:
    assert precision(states(30, 0.1)) == {"en": {"fr": 1.0}, "fr": {"en": 1.0}}


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 40), st.integers(0, 999))
def test_unrelated_states_are_found_by_chance_only(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    unrelated = {tag: torch.randn(n, 32, generator=generator) for tag in ("en", "fr")}
    found = precision(unrelated)["en"]["fr"]
    assert found * n <= 6 + n / 10  # Poisson with mean 1; more than 6 of 40 has p < 1e-4
    assert (found * n) == pytest.approx(round(found * n))


def test_a_tie_is_no_find() -> None:
    assert precision_at_1(torch.ones(4, 4)) == 0.0
    assert precision({"en": torch.ones(4, 8), "fr": torch.ones(4, 8)})["en"]["fr"] == 0.0


def test_states_are_means_over_all_tokens_but_the_first() -> None:
    model, layout, tokenizer = shared("llama"), shared_layout("llama"), tiny_tokenizer()
    found = hidden_states(model, tokenizer, layout, ITEMS, (0, 2))
    ids = torch.tensor([tokenizer.encode(ITEMS["fr"][1])])
    with torch.no_grad():
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
    assert found["fr"].shape == (4, 2, WIDTH)
    torch.testing.assert_close(found["fr"][1, 1], hidden[3][0, 1:].mean(0), rtol=1e-4, atol=1e-5)


def test_only_items_of_all_languages_are_read(tmp_path: Path) -> None:
    folder = write_items(tmp_path / "joy", {**ITEMS, "de": ["eins", "zwei", "drei"]})
    found = read_parallel(str(folder))
    assert (found.family, found.ids, found.left_out) == ("joy", ("i0", "i1", "i2"), {"en": 1, "de": 0, "fr": 1})
    assert list(read_parallel(str(folder), ["fr", "en"]).texts) == ["fr", "en"]


def test_too_little_is_refused(tmp_path: Path) -> None:
    folder = write_items(tmp_path / "joy", {"en": ["one", "two"], "fr": ["un"]})
    with pytest.raises(ConfigError, match="two or more"):
        read_parallel(str(folder), ["en"])
    with pytest.raises(DataError, match="1 items"):
        read_parallel(str(folder))
    (folder / "fr.jsonl").write_text('{"id": "i0", "split": "test"}\n')
    with pytest.raises(DataError, match="question"):
        read_parallel(str(folder))


def test_the_packaged_families_can_be_read() -> None:
    found = read_parallel("xl_positivity", ["en", "fr"])
    assert found.family == "positivity"
    assert len(found.ids) >= 60
    assert found.texts["en"] != found.texts["fr"]


def test_cosines_of_vectors_by_layer() -> None:
    a, b = (
        SteeringVector(name, {Hookpoint(Site.BLOCK_OUT, at): row for at, row in rows.items()}, Provenance("caa"))
        for name, rows in (
            ("a", {1: torch.tensor([1.0, 0.0]), 2: torch.tensor([1.0, 1.0])}),
            ("b", {2: torch.tensor([2.0, 0.0]), 3: torch.tensor([1.0, 0.0])}),
        )
    )
    (only,) = vector_cosines([a, b])
    assert (only["layer"], only["a"], only["cosine"]) == (2, a.id, pytest.approx(0.5**0.5))


def test_the_command_writes_what_compare_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, place, out = write_items(tmp_path / "joy", ITEMS), tmp_path / "model", tmp_path / "alignment.json"
    build("llama").save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    made = [_vector(tmp_path / f"{tag}.safetensors", seed) for seed, tag in enumerate(ITEMS)]
    words = ["align", "--pretrained", str(place), "--family", str(folder), "--out", str(out)]
    assert main([*words, "--vectors", ",".join(str(tmp_path / f"{tag}.safetensors") for tag in ITEMS)]) == 0
    assert "en fr:" in capsys.readouterr().out
    (found,) = read_alignments([out])
    assert (found.family, found.items, sorted(found.precision)) == ("joy", 4, list(range(LAYERS)))
    assert found.cosines[1, made[0].id, made[1].id] == found.cosines[1, made[1].id, made[0].id]
    assert find([found], {"fingerprint": dict(found.fingerprint)}, "joy") is found
    assert find([found], {"fingerprint": {"config": "x", "weights": "y"}}, "joy") is None
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    (tmp_path / "again.json").write_bytes(out.read_bytes())
    with pytest.raises(InputError, match=r"again\.json and .*alignment\.json are both of the family 'joy'"):
        read_alignments([out, tmp_path / "again.json"])


def _vector(path: Path, seed: int) -> SteeringVector:
    row = token_rows(1, WIDTH, seed)[0].float()
    vector = SteeringVector(path.stem, {Hookpoint(Site.BLOCK_OUT, 1): row}, Provenance("caa"))
    save_vector(vector, path)
    return vector
