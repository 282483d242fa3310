"""``lm-eval-steer verify`` on the embedded model: the shipped vector passes, and the same file mislabelled does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lm_eval_steer.extraction.pair_source import read_source
from lm_eval_steer.hookpoint import Hookpoint
from lm_eval_steer.inspection.neighbours import check_source, source_cosines
from lm_eval_steer.inspection.pair_reading import read_pairs
from lm_eval_steer.inspection.verify import verify
from lm_eval_steer.layout import probe_layout
from lm_eval_steer.loading import load_causal_lm
from lm_eval_steer.model_args import parse_arguments
from lm_eval_steer.store import find_vector
from lm_eval_steer.vector import SteeringVector

pytestmark = pytest.mark.slow
LAYER = 20


def relabelled(vector: SteeringVector, by: int, factor: float) -> SteeringVector:
    tensors = {Hookpoint(key.site, key.layer + by): factor * value for key, value in vector.tensors.items()}
    return dataclasses.replace(vector, tensors={key: value for key, value in tensors.items() if 0 <= key.layer < 30})


def test_the_shipped_vector_passes_and_mislabelled_it_does_not(real_model_dir: Path) -> None:
    model, tokenizer = load_causal_lm(str(real_model_dir), device="cpu")
    layout = probe_layout(model)
    request = parse_arguments({"vector": "smollm2-positivity", "layer": LAYER, "scope": "all", "skip_first": True})
    found = verify(model, tokenizer, layout, request.resolve(layout.n_layers), "How was your day?", new_tokens=3)
    assert found.wrong == ()
    assert found.doses[0].relative_dose == pytest.approx(0.14, abs=0.05)

    vector = find_vector("smollm2-positivity").vector
    point = Hookpoint(vector.site, LAYER)
    pairs = read_pairs(read_source("positivity"), vector, tokenizer)
    says = {}
    for what, by, factor in (("right", 0, 1.0), ("late", 1, 1.0), ("flipped", 0, -1.0)):
        other = relabelled(vector, by, factor)
        says[what] = check_source(other, point, source_cosines(model, layout, other, point, pairs)).says
    assert "is 1.000" in says["right"]
    assert "layer off by one" in says["late"]
    assert "sign flipped" in says["flipped"]
