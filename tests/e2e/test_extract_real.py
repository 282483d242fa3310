"""The positive control, whole: extract positivity on the real model, steer with it, and beat random directions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_steer import embedded
from lm_eval_steer.attachment import attach
from lm_eval_steer.extraction.extract import Extraction, Options, extract
from lm_eval_steer.extraction.pair_source import PairSource, read_source
from lm_eval_steer.extraction.pairs import ContrastPair, text_pairs
from lm_eval_steer.extraction.prompts import Sequenced, sequences
from lm_eval_steer.formats.native import load_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.layout import ModelLayout, probe_layout
from lm_eval_steer.loading import load_causal_lm
from lm_eval_steer.paths import tasks_dir
from lm_eval_steer.plan import Placement, SteeringPlan
from lm_eval_steer.positions import Batch
from lm_eval_steer.scope import RequestView, TokenScope
from lm_eval_steer.vector import SteeringVector

pytestmark = [pytest.mark.slow, pytest.mark.real]

LAYER = 20
ITEMS = 12
CONTROLS = "random:1,shuffled,letter"
BATCH = 10

Real = tuple[Any, Any, ModelLayout]


@pytest.fixture(scope="module")
def real() -> Real:
    embedded.ensure()
    model, tokenizer = load_causal_lm("embedded", device="cpu")
    return model, tokenizer, probe_layout(model)


@pytest.fixture(scope="module")
def found(real: Real) -> Extraction:
    model, tokenizer, layout = real
    return extract(model, tokenizer, read_source("positivity"), Options(controls=CONTROLS), layout=layout)


@pytest.fixture(scope="module")
def held_out() -> tuple[ContrastPair, ...]:
    items = read_source(str(tasks_dir() / "control" / "data" / "positivity_test.jsonl"))
    return text_pairs(PairSource(items.name, items.items[:ITEMS])).pairs


def nats(real: Real, rows: Sequence[Sequenced], plan: SteeringPlan) -> list[float]:
    """Return the log-probability per answer token of each sequence under ``plan``, as lm-eval would ask for it."""
    model, tokenizer, layout = real
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].ids))
    scores = [0.0] * len(rows)
    with attach(model, plan, tokenizer=tokenizer, layout=layout) as handle, torch.no_grad():
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            lengths = [len(rows[number].ids) - 1 for number in chosen]
            ids = torch.zeros(len(chosen), max(lengths), dtype=torch.long)
            for place, number in enumerate(chosen):
                ids[place, : lengths[place]] = torch.tensor(rows[number].ids[:-1])
            views = [RequestView(rows[n].ids[:-1], rows[n].start, "loglikelihood") for n in chosen]
            with handle.forward(
                Batch(lengths, [0] * len(chosen), max(lengths)), [handle.spans(view) for view in views]
            ):
                logits = model(ids, use_cache=False).logits
            for place, number in enumerate(chosen):
                row = rows[number]
                answer = logits[place, row.start - 1 : len(row.ids) - 1].log_softmax(-1)
                scores[number] = float(answer.gather(1, torch.tensor(row.ids[row.start :])[:, None]).double().mean())
    return scores


def propensity(real: Real, pairs: Sequence[ContrastPair], vector: SteeringVector, multiplier: float) -> float:
    """Return the mean over items of nats per token of the positive minus the negative answer."""
    point = Hookpoint(Site.BLOCK_OUT, LAYER)
    placement = Placement(vector, point, point, multiplier=multiplier, scope=TokenScope("all"), skip_first=True)
    rows = [row for pair in pairs for row in sequences(pair, "plain", real[1], "answer")]
    scores = nats(real, rows, SteeringPlan((placement,)))
    return sum(scores[0::2]) / len(pairs) - sum(scores[1::2]) / len(pairs)


def test_it_is_stable_and_no_letter(found: Extraction) -> None:
    assert found.vector.d_model == 576
    assert found.vector.layers == tuple(range(30))
    for each in found.statistics[14:]:
        assert each.split_half is not None
        assert each.cos_letter is not None
        assert 0.80 < each.split_half < 0.95, each
        assert abs(each.cos_letter) < 0.25, each
    norms = [each.norm for each in found.statistics]
    assert norms[24] > 4 * norms[6], "the norm grows with depth"
    doses = [each.relative_dose for each in found.statistics]
    assert all(dose is not None and 0.02 < dose < 0.3 for dose in doses), (
        "without the sink left out they were below .01"
    )


def test_it_steers_held_out_items_and_random_directions_do_not(
    real: Real, found: Extraction, held_out: tuple[ContrastPair, ...]
) -> None:
    curve = [propensity(real, held_out, found.vector, multiplier) for multiplier in (-1, -0.5, 0, 0.5, 1)]
    print("nats per token:", [round(value, 3) for value in curve])
    assert curve == sorted(curve), "monotone in the multiplier"
    assert curve[4] - curve[0] > 0.5
    for name, control in found.controls.items():
        effect = propensity(real, held_out, control, 1) - propensity(real, held_out, control, -1)
        print(name, round(effect, 3))
        assert abs(effect) < 0.4 * (curve[4] - curve[0]), name


def test_the_command_in_another_process_makes_the_same_vector(found: Extraction, tmp_path: Path) -> None:
    code = (
        "import argparse, sys; from lm_eval_steer.cli import extract as e; p = argparse.ArgumentParser();"
        "e.add_parser(p.add_subparsers()); a = p.parse_args(sys.argv[1:]); sys.exit(a.run(a))"
    )
    out = tmp_path / "positivity.safetensors"
    words = [
        "extract",
        "--pretrained",
        "embedded",
        "--pairs",
        "positivity",
        "--out",
        str(out),
        "--device",
        "cpu",
        "--json",
    ]
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    vector = load_vector(out)
    assert told["id"] == vector.id
    assert vector.provenance.fingerprint == found.vector.provenance.fingerprint
    assert vector.provenance.data_sha256 == found.vector.provenance.data_sha256
    for layer in vector.layers:  # threads may differ between the processes, and with them the last bits
        torch.testing.assert_close(vector.at(layer), found.vector.at(layer), rtol=1e-3, atol=1e-3)
