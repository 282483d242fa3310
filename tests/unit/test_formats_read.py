"""Foreign formats: how they are told apart, what is read, and that every layer number lands where its tool means it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lm_eval_steer.errors import ConfigError, LayerError, ShapeError, VectorFileError
from lm_eval_steer.formats import FORMATS, Converted, Told, all_formats, get_format, load_any, recognise
from lm_eval_steer.formats.base import canonical_layer
from lm_eval_steer.formats.gguf import write_control_vector
from lm_eval_steer.formats.hook_names import parse_hook_name
from lm_eval_steer.formats.native import load_vector, save_vector
from lm_eval_steer.hookpoint import Hookpoint, Site, parse_hookpoint
from lm_eval_steer.vector import Provenance, SteeringVector

WIDTH = 6


def row(seed: int) -> Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def read(path: Path, name: str, **told: Any) -> Converted:
    return get_format(name).read(path, Told("v", **told))


def save(value: object, path: Path) -> Path:
    torch.save(value, path)
    return path


def caa_folder(folder: Path, model: str | None = "Llama-2-7b-chat-hf", layers: range = range(3)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for layer in layers:
        torch.save(row(layer), folder / f"vec_layer_{layer}{'_' + model if model else ''}.pt")
    return folder


def sparsify_folder(root: Path, hookpoint: str = "layers.3", features: int = 5, **config: Any) -> Path:
    folder = root / hookpoint
    folder.mkdir(parents=True)
    tensors = {
        "encoder.weight": torch.randn(features, WIDTH),
        "encoder.bias": torch.zeros(features),
        "W_dec": torch.stack([row(100 + i) for i in range(features)]),
        "b_dec": row(99),
    }
    save_file(tensors, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": WIDTH, "k": 32, **config}))
    return root


def sae_lens_folder(root: Path, sae_id: str, hook: str | None, **config: Any) -> Path:
    folder = root / sae_id
    folder.mkdir(parents=True)
    tensors = {"W_enc": torch.zeros(WIDTH, 4), "b_enc": torch.zeros(4), "b_dec": row(199)}
    tensors["W_dec"] = torch.stack([row(200 + i) for i in range(4)])
    save_file(tensors, folder / "sae_weights.safetensors")
    metadata = {"hook_name": hook, "model_name": "gemma-2-2b", "sae_lens_version": "6.0.0"}
    values = {
        "d_in": WIDTH,
        "d_sae": 4,
        "normalize_activations": "none",
        "architecture": "jumprelu",
        "metadata": metadata,
    }
    (folder / "cfg.json").write_text(json.dumps({**values, **config}))
    return root


class TestLayerBases:
    def test_block_out_is_ours(self):
        assert canonical_layer(7, "block_out", "f") == 7

    def test_hidden_states_is_one_more(self):
        assert canonical_layer(7, "hidden_states", "f") == 6

    @pytest.mark.parametrize("number", [-1, 1.0, "3", True, None])
    def test_what_is_no_layer(self, number):
        with pytest.raises(LayerError, match="f: layer"):
            canonical_layer(number, "block_out", "f")

    def test_embeddings_are_no_block(self):
        with pytest.raises(LayerError, match=r"hidden_states\[0\]"):
            canonical_layer(0, "hidden_states", "f")


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("layers.3", "block_out.3"),
        ("model.layers.3", "block_out.3"),
        ("transformer.h.0", "block_out.0"),
        ("h.11", "block_out.11"),
        ("gpt_neox.layers.5", "block_out.5"),
        ("model.decoder.layers.2", "block_out.2"),
        ("layers.4.mlp", "mlp_out.4"),
        ("layers.4.mlp.down_proj", "mlp_out.4"),
        ("layers.4.attention", "attn_out.4"),
        ("model.layers.4.self_attn.o_proj", "attn_out.4"),
        ("blocks.20.hook_resid_post", "block_out.20"),
        ("blocks.20.hook_resid_pre", "block_in.20"),
        ("blocks.20.hook_mlp_out", "mlp_out.20"),
        ("blocks.20.hook_attn_out", "attn_out.20"),
    ],
)
def test_hook_names(name, point):
    assert parse_hook_name(name, "f") == parse_hookpoint(point)


@pytest.mark.parametrize(
    "name",
    [
        *("", "layers", "layers.", "layers.03", "layers.-1", "layers.3 ", "3", "norm", "embed_tokens"),
        *("encoder.layers.3", "layers.3.input_layernorm", "layers.3.mlp.experts.0"),
        *("blocks.3.hook_resid_mid", "blocks.3.attn.hook_z"),
    ],
)
def test_other_hook_names_are_refused_by_name(name):
    with pytest.raises(VectorFileError, match="the hookpoint"):
        parse_hook_name(name, "f")


class TestCaa:
    def test_folder_is_one_vector(self, tmp_path):
        folder = caa_folder(tmp_path / "sycophancy")
        (vector,) = read(folder, "caa_pt").vectors
        assert vector.layers == (0, 1, 2)
        assert vector.site is Site.BLOCK_OUT
        assert all(torch.equal(vector.at(i), row(i)) for i in range(3))
        assert vector.provenance.method == "converted:caa_pt"
        assert vector.provenance.model_id == "Llama-2-7b-chat-hf"
        assert vector.provenance.fingerprint is None
        assert len(vector.provenance.notes["source_files"]) == 3
        assert vector.provenance.notes["normalized"] is False

    def test_lone_file_and_name_without_model(self, tmp_path):
        caa_folder(tmp_path / "normalized_vectors", model=None)
        (vector,) = read(tmp_path / "normalized_vectors" / "vec_layer_2.pt", "caa_pt", licence="MIT").vectors
        assert vector.layers == (2,)
        assert vector.provenance.notes["normalized"] is True
        assert vector.provenance.licence == "MIT"

    def test_several_models_want_a_name(self, tmp_path):
        folder = caa_folder(caa_folder(tmp_path / "b"), model="Llama-2-7b-hf", layers=range(1, 3))
        with pytest.raises(ConfigError, match="--model-id"):
            read(folder, "caa_pt")
        (vector,) = read(folder, "caa_pt", model_id="meta-llama/Llama-2-7b-hf").vectors
        assert vector.layers == (1, 2)

    def test_another_model_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="gemma"):
            read(caa_folder(tmp_path / "b"), "caa_pt", model_id="google/gemma")

    @pytest.mark.parametrize("name", ["vec_layer_x.pt", "vec_layer_03.pt", "vec_layer_.pt"])
    def test_names_without_a_layer(self, tmp_path, name):
        save(row(0), tmp_path / name)
        with pytest.raises(VectorFileError, match="no layer number"):
            read(tmp_path, "caa_pt")

    def test_different_widths(self, tmp_path):
        save(torch.ones(4), caa_folder(tmp_path / "b", model=None) / "vec_layer_9.pt")
        with pytest.raises(ShapeError, match="4, 6"):
            read(tmp_path / "b", "caa_pt")


class TestGguf:
    def vector(self) -> SteeringVector:
        tensors = {Hookpoint(Site.BLOCK_OUT, i): row(i) for i in (1, 2, 12)}
        return SteeringVector("v", tensors, Provenance("caa"))

    def test_round_trip(self, tmp_path):
        write_control_vector(self.vector(), tmp_path / "v.gguf", "llama")
        (back,) = read(tmp_path / "v.gguf", "gguf").vectors
        assert back.id == self.vector().id
        assert back.provenance.layer_base == "direction.N is the output of block N"
        assert back.provenance.notes["model_hint"] == "llama"
        assert back.provenance.notes["layer_count"] == 3

    def test_the_reference_reader_agrees(self, tmp_path):
        gguf = pytest.importorskip("gguf", reason="needs the extra 'gguf'; always installed in CI")
        write_control_vector(self.vector(), tmp_path / "v.gguf", "llama")
        reader = gguf.GGUFReader(tmp_path / "v.gguf")
        text = {key: bytes(reader.get_field(key).parts[-1]).decode() for key in ("general.architecture",)}
        assert text == {"general.architecture": "controlvector"}
        assert int(reader.get_field("controlvector.layer_count").parts[-1][0]) == 3
        tensors = {tensor.name: torch.tensor(tensor.data.copy()) for tensor in reader.tensors}
        assert set(tensors) == {"direction.1", "direction.2", "direction.12"}
        assert all(tensor.tensor_type == gguf.GGMLQuantizationType.F32 for tensor in reader.tensors)
        assert torch.equal(tensors["direction.12"], row(12))

    @pytest.mark.parametrize("half", [False, True])
    def test_what_repeng_writes(self, tmp_path, half):
        gguf = pytest.importorskip("gguf", reason="needs the extra 'gguf'; always installed in CI")
        path = tmp_path / "r.gguf"
        dtype = torch.float16 if half else torch.float32
        writer = gguf.GGUFWriter(path, "controlvector")  # repeng, extract.py: export_gguf
        writer.add_string("controlvector.model_hint", "mistral")
        writer.add_uint32("controlvector.layer_count", 2)
        for layer in (5, 4):
            writer.add_tensor(f"direction.{layer}", row(layer).to(dtype).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        (vector,) = read(path, "gguf").vectors
        assert vector.layers == (4, 5)
        assert torch.equal(vector.at(5), row(5).to(dtype).float())
        (shifted,) = read(path, "gguf", layer_base="hidden_states").vectors
        assert shifted.layers == (3, 4)

    def test_layer_zero_cannot_be_written(self, tmp_path):
        vector = SteeringVector("v", {Hookpoint(Site.BLOCK_OUT, i): row(i) for i in range(3)}, Provenance("x"))
        with pytest.raises(ConfigError, match="--layer 1-2"):
            write_control_vector(vector, tmp_path / "v.gguf")

    def test_only_block_out_can_be_written(self, tmp_path):
        vector = SteeringVector("v", {Hookpoint(Site.MLP_OUT, 3): row(1)}, Provenance("x"))
        with pytest.raises(ConfigError, match="mlp_out"):
            write_control_vector(vector, tmp_path / "v.gguf")

    def test_a_model_is_no_vector(self, tmp_path):
        from lm_eval_steer.formats.gguf_file import write_gguf

        write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"}, {"direction.1": row(1)})
        with pytest.raises(VectorFileError, match="a model, no vector"):
            read(tmp_path / "m.gguf", "gguf")


class TestPlain:
    def test_lone_tensor(self, tmp_path):
        path = save(row(1), tmp_path / "a.pt")
        assert read(path, "plain_pt", layer=15, layer_base="hidden_states").vectors[0].layers == (14,)
        with pytest.raises(ConfigError, match="--layer N"):
            read(path, "plain_pt", layer_base="block_out")
        with pytest.raises(ConfigError, match="--layer-base block_out"):
            read(path, "plain_pt", layer=15)

    def test_layers_by_number(self, tmp_path):
        path = save({3: row(3), 4: row(4)}, tmp_path / "a.pt")
        assert read(path, "plain_pt", layer_base="block_out").vectors[0].layers == (3, 4)
        with pytest.raises(ConfigError, match="hidden_states"):
            read(path, "plain_pt")
        with pytest.raises(LayerError, match="leave --layer out"):
            read(path, "plain_pt", layer_base="block_out", layer=3)

    @pytest.mark.parametrize("key", [-1, 1.5, True])
    def test_bad_numbers(self, tmp_path, key):
        with pytest.raises(LayerError):
            read(save({key: row(3)}, tmp_path / "a.pt"), "plain_pt", layer_base="block_out")

    def test_steering_vectors_library(self, tmp_path):
        path = save({"layer_activations": {7: row(7)}, "layer_type": "mlp"}, tmp_path / "a.pt")
        assert list(read(path, "plain_pt").vectors[0].tensors) == [Hookpoint(Site.MLP_OUT, 7)]
        bad = save({"layer_activations": {7: row(7)}, "layer_type": "input_layernorm"}, tmp_path / "b.pt")
        with pytest.raises(VectorFileError, match="input_layernorm"):
            read(bad, "plain_pt")

    @pytest.mark.parametrize("value", [{}, [], 3, "text", {"vector": row(1)}, {"a": row(1), "b": row(1)}])
    def test_what_says_nothing(self, tmp_path, value):
        with pytest.raises(VectorFileError):
            read(save(value, tmp_path / "a.pt"), "plain_pt", layer_base="block_out", layer=1)

    def test_safetensors(self, tmp_path):
        save_file({"3": row(3), "12": row(12)}, tmp_path / "a.safetensors")
        assert read(tmp_path / "a.safetensors", "plain_safetensors", layer_base="block_out").vectors[0].layers == (
            3,
            12,
        )
        save_file({"vector": row(3)}, tmp_path / "b.safetensors")
        told = {"layer_base": "block_out", "layer": 9}
        assert read(tmp_path / "b.safetensors", "plain_safetensors", **told).vectors[0].layers == (9,)
        save_file({"a": row(3), "b": row(3)}, tmp_path / "c.safetensors")
        with pytest.raises(VectorFileError, match="'a', 'b'"):
            read(tmp_path / "c.safetensors", "plain_safetensors", **told)


class TestRecognition:
    def samples(self, folder: Path) -> dict[str, Path]:
        entry = {"steering_vector": row(1), "action": "add"}
        write_control_vector(TestGguf().vector(), folder / "v.gguf")
        save_file({"3": row(3)}, folder / "o.safetensors")
        (folder / "s.csv").write_text("loader\n")
        return {
            "caa_pt": caa_folder(folder / "caa"),
            "steered_pt": save({"layers.1": entry}, folder / "s.pt"),
            "steered_csv": folder / "s.csv",
            "gguf": folder / "v.gguf",
            "plain_pt": save({3: row(3)}, folder / "p.pth"),
            "plain_safetensors": folder / "o.safetensors",
        }

    def test_each_format_and_no_other(self, tmp_path):
        samples = self.samples(tmp_path)
        assert set(samples) == set(FORMATS)
        assert {name: recognise(path).name for name, path in samples.items()} == {name: name for name in FORMATS}

    def test_load_any_says_how_to_convert(self, tmp_path):
        for path in self.samples(tmp_path).values():
            with pytest.raises(VectorFileError, match="lm-eval-steer convert") as caught:
                load_any(path)
            assert str(path) in str(caught.value)

    def test_load_any_reads_ours(self, tmp_path):
        vector = TestGguf().vector()
        save_vector(vector, tmp_path / "v.safetensors")
        assert load_any(tmp_path / "v.safetensors").id == vector.id == load_vector(tmp_path / "v.safetensors").id

    def test_unknown(self, tmp_path):
        (tmp_path / "x.txt").write_text("hello")
        for path in (tmp_path / "x.txt", tmp_path, tmp_path / "absent.pt"):
            with pytest.raises(VectorFileError):
                recognise(path)
        with pytest.raises(ConfigError, match="Did you mean 'gguf'"):
            get_format("ggufs")

    def test_two_claims_are_listed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(FORMATS["caa_pt"].__class__, "recognises", lambda self, path: True)
        path = save({3: row(3)}, tmp_path / "p.pt")
        with pytest.raises(ConfigError, match=r"caa_pt, plain_pt.*--from"):
            recognise(path)

    def test_a_plugin_is_found(self, monkeypatch):
        from types import SimpleNamespace

        import lm_eval_steer.formats as formats

        class Mine(type(FORMATS["gguf"])):
            name = "mine"

        point = SimpleNamespace(name="mine", value="mine:Mine", load=lambda: Mine)
        monkeypatch.setattr(formats, "entry_points", lambda group: [point])
        assert isinstance(all_formats()["mine"], Mine)
        point.name = "gguf"
        with pytest.raises(ConfigError, match="its name is taken"):
            all_formats()

    def test_told_what_the_file_says_itself(self):
        with pytest.raises(ConfigError, match="--layer-base has no place with format caa_pt"):
            get_format("caa_pt").check_told(Told("v", layer_base="block_out"))
        with pytest.raises(ConfigError, match="Did you mean 'hidden_states'"):
            get_format("gguf").check_told(Told("v", layer_base="hidden_state"))  # type: ignore[arg-type]
