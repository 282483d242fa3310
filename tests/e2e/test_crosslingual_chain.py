"""Languages end to end on a tiny model: extract in each, sweep over all, and read the planted transfer matrix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_steer.cli.main import main
from lm_eval_steer.parallel_rows import FOLDER_VARIABLE
from tests.tiny_models import LAYERS, build, tiny_tokenizer

ITEMS, NULLS = 12, 19
# The matching and the other answer. The embeddings of other words have nothing to do with those of the English ones.
SAME, OTHER = ("qq", "zz"), ("jj", "ww")


def write_family(folder: Path, answers: dict[str, tuple[str, str]]) -> None:
    """The packaged family positivity with rows of our own: other words around the items of each language."""
    (folder / "positivity").mkdir(parents=True)
    for language, (matching, other) in answers.items():
        rows = [
            {"id": f"{split}-{at}", "split": split, "question": f"{language} {'so ' * (at % 4)}{at}?"}
            | {"matching": matching, "other": other}
            for split in ("train", "test")
            for at in range(ITEMS)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "positivity" / f"{language}.jsonl").write_text(lines, encoding="utf-8")


def whispering() -> Any:
    """A model whose blocks add little to the embeddings that it reads its answers with: a word's direction says it."""
    made = build("llama", tie_word_embeddings=True)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(0.05)
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    whispering().save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    return place


def transfer(
    place: Path, model: Path, answers: dict[str, tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> dict[tuple[str, str], Any]:
    """Run the chain and return the transfer matrix that ``compare`` prints."""
    write_family(place / "data", answers)
    vectors = []
    for language in answers:
        vectors.append(place / f"v_{language}.safetensors")
        words = ["--pretrained", model, "--pairs", f"xl_positivity_{language}", "--layers", LAYERS - 1]
        assert main(["extract", *map(str, words), "--out", str(vectors[-1])]) == 0
    tasks = ",".join(f"xl_positivity_{language}" for language in answers)
    flags = {"pretrained": model, "vector": ",".join(map(str, vectors)), "layers": LAYERS - 1, "tasks": tasks}
    flags |= {"multipliers": "-0.1,0.1", "scope": "all", "nulls": f"random:{NULLS}", "ledger": place / "ledger"}
    assert main(["sweep", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    capsys.readouterr()
    assert main(["compare", str(place / "ledger"), "--format", "json"]) == 0
    (family,) = json.loads(capsys.readouterr().out)["crosslingual"]["families"]
    assert (family["family"], family["scaffold"], family["items"]) == ("positivity", "english", ITEMS)
    assert family["model"]["parameters"] == sum(
        p.numel() for p in build("llama", tie_word_embeddings=True).parameters()
    )
    (found,) = family["places"][0]["layers"][0]["transfers"]
    return {(cell["source"], cell["language"]): cell for cell in found["cells"]}


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "orthogonal"])
def test_the_planted_matrix_is_read(
    tmp_path: Path,
    model: Path,
    shared: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "data"))
    found = transfer(tmp_path, model, {"en": SAME, "fr": SAME if shared else OTHER}, capsys)
    for (source, language), cell in found.items():
        assert cell["nulls"] == NULLS
        if source == language or shared:
            assert cell["ratio"]["value"] == pytest.approx(1.0, abs=0.05)
            assert cell["beyond_null"] is True
        else:
            assert cell["beyond_null"] is False
