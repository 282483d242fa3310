"""The project's own vector file: what is written is read back; what was damaged is refused."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from lm_eval_steer.errors import ShapeError, VectorFileError, VectorValueError, WriteError
from lm_eval_steer.formats.native import is_native, load_vector, save_vector
from lm_eval_steer.hookpoint import Hookpoint, Site
from lm_eval_steer.vector import Fingerprint, Provenance, SteeringVector

POINTS = [Hookpoint(site, layer) for site in Site for layer in (0, 12)]


def make(**kwargs) -> SteeringVector:
    tensors = {point: torch.randn(6, generator=torch.Generator().manual_seed(i)) for i, point in enumerate(POINTS)}
    provenance = Provenance("caa", model_id="tiny", fingerprint=Fingerprint("c", "w", "t"), notes={"é": ["北京", None]})
    return SteeringVector("name with spaces é", tensors, provenance, **kwargs)


def rewrite(path, *, tensors=None, **changes):
    """Write the file again with other tensors or other fields of its metadata."""
    with safe_open(str(path), framework="pt") as handle:
        old = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
        head = json.loads(handle.metadata()["lm_eval_steer"])
    head = {key: value for key, value in {**head, **changes}.items() if value != "drop"}
    save_file(old if tensors is None else tensors, str(path), metadata={"lm_eval_steer": json.dumps(head)})


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "v.safetensors"
    save_vector(make(), file)
    return file


def test_what_is_saved_is_loaded(path):
    vector = load_vector(path)
    assert vector.id == make().id
    assert (vector.name, vector.provenance, vector.rows) == (make().name, make().provenance, None)
    assert all(torch.equal(vector.tensors[point], make().tensors[point]) for point in POINTS)


@pytest.mark.parametrize("rows", ["positions", "basis"])
def test_rows_and_origins_are_kept(tmp_path, rows):
    point = POINTS[0]
    vector = SteeringVector("r", {point: torch.randn(3, 6)}, Provenance("actadd"), rows, {point: torch.randn(6)})
    save_vector(vector, tmp_path / "r.safetensors")
    loaded = load_vector(tmp_path / "r.safetensors")
    assert (loaded.id, loaded.rows) == (vector.id, rows)
    assert torch.equal(loaded.origins[point], vector.origins[point])


def test_equal_vectors_give_equal_bytes(path, tmp_path):
    save_vector(load_vector(path), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_any_safetensors_reader_can_read_it(path):
    with safe_open(str(path), framework="pt") as handle:
        assert sorted(handle.keys()) == sorted(map(str, POINTS))
        head = json.loads(handle.metadata()["lm_eval_steer"])
    assert head["schema"] == 1
    assert head["norms"] == pytest.approx(make().norms())


def test_native_files_are_told_from_others(path, tmp_path):
    save_file({"a": torch.ones(3)}, str(tmp_path / "other.safetensors"))
    (tmp_path / "junk").write_bytes(b"junk")
    assert is_native(path)
    assert not any(is_native(tmp_path / name) for name in ("other.safetensors", "junk", "missing"))


def test_a_safetensors_file_of_another_tool_is_sent_to_convert(tmp_path):
    save_file({"a": torch.ones(3)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(VectorFileError, match="lm-eval-steer convert"):
        load_vector(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"schema": 2}, VectorFileError, r"schema 2 is newer .* Upgrade lm-eval-steer"),
        ({"schema": "one"}, VectorFileError, "no schema version"),
        ({"id": "0" * 16}, VectorFileError, "edited or damaged"),
        ({"rows": "positions"}, ShapeError, "declares rows: positions"),
        ({"name": "drop"}, VectorFileError, "lacks or garbles a field"),
        ({"provenance": "drop"}, VectorFileError, "lacks or garbles a field"),
        ({"provenance": [1]}, VectorFileError, "lacks or garbles a field"),
        ({"provenance": {}}, VectorFileError, "lacks or garbles a field"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(path, changes, error, words):
    rewrite(path, **changes)
    with pytest.raises(error, match=words):
        load_vector(path)


@pytest.mark.parametrize(
    ("tensors", "error", "words"),
    [
        ({"block_out.0": torch.ones(6)}, VectorFileError, "edited or damaged"),
        ({"block_out.00": torch.ones(6)}, VectorFileError, "is no hookpoint"),
        ({"layer.3": torch.ones(6)}, VectorFileError, "is no hookpoint"),
        ({"block_out.-1": torch.ones(6)}, VectorFileError, "is no hookpoint"),
        ({"block_out.0": torch.ones(6, dtype=torch.int64)}, VectorFileError, "not floating-point"),
        ({"block_out.0": torch.ones(2, 6)}, ShapeError, "v.safetensors"),
        ({"block_out.0": torch.tensor([1.0, float("nan")])}, VectorValueError, "v.safetensors"),
        ({}, ShapeError, "has no tensors"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_with_the_files_name(path, tensors, error, words):
    rewrite(path, tensors=tensors)
    with pytest.raises(error, match=words):
        load_vector(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(path, cut):
    data = path.read_bytes()
    short = path.with_name("short.safetensors")
    short.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(VectorFileError):
        load_vector(short)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=300))
def test_junk_is_refused(path, junk):
    bad = path.with_name("junk.safetensors")
    bad.write_bytes(junk)
    with pytest.raises(VectorFileError):
        load_vector(bad)


def test_a_path_below_a_file_is_a_write_error(path):
    with pytest.raises(WriteError):
        save_vector(make(), path / "v.safetensors")


def test_a_failed_save_leaves_the_old_file_whole(path, monkeypatch):
    old = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_vector(make().scaled(2.0), path)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]
