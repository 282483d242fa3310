"""SteeringVector: immutable, validated, named by its content."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lm_eval_steer.errors import LayerError, ShapeError, SiteError, VectorValueError
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.vector import Fingerprint, Provenance, SteeringVector

OUT = [Hookpoint(Site.BLOCK_OUT, layer) for layer in range(4)]
MLP = Hookpoint(Site.MLP_OUT, 1)
TORCH = torch.arange(1.0, 5.0)


def make(tensors=None, *, control=None, **kwargs):
    return SteeringVector("v", tensors or {OUT[1]: TORCH}, Provenance("caa", control=control), **kwargs)


def test_tensors_are_float32_copies():
    source = TORCH.double()
    vector = make({OUT[0]: source})
    source += 1
    assert vector.at(0).dtype == torch.float32
    assert torch.equal(vector.at(0), TORCH)


def test_it_cannot_be_changed():
    vector = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        vector.name = "w"
    with pytest.raises(TypeError):
        vector.tensors[OUT[2]] = TORCH


BAD = {
    "nothing": ({}, {}, ShapeError, "has no tensors"),
    "a matrix undeclared": ({OUT[0]: torch.ones(1, 4)}, {}, ShapeError, "unless the file declares rows"),
    "a row declared a matrix": ({OUT[0]: TORCH}, {"rows": "positions"}, ShapeError, r"must be \[k, d_model\]"),
    "a scalar": ({OUT[0]: torch.tensor(1.0)}, {}, ShapeError, "has shape"),
    "width one": ({OUT[0]: torch.ones(1)}, {}, ShapeError, "would only broadcast"),
    "not a number": ({OUT[0]: torch.tensor([1.0, float("nan")])}, {}, VectorValueError, "1 of 2 entries are NaN"),
    "infinite": ({OUT[0]: torch.tensor([1.0, float("inf")])}, {}, VectorValueError, "NaN or infinite"),
    "beyond float32": (
        {OUT[0]: torch.tensor([1e300, 1.0], dtype=torch.float64)},
        {},
        VectorValueError,
        "infinite",
    ),
    "zeros": ({OUT[0]: torch.zeros(4)}, {}, VectorValueError, "only a declared zero control"),
    "complex": ({OUT[0]: torch.ones(4, dtype=torch.complex64)}, {}, ShapeError, "complex"),
    "origin elsewhere": ({OUT[0]: TORCH}, {"origins": {OUT[1]: TORCH}}, ShapeError, "does not belong"),
    "origin of another width": ({OUT[0]: TORCH}, {"origins": {OUT[0]: torch.ones(3)}}, ShapeError, "does not belong"),
}


@pytest.mark.parametrize(("tensors", "options", "error", "words"), BAD.values(), ids=BAD.keys())
def test_what_is_no_vector_is_refused(tensors, options, error, words):
    with pytest.raises(error, match=words):
        SteeringVector("v", tensors, Provenance("caa"), **options)


def test_a_declared_zero_control_may_be_zero():
    assert not make({OUT[0]: torch.zeros(4)}, control="zero").at(0).any()


def test_the_id_is_of_the_content_alone():
    renamed = dataclasses.replace(make(), name="w", provenance=Provenance("pca", seed=3))
    assert renamed.id == make().id
    assert make({OUT[1]: TORCH.double()}).id == make().id


@pytest.mark.parametrize(
    "other",
    [
        lambda: make({OUT[1]: TORCH * 1.0000001}),
        lambda: make({OUT[2]: TORCH}),
        lambda: make({MLP: TORCH}),
        lambda: make({OUT[1]: TORCH, OUT[2]: TORCH}),
        lambda: make(origins={OUT[1]: TORCH}),
        lambda: make({OUT[1]: TORCH.reshape(2, 2)}, rows="positions"),
        lambda: make({OUT[1]: TORCH.reshape(2, 2)}, rows="basis"),
    ],
)
def test_any_change_of_content_is_another_id(other):
    assert other().id != make().id


def test_positions_and_basis_rows_are_different_vectors():
    rows = {OUT[1]: TORCH.reshape(2, 2)}
    assert make(rows, rows="positions").id != make(rows, rows="basis").id


def test_the_order_of_tensors_does_not_matter():
    one, two = {OUT[1]: TORCH, OUT[2]: -TORCH}, {OUT[2]: -TORCH, OUT[1]: TORCH}
    assert make(one).id == make(two).id
    assert make(two).layers == (1, 2)


def test_at_names_the_layers_there_are():
    vector = make(dict.fromkeys(OUT, TORCH))
    with pytest.raises(LayerError, match=r"has no block_out\.7; it has layers 0 to 3"):
        vector.at(7)


def test_a_vector_of_two_sites_wants_the_site_named():
    vector = make({OUT[1]: TORCH, MLP: -TORCH})
    with pytest.raises(SiteError, match="several sites"):
        vector.at(1)
    assert torch.equal(vector.at(1, Site.MLP_OUT), -TORCH)


def test_select_keeps_the_layers_asked_for_and_their_origins():
    vector = make(dict.fromkeys(OUT, TORCH), origins={OUT[1]: TORCH, OUT[3]: TORCH})
    chosen = vector.select([1, 2])
    assert chosen.layers == (1, 2)
    assert list(chosen.origins) == [OUT[1]]


def test_select_of_nothing_is_refused():
    with pytest.raises(ShapeError):
        make().select([3])


def test_scaled_unit_and_rescaled():
    vector = make({OUT[1]: TORCH, OUT[2]: 3 * TORCH})
    assert torch.equal(vector.scaled(-2.0).at(1), -2 * TORCH)
    assert list(vector.unit().norms().values()) == pytest.approx([1.0, 1.0])
    norms = {"block_out.1": 7.0, "block_out.2": 2.0}
    assert vector.rescaled(norms).norms() == pytest.approx(norms)
    torch.testing.assert_close(vector.unit().at(2), TORCH / TORCH.norm())


def test_rescaling_wants_every_norm_and_a_direction():
    with pytest.raises(VectorValueError, match=r"no norm to rescale block_out\.1 to"):
        make().rescaled({})
    with pytest.raises(VectorValueError, match="no direction"):
        make({OUT[1]: torch.zeros(4)}, control="zero").unit()


def test_an_unknown_part_of_a_fingerprint_is_not_compared():
    known = Fingerprint("c", "w", "t")
    assert known.differs_from(Fingerprint("c", "w")) == []
    assert known.differs_from(Fingerprint("c", "x", "u")) == ["weights", "tokenizer"]


def test_provenance_survives_a_round_trip_and_keeps_what_it_does_not_know():
    provenance = Provenance("caa", fingerprint=Fingerprint("c", "w"), n_pairs=3, notes={"a": 1})
    assert Provenance.from_dict(provenance.to_dict()) == provenance
    later = Provenance.from_dict({**provenance.to_dict(), "colour": "blue"})
    assert later.notes == {"a": 1, "unknown_fields": {"colour": "blue"}}
