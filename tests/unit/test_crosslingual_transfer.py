"""Transfer between languages: planted matrices are recovered, and n/a stands where nothing can be said."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.report.cross_lingual import cross_lingual_sections
from lm_eval_steer.stats.crosslingual.alignment import Alignment
from lm_eval_steer.stats.crosslingual.analysis import NO_ITEMS, analyse
from lm_eval_steer.stats.crosslingual.family import Member, extracted_in, members, parse_family
from lm_eval_steer.stats.crosslingual.result import CrossLingual, Family, Transfer
from lm_eval_steer.stats.crosslingual.transfer import INCLUDES_ZERO, NO_NULL, TOO_FEW_NULLS, WITHIN_NULL
from lm_eval_steer.table.cross_lingual import parts
from tests.crosslingual_tools import LANGUAGES, orthogonal_directions, planted_tracks, shared_direction
from tests.curve_tools import MODEL, curve

DRAWS = 300


def family(tracks: Any, **options: Any) -> Family:
    (found,) = analyse(tracks, draws=DRAWS, **options).families
    return found


def matrix(tracks: Any, **options: Any) -> Transfer:
    (place,) = family(tracks, **options).places
    (found,) = place.layers[place.shown].transfers
    return found


# ------------------------------------------------------------------------------------------------ planted matrices


def test_a_shared_direction_transfers_whole() -> None:
    found = matrix(planted_tracks(shared_direction()))
    assert (found.sources, found.languages, found.concept) == (LANGUAGES, LANGUAGES, "joy")
    for (row, language), cell in found.cells.items():
        assert cell.ratio.value == pytest.approx(1.0, abs=0.05)
        assert cell.beyond_null is True
        assert cell.own == (LANGUAGES[row] == language)


def test_orthogonal_directions_stay_inside_the_null_band() -> None:
    found = matrix(planted_tracks(orthogonal_directions()))
    for cell in found.cells.values():
        assert cell.band is not None
        assert cell.nulls == 20
        if not cell.own:
            assert cell.beyond_null is False
            assert cell.ratio.value == pytest.approx(0.0, abs=0.05)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.floats(-1.5, 1.5), min_size=6, max_size=6))
def test_any_planted_matrix_is_recovered(off: list[float]) -> None:
    values = iter(off)
    planted = {f"v_{x}": {y: 1.0 if x == y else next(values) for y in LANGUAGES} for x in LANGUAGES}
    found = matrix(planted_tracks(planted, k=19))
    for (row, language), cell in found.cells.items():
        assert cell.ratio.value == pytest.approx(planted[f"v_{LANGUAGES[row]}"][language], abs=0.05)


@pytest.mark.parametrize("other", [{"revision": "b"}, {"dtype": "bfloat16"}])
def test_pictures_of_two_models_have_names_of_their_own(other: dict[str, Any]) -> None:
    tracks = [*planted_tracks(shared_direction(), k=0), *planted_tracks(shared_direction(), k=0, model=MODEL | other)]
    sections = cross_lingual_sections(analyse(tracks, draws=DRAWS))[:2]
    assert len({section.id for section in sections}) == 2
    assert len({picture.name for section in sections for picture in section.pictures}) == 2


def test_the_interval_of_a_ratio_holds_what_was_planted() -> None:
    planted = {"v_en": {"en": 1.0, "fr": 0.5}, "v_fr": {"en": 0.5, "fr": 1.0}}
    ratio = matrix(planted_tracks(planted, spread=0.3)).cells[0, "fr"].ratio
    assert ratio.low < 0.5 < ratio.high  # type: ignore[operator]
    assert ratio.n == 40


# ------------------------------------------------------------------------------------------------ nothing to say


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"k": 0}, NO_NULL),
        ({"k": 20, "null": 9.0}, WITHIN_NULL),
        ({"k": 18}, TOO_FEW_NULLS),  # 1/19 is above 0.05
        ({"k": 20, "n": 9}, INCLUDES_ZERO),  # no interval under ten items
        ({"k": 20, "spread": 20.0}, INCLUDES_ZERO),
    ],
)
def test_without_an_effect_of_its_own_there_is_nothing_to_divide_by(options: dict[str, Any], why: str) -> None:
    found = matrix(planted_tracks(shared_direction(1.0), **options))
    assert {(cell.ratio.value, cell.ratio.why) for cell in found.cells.values()} == {(None, why)}


def test_a_layer_is_tested_against_the_largest_over_all_layers() -> None:
    place = family(planted_tracks(shared_direction(), layers=(3, 7, 9))).places[0]
    assert [layer.layer for layer in place.layers] == [3, 7, 9]
    assert place.layers[place.shown].layer == 9  # the slopes grow with the layer
    shown, other = place.layers[2].vectors[0], place.layers[0].vectors[0]
    assert shown.p_null["en"] == pytest.approx(1 / 21)
    assert shown.agreement is not None
    assert other.agreement is None


def test_three_random_directions_are_no_band() -> None:
    few = [f"v_fr-random-{draw}" for draw in range(3)]
    tracks = [
        each
        for each in planted_tracks(shared_direction())
        if each.curve.labels["control_of"] != "v_fr" or each.curve.labels["vector"] in few
    ]
    cell = matrix(tracks).cells[LANGUAGES.index("fr"), "en"]
    assert (cell.nulls, cell.band, cell.beyond_null) == (3, None, None)
    assert cell.ratio.value == pytest.approx(1.0, abs=0.05)


# ---------------------------------------------------------------------------------------- which items and vectors


def test_only_items_of_all_languages_count() -> None:
    found = family(planted_tracks(shared_direction(), missing={"fr": [0, 1], "de": [1, 2]}))
    assert found.items == 37
    assert {language.name: language.left_out for language in found.languages} == {"en": 3, "de": 1, "fr": 1}
    assert found.languages[0].gap is None
    effect = found.places[0].layers[0].vectors[0]
    assert {estimate.n for estimate in effect.steerability.values()} == {37}


def test_a_trial_run_with_fewer_items_is_left_out_and_named() -> None:
    whole = planted_tracks(shared_direction())
    trial = [
        dataclasses.replace(
            each, curve=dataclasses.replace(each.curve, task_identity={**each.curve.task_identity, "limit": 9})
        )
        for each in planted_tracks(orthogonal_directions(), n=9)
    ]
    for tracks in ([*whole, *trial], [*trial, *whole]):
        found = family(tracks)
        assert (found.items, found.set_apart) == (40, ("xl_joy_de", "xl_joy_en", "xl_joy_fr"))
        assert matrix(tracks).cells[1, "en"].ratio.value == pytest.approx(1.0, abs=0.05)
        assert any("left out" in note and "xl_joy_de" in note for note in parts(analyse(tracks, draws=DRAWS))[0].notes)
    assert family(whole).set_apart == ()


def test_no_common_item_is_said() -> None:
    found = family(planted_tracks(shared_direction(), missing={"fr": range(20), "de": range(20, 40)}))
    assert (found.items, found.note, found.places) == (0, NO_ITEMS, ())


def test_one_language_is_no_family() -> None:
    assert analyse(planted_tracks({"v_en": {"en": 1.0}})) == CrossLingual()
    assert analyse([]) == CrossLingual()


def test_items_of_one_game_are_one_cluster() -> None:
    found = family(planted_tracks(shared_direction(), clusters=12))
    assert (found.items, found.clusters) == (40, 12)


def test_pooled_and_leave_one_out_vectors_are_rows_of_their_own() -> None:
    planted = shared_direction() | {"pooled": dict.fromkeys(LANGUAGES, 0.9), "rest": dict.fromkeys(LANGUAGES, 0.8)}
    data = {"pooled": [f"xl_joy_{y}" for y in LANGUAGES], "rest": ["xl_joy_en", "xl_joy_de"]}
    found = matrix(planted_tracks(planted, data=data))
    assert found.sources == (*LANGUAGES, "all but fr", "en+de+fr")
    assert found.cells[3, "fr"].ratio.value == pytest.approx(0.8, abs=0.05)
    assert not any(found.cells[4, language].own for language in LANGUAGES)


def test_two_vectors_of_a_language_make_two_matrices() -> None:
    planted = {f"{name}_{x}": dict.fromkeys(("en", "fr"), 1.0) for name in ("a", "b") for x in ("en", "fr")}
    transfers = family(planted_tracks(planted)).places[0].layers[0].transfers
    assert [each.vectors for each in transfers] == [("a_en", "a_fr"), ("b_en", "b_fr")]
    assert len({each.concept for each in transfers}) == 2


def test_a_vector_without_a_language_has_effects_and_no_row() -> None:
    found = family(planted_tracks(shared_direction() | {"plain": dict.fromkeys(LANGUAGES, 1.0)}, data={"plain": "x"}))
    layer = found.places[0].layers[0]
    assert {effect.vector for effect in layer.vectors} == {"plain", *(f"v_{x}" for x in LANGUAGES)}
    assert "plain" not in layer.transfers[0].vectors


# ---------------------------------------------------------------------------------------- agreement and differences


def test_differences_and_agreement_of_a_shared_direction() -> None:
    planted = {"v_en": {"en": 1.0, "de": 1.0, "fr": 0.4}}
    effect = family(planted_tracks(planted, spread=0.2)).places[0].layers[0].vectors[0]
    assert effect.difference["fr"].value == pytest.approx(-0.6, abs=0.06)
    assert effect.difference["fr"].excludes_zero
    assert effect.agreement is not None
    assert effect.agreement.pairs["fr"].rank.value == pytest.approx(1.0, abs=0.05)
    assert effect.agreement.pairs["de"].same_sign.value == 1.0
    variance = effect.agreement.variance
    assert variance.language.value == pytest.approx(0.12, abs=0.03)  # of 1, 1 and 0.4
    assert variance.item.value == pytest.approx(0.04, abs=0.03)


# ------------------------------------------------------------------------------------------------ alignment and size


def test_a_language_that_the_model_does_not_know_is_marked() -> None:
    rows = {"en": {"fr": 0.9, "de": 0.1}, "fr": {"en": 0.9, "de": 0.1}, "de": {"en": 0.2, "fr": 0.1}}
    low = {a: dict.fromkeys(own, 0.05) for a, own in rows.items()}
    identity = {"config": "c", "weights": "w"}
    known = Alignment(identity, "joy", 40, {3: low, 8: rows}, {})
    found = matrix(planted_tracks(shared_direction()), alignments=[known])
    marks = {(found.sources[row], y): cell.known for (row, y), cell in found.cells.items()}
    assert marks["en", "fr"] is True
    assert marks["fr", "de"] is marks["de", "en"] is False
    assert marks["en", "en"] is None
    cell = found.cells[found.sources.index("de"), "en"]
    assert (cell.alignment, cell.alignment_here) == (pytest.approx(0.15), pytest.approx(0.05))
    other = dataclasses.replace(known, fingerprint={"config": "another", "weights": "w"})
    assert matrix(planted_tracks(shared_direction()), alignments=[other]).cells[0, "fr"].alignment is None


def test_three_sizes_have_a_slope_each_language() -> None:
    tracks = []
    for number, size in enumerate((10**6, 10**7, 10**8)):
        model = {**MODEL, "id": f"m{number}", "fingerprint": {"config": str(number)}, "parameters": size}
        tracks += planted_tracks(shared_direction(1.0 + number, ("en", "fr")), k=0, model=model)
    found = analyse(tracks, draws=DRAWS)
    assert len(found.families) == 3
    assert [(row.language, row.unit) for row in found.scaling] == [("en", "relative dose"), ("fr", "relative dose")]
    # One more of S at dose 0.1 for each factor of ten, at layer 3.
    assert found.scaling[0].scaling.slope.value == pytest.approx(1.03 / 0.1 / 2.302585, rel=0.02)


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("xl_joy_fr", ("joy", ("fr",))),
        ("xl_joy_fr_native", ("joy", ("fr",))),
        ("xl_joy_pt-BR", ("joy", ("pt-BR",))),
        ("xl_joy", ("joy", ("all",))),
        ("mine-fr", ("mine", ("fr",))),
        ("mine_es", None),  # no language of this family
        ("fr", None),
        (None, None),
        (["xl_joy_fr", "xl_joy_en"], ("joy", ("en", "fr"))),
        (["xl_joy_fr", "xl_calm_en"], None),
        (["xl_joy_fr", "x"], None),
    ],
)
def test_the_language_of_a_vector_is_read_from_its_data(data: Any, found: Any) -> None:
    assert extracted_in({"data": data}, LANGUAGES) == found


def test_english_words_are_native_in_english() -> None:
    def said(task: str, scaffold: str, language: str) -> Any:
        identity = {"family": "xl_joy", "scaffold": scaffold, "language": language}
        return dataclasses.replace(curve("v", 1, task), task_identity=identity)

    curves = [said("en", "english", "en"), said("fr", "english", "fr"), said("fr_n", "native", "fr"), curve()]
    found = members(curves)
    assert found["en"] == (Member("joy", "english", "en"), Member("joy", "native", "en"))
    assert found["fr_n"] == (Member("joy", "native", "fr"),)
    assert members(curves[:1]) == {}


def test_a_family_can_be_told() -> None:
    assert parse_family("xnli:en=xnli_en, fr=xnli_fr") == {
        "xnli_en": Member("xnli", "native", "en"),
        "xnli_fr": Member("xnli", "native", "fr"),
    }


@pytest.mark.parametrize(
    "text", ["xnli", "xnli:en=a", ":en=a,fr=b", "x:en=a,en=b", "x:en=a,fr=a", "x:EN=a,fr=b", "x:en=a,fr="]
)
def test_a_family_of_one_language_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--family"):
        parse_family(text)
