"""The "say Yes" direction: which answers say yes, and the cosine of a planted one."""

from __future__ import annotations

import pytest
import torch

from lm_eval_steer.extraction.base import PairActivations
from lm_eval_steer.extraction.extract import Extraction, Options, extract
from lm_eval_steer.extraction.pair_source import PairItem, PairSource
from lm_eval_steer.extraction.pairs import ContrastPair, letter_pairs
from lm_eval_steer.extraction.statistics import cosines
from lm_eval_steer.extraction.yes import yes_direction, yes_sign
from lm_eval_steer.hookpoint import Hookpoint, Site
from tests.tiny_models import WIDTH, build, tiny_tokenizer

YES_AND_NO = [(1, ("Yes, I would.", "No.")), (-1, ("no", "yes")), (1, ('"Yes"', "'No'")), (1, (" YES!", "No, never"))]
NEITHER = [("Yes", "Never"), ("Yes", "yes"), ("Yesterday", "No"), ("I say yes", "No"), ("Yes", "Nothing"), ("A", "B")]

every_answer = pytest.mark.parametrize(("sign", "answers"), [*YES_AND_NO, *((0, answers) for answers in NEITHER)])


@every_answer
def test_the_sign_of_a_text(sign: int, answers: tuple[str, str]) -> None:
    assert yes_sign(ContrastPair("0", "0", "prompt", "", *answers, "text")) == sign


@every_answer
def test_the_sign_of_a_letter_is_that_of_its_text_in_both_orders(sign: int, answers: tuple[str, str]) -> None:
    pairs = letter_pairs(PairSource("s", (PairItem("0", "q", "q", *answers),))).pairs
    assert [pair.positive for pair in pairs] == ["A)", "B)"]
    assert [yes_sign(pair) for pair in pairs] == [sign, sign]


def activations(items: list[int], yes: list[float] | None) -> tuple[PairActivations, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    positive, negative = torch.randn(2, len(items), 1, WIDTH, generator=generator)
    marks = None if yes is None else torch.tensor(yes)
    points = (Hookpoint(Site.BLOCK_OUT, 0),)
    return PairActivations(points, positive, negative, torch.tensor(items), None, marks), positive - negative


def test_the_direction_is_the_signed_mean_of_the_marked_pairs() -> None:
    found, d = activations([0, 1, 2, 3], [1, -1, 0, 1])
    torch.testing.assert_close(yes_direction(found), (d[0] - d[1] + d[3]) / 3)
    torch.testing.assert_close(yes_direction(found.subset(torch.tensor([True, True, False, False]))), (d[0] - d[1]) / 2)


@pytest.mark.parametrize(("items", "yes"), [([0, 1], None), ([0, 1], [0, 0]), ([0, 1], [1, 0]), ([0, 0, 1], [1, 1, 0])])
def test_there_is_none_of_fewer_than_two_items(items: list[int], yes: list[float] | None) -> None:
    assert yes_direction(activations(items, yes)[0]) is None


# The whole way, on embeddings in which yes differs from no by a known amount, and A from B by another

P, B = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(3))


def extracted(signs: list[int]) -> Extraction:
    """Extract at the embeddings from items whose matching answer says yes (1), no (−1) or neither (0), and then A."""
    model, tokenizer = build("llama"), tiny_tokenizer()
    table = model.get_input_embeddings().weight
    changed = [
        pair for pair in zip(tokenizer.encode(" yes (A"), tokenizer.encode(" no (B"), strict=True) if len(set(pair)) > 1
    ]
    assert len(changed) == 3  # two tokens of yes, one of A
    with torch.no_grad():
        for (one, two), difference in zip(changed, (P, P, B), strict=True):
            table[one] = table[two] + difference
    words = {1: ("yes ", "no "), -1: ("no ", "yes "), 0: ("", "")}
    items = [
        PairItem(str(k), "q", f"{k}?\nAnswer:", f"{words[sign][0]}(A", f"{words[sign][1]}(B")
        for k, sign in enumerate(signs)
    ]
    return extract(model, tokenizer, PairSource("planted", tuple(items)), Options(site=Site.BLOCK_IN, layers=[0]))


@pytest.mark.parametrize("signs", [[1, 1, -1, -1], [1, 1, 1, -1], [1, -1, -1, 0], [1, 1, 1], [-1, -1, -1]])
def test_the_cosine_is_that_of_what_was_planted(signs: list[int]) -> None:
    found = extracted(signs)
    differences = [(2 * sign * P + B) / 4 if sign else B / 2 for sign in signs]  # means over four tokens, or two
    vector = torch.stack(differences).mean(0)
    yes = torch.stack([sign * d for sign, d in zip(signs, differences, strict=True) if sign]).mean(0)
    wanted = float(cosines(vector[None], yes[None]))
    assert found.statistics[0].cos_yes == pytest.approx(wanted, abs=1e-4)
    assert found.vector.provenance.notes["cos_yes"] == {"block_in.0": found.statistics[0].cos_yes}
    if len(set(signs)) == 1:
        assert wanted == pytest.approx(signs[0], abs=1e-4)


@pytest.mark.parametrize("signs", [[0, 0, 0], [1, 0, 0]])
def test_there_is_no_cosine_without_yes_and_no(signs: list[int]) -> None:
    assert extracted(signs).statistics[0].cos_yes is None
