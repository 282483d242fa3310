"""``report --inspect``: what the command really prints comes back on the page, and nothing else passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_steer.cli import main as cli
from lm_eval_steer.errors import EXIT_INPUT, EXIT_OK, InputError
from lm_eval_steer.extraction.pair_source import read_source
from lm_eval_steer.formats.native import save_vector
from lm_eval_steer.inspection.views import Wanted, inspect_vectors
from lm_eval_steer.report.inspect_file import read_inspect_file
from lm_eval_steer.report.inspection import inspection_sections
from lm_eval_steer.report.scene import Box, Dot
from tests.curve_tools import write_ledger
from tests.report_tools import Element, parse
from tests.steer_tools import direction
from tests.tiny_models import LAYERS, shared, shared_layout, tiny_tokenizer
from tests.unit.test_cli_report import in_python
from tests.unit.test_inspect import sae, vector

Content = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger, and the JSON of two vectors at every layer, with pairs and an SAE."""
    path = tmp_path_factory.mktemp("inspected")
    write_ledger(path / "sweep", {"joy": 0.8}, multipliers=(-1.0, 0.0, 1.0), n=12)
    words = ("fox", "dog", "lazy", "brown")
    rows = [{"question": f"How is the {w}?", "positive": f"yes the {w}", "negative": f"no {w}"} for w in words]
    (path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    decoder = sae(path / "layers.2", torch.stack([direction(seed) for seed in range(20)]))
    wanted = Wanted(2, (1, 2), "How are you?", 4, read_source(str(path / "pairs.jsonl")), decoder, 3)
    vectors = [vector(name, *range(number, number + LAYERS)) for number, name in enumerate(("one", "<b>two"))]
    for number, each in enumerate(vectors):
        save_vector(each, path / f"{number}.safetensors")
    found = inspect_vectors(shared("llama"), tiny_tokenizer(), shared_layout("llama"), vectors, wanted)
    (path / "inside.json").write_text(json.dumps(found.to_dict(), ensure_ascii=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def content(folder: Path) -> Content:
    found: Content = json.loads((folder / "inside.json").read_text(encoding="utf-8"))
    return found


def page(folder: Path, out: Path, *files: str) -> Element:
    code = cli.main(
        ["report", str(folder / "sweep"), "--out", str(out), "--inspect", *(str(folder / f) for f in files)]
    )
    assert code == EXIT_OK
    return parse(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def section(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Element:
    root = page(folder, tmp_path_factory.mktemp("pages") / "r.html", "inside.json")
    (found,) = root.find("section", **{"aria-labelledby": "inspect-1"})
    return found


def cells(section: Element, title: str) -> list[list[str]]:
    """The body of the table with this name, a text a cell."""
    (region,) = section.find("div", **{"aria-label": title})
    return [[cell.text for cell in row.children] for row in region.find("tbody")[0].find("tr")]


def test_every_view_is_there(section: Element) -> None:
    assert section.find("h2")[0].text == "Inside one, <b>two"
    of_one = ("Words of {}", "Leakage of {}", "Components of the pairs of {}", "{} as rows of layers.2")
    wanted = [text.format(f"{name} at block_out.2") for name in ("one", "<b>two") for text in of_one]
    pictures = [
        "Norms and relative doses by layer",
        "Cosines among vectors and layers",
        "Logit lens by layer, unsteered",
    ]
    assert [head.text for head in section.find("h3")] == [*pictures, *wanted, "What was looked at"]
    assert not section.find("b")


def test_words_leaks_components_and_rows_are_those_of_the_file(section: Element, content: Content) -> None:
    view = content["vectors"][0]
    words = cells(section, "Words of one at block_out.2")
    assert [row[0] for row in words] == ["E·v", "E·(−v)", "E·N(v)", "E·N(−v)"]
    first = view["decoded"][0]["tokens"][0]
    assert words[0][1].split()[-1] == f"{first['score']:.2f}"
    leaks = cells(section, "Leakage of one at block_out.2")[0][1:]
    assert [text.replace("−", "-") for text in leaks] == [f"{leak['z']:+.2f}" for leak in view["leaks"]]
    parts = cells(section, "Components of the pairs of one at block_out.2")
    shares = [part["share"] for each in view["singular"] for part in each["components"]]
    assert [float(row[1]) for row in parts] == pytest.approx(shares, abs=0.006)
    rows = cells(section, "one at block_out.2 as rows of layers.2")
    assert [[int(row[0]), float(row[1].replace("−", "-"))] for row in rows] == [
        [number, pytest.approx(coefficient, abs=1e-3)] for number, coefficient in view["features"]["features"]
    ]
    assert "Effect on the pairs, nats a token" in section.text


def test_norms_cosines_and_lens_are_drawn_and_told(folder: Path, content: Content) -> None:
    (found,) = inspection_sections([read_inspect_file(folder / "inside.json")])
    sizes, cosines, lens = found.pictures
    assert sum(isinstance(mark, Dot) and bool(mark.about) for mark in sizes.scene.marks) == 2 * 2 * LAYERS
    assert [row[2] for row in sizes.numbers.rows] == [f"{row['norm']:.3f}" for row in content["norms"]]
    assert sum(isinstance(mark, Box) for mark in cosines.scene.marks) == 4 * 4
    assert [row[i + 1] for i, row in enumerate(cosines.numbers.rows)] == ["+1.000"] * 4
    assert [row[2] for row in lens.numbers.rows] == [f"{row['kl']:.3f}" for row in content["lens"]]
    assert len(lens.numbers.rows) == LAYERS


def test_without_pairs_sae_and_second_vector_their_parts_are_missing(folder: Path, content: Content) -> None:
    view = {**content["vectors"][0], "singular": [], "features": None, "leaks": []}
    alone = {"labels": ["one@block_out.2"], "values": [[1.0]], "reliability": [None]}
    (folder / "little.json").write_text(json.dumps({**content, "vectors": [view], "cosines": alone}), encoding="utf-8")
    (found,) = inspection_sections([read_inspect_file(folder / "little.json")])
    assert [title for title, *_ in found.tables] == ["Words of one at block_out.2", "What was looked at"]
    assert [picture.name for picture in found.pictures] == ["inspect-1-sizes", "inspect-1-lens"]


def test_several_files_are_several_parts_and_every_link_leads_somewhere(folder: Path, tmp_path: Path) -> None:
    root = page(folder, tmp_path / "r.html", "inside.json", "inside.json")
    ids = [element.attributes["id"] for element in root.walk() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    assert {link.attributes["href"] for link in root.find("a")} >= {"#inspect-1", "#inspect-2"}
    assert page(folder, tmp_path / "s.html", "inside.json", "inside.json").text == root.text


def test_pictures_are_files_too(folder: Path, tmp_path: Path) -> None:
    words = ["report", str(folder / "sweep"), "--out", str(tmp_path / "r.html"), "--figures", str(tmp_path / "figures")]
    assert cli.main([*words, "--inspect", str(folder / "inside.json")]) == EXIT_OK
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {f"inspect-1-{what}.svg" for what in ("sizes", "cosines", "lens")} < names


Break = Callable[[Content], object]


@pytest.mark.parametrize(
    "broken",
    [
        lambda found: [],
        lambda found: {**found, "vectors": None},
        lambda found: {key: value for key, value in found.items() if key != "lens"},
        lambda found: {**found, "cosines": {**found["cosines"], "values": [[1.0]]}},
        lambda found: {**found, "norms": [{**found["norms"][0], "point": "nowhere"}]},
        lambda found: {**found, "norms": [{**found["norms"][0], "norm": "much"}]},
    ],
)
def test_what_inspect_did_not_print_is_refused(content: Content, tmp_path: Path, broken: Break) -> None:
    (tmp_path / "x.json").write_text(json.dumps(broken(content)), encoding="utf-8")
    with pytest.raises(InputError, match="inspect VECTOR --pretrained MODEL --json"):
        read_inspect_file(tmp_path / "x.json")


def test_a_missing_file_writes_no_page(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", str(folder / "sweep"), "--out", str(tmp_path / "r.html"), "--inspect", str(tmp_path / "no.json")]
    assert cli.main(words) == EXIT_INPUT
    assert "no.json" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_neither_torch_nor_lm_eval_is_needed(folder: Path, tmp_path: Path) -> None:
    done = in_python("", folder / "sweep", "--out", tmp_path / "r.html", "--inspect", folder / "inside.json")
    assert (done.returncode, done.stdout.split()) == (EXIT_OK, [])
