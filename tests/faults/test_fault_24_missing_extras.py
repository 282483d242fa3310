"""Row 24: an extra that is not installed names its ``pip install`` line; the package still imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lm_eval_steer.errors import EXIT_USAGE, MissingExtraError

EXTRAS = ("matplotlib", "gguf", "nnsight", "peft")


def without(modules: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python in which some modules cannot be imported."""
    block = f"import sys\nfor name in {modules!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", block + code], capture_output=True, text=True, check=False, timeout=120
    )


def test_the_package_and_its_help_need_no_extra() -> None:
    done = without(EXTRAS, "import lm_eval_steer\nfrom lm_eval_steer.cli.main import main\nmain(['--help'])")
    assert done.returncode == 0, done.stderr
    assert "embedded-model" in done.stdout


def test_a_picture_without_matplotlib() -> None:
    code = (
        "from lm_eval_steer.report.dose import DoseCurve\nfrom lm_eval_steer.report.figures import dose_response_png\n"
        "dose_response_png([DoseCurve('v', None, 1, None, {0.0: [1.0]})], 't', 'y')"
    )
    done = without(EXTRAS, code)
    assert 'pip install "lm-eval-steer[plots]"' in done.stderr


def test_unpacking_without_gguf(tmp_path: Path) -> None:
    code = f"import os\nos.environ['LM_EVAL_STEER_CACHE'] = {str(tmp_path)!r}\n"
    done = without(EXTRAS, code + "from lm_eval_steer.embedded import ensure\nensure()")
    assert 'pip install "lm-eval-steer[gguf]"' in done.stderr


def test_it_is_an_import_error_and_a_usage_error() -> None:
    with pytest.raises(ImportError) as caught:
        raise MissingExtraError("matplotlib", "plots")
    assert isinstance(caught.value, MissingExtraError)
    assert caught.value.exit_code == EXIT_USAGE
