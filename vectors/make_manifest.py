"""Writes MANIFEST.json from the vector files beside it: run it after making them again (see README.md)."""

from __future__ import annotations

from pathlib import Path

from lm_eval_steer.files import sha256_file, write_json
from lm_eval_steer.formats.native import load_vector

HERE = Path(__file__).resolve().parent
COMMAND = (
    "lm-eval-steer extract --pretrained embedded --pairs positivity --method mean_text --layers all "
    "--controls random,letter --out smollm2-positivity.safetensors"
)


def main() -> None:
    """Write the manifest."""
    vectors = {}
    for path in sorted(HERE.glob("*.safetensors")):
        vector = load_vector(path)
        made = vector.provenance
        vectors[path.name.removesuffix(".safetensors").replace(".", "-")] = {
            "file": path.name,
            "sha256": sha256_file(path),
            "id": vector.id,
            "model": made.model_id,
            "method": made.method,
            "control": made.control,
            "layers": [vector.layers[0], vector.layers[-1]],
            "d_model": vector.d_model,
            "licence": made.licence,
            "command": COMMAND,
        }
    write_json(HERE / "MANIFEST.json", {"schema": 1, "vectors": vectors})


if __name__ == "__main__":
    main()
