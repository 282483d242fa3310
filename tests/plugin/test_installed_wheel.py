"""The plugin as users get it: a wheel and an editable install, each in a fresh environment.

The fresh environments hold our wheel alone. The heavy dependencies come from the environment that runs the tests,
through a line in a ``.pth`` file: Python adds such a folder to ``sys.path`` but does not run the ``.pth`` files in it,
so the only hook that can act is the one just installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TASKS = ROOT / "tasks"
HOOK_FILES = {"lm_eval_steer_hook.py", "zz_lm_eval_steer.pth"}

pytestmark = pytest.mark.slow


def call(*command: str | Path, **env: str) -> str:
    """Run a command away from the checkout and return its stdout."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "LM_EVAL_STEER_NO_HOOK")
    }
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **env}
    done = subprocess.run(
        [str(word) for word in command], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Environment:
    """A virtual environment; its dependencies are borrowed."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    @classmethod
    def make(cls, folder: Path) -> Environment:
        call(sys.executable, "-m", "venv", "--without-pip", folder)
        made = cls(folder)
        borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (made.site_packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
        return made

    def pip(self, *arguments: str | Path) -> str:
        return call(sys.executable, "-m", "pip", "--python", self.python, *arguments)

    def run(self, code: str, **env: str) -> list[str]:
        return call(self.python, "-c", code, **env).split()

    def files(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """An environment with the plugin in it; afterwards it is uninstalled, and nothing may be left."""
    environment = Environment.make(tmp_path_factory.mktemp(request.param) / "venv")
    before = environment.files()
    what = [request.getfixturevalue("wheel")] if request.param == "wheel" else ["--no-build-isolation", "-e", ROOT]
    environment.pip("install", "--no-deps", "--no-index", "--ignore-installed", *what)
    yield environment
    environment.pip("uninstall", "--yes", "lm-eval-steer")
    assert environment.files() == before
    assert environment.run("print('quiet')") == ["quiet"]


def task_names() -> set[str]:
    """The names of the packaged tasks and groups, as their YAML files give them."""

    class Loader(yaml.SafeLoader):
        """Reads lm-eval's !function tags as nothing: here only the names matter."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    configs = [yaml.load(path.read_text(), Loader) for path in TASKS.rglob("*.yaml")]
    names = {config.get("group") or config.get("task") for config in configs}
    return {name for name in names if isinstance(name, str)}


# ------------------------------------------------------------------------------------------------ the wheel's files


def test_the_wheel_holds_what_it_must_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"lm_eval_steer", *HOOK_FILES}
    for folder in ("tasks", "vectors"):
        here = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        wanted = {f"lm_eval_steer/{name}" for name in here if "__pycache__" not in name}
        assert wanted
        assert {name for name in names if name.startswith(f"lm_eval_steer/{folder}/")} == wanted
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lm_eval_steer").rglob("*.py")}
    assert names >= modules | {"lm_eval_steer/py.typed"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_a_wheel_built_from_the_source_distribution_is_the_same(wheel: Path, tmp_path: Path) -> None:
    code = "import sys, hatchling.build as build; print(build.build_sdist(sys.argv[1]))"
    call("env", "-C", ROOT, sys.executable, "-c", code, tmp_path)
    (sdist,) = tmp_path.glob("*.tar.gz")
    call(sys.executable, "-m", "pip", "wheel", sdist, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    (again,) = tmp_path.glob("*.whl")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


# ------------------------------------------------------------------------------------------------ installed

REGISTRY = """
import sys, lm_eval.models
from lm_eval.api.registry import model_registry
print(*[name for name in ("hf", "steered_hf") if name in model_registry], "torch" in sys.modules)
"""

INDEXED = """
import lm_eval.tasks.manager as manager
from lm_eval.tasks._index import TaskIndex
build = TaskIndex.build
# without lm-eval's own 15,000 tasks, which take 12 s
TaskIndex.build = staticmethod(lambda paths, **_: build([path for path in paths if path.parent.name != "lm_eval"]))
print(*manager.TaskManager().all_tasks)
"""


def test_the_code_comes_from_the_installation(installed: Environment) -> None:
    where = Path(installed.run("import lm_eval_steer; print(lm_eval_steer.__file__)")[0])
    expected = installed.site_packages if "wheel" in str(installed.folder) else ROOT
    assert where == expected / "lm_eval_steer" / "__init__.py"


def test_python_starts_with_the_finder_and_nothing_more(installed: Environment) -> None:
    code = "import sys; print(*[name for name in sys.modules if name.startswith('lm_eval')])"
    assert installed.run(code) == ["lm_eval_steer_hook"]


def test_the_model_is_registered_beside_hf(installed: Environment) -> None:
    assert installed.run(REGISTRY) == ["hf", "steered_hf", "False"]


def test_the_packaged_tasks_are_found_by_name(installed: Environment) -> None:
    assert set(installed.run(INDEXED)) >= task_names() != set()


def test_the_environment_switches_it_off(installed: Environment) -> None:
    assert installed.run(REGISTRY, LM_EVAL_STEER_NO_HOOK="1") == ["hf", "False"]
    assert installed.run(INDEXED, LM_EVAL_STEER_NO_HOOK="1") == []


def test_a_process_that_is_started_fresh_has_it_too(installed: Environment) -> None:
    code = (
        "import multiprocessing\n"
        f"child = multiprocessing.get_context('spawn').Process(target=exec, args=({REGISTRY!r}, {{}}))\n"
        "child.start()\nchild.join()"
    )
    assert installed.run(code) == ["hf", "steered_hf", "False"]


def test_both_commands_are_there(installed: Environment) -> None:
    assert call(installed.folder / "bin" / "lm-eval-steer", "--version").startswith("lm-eval-steer ")
    names = ",".join(sorted(task_names()))
    assert "All tasks found and valid" in call(installed.python, "-m", "lm_eval", "validate", "--tasks", names)
