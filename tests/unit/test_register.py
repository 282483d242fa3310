"""The registration: by hand, through the post-import hook, and what the hook leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lm_eval_steer import paths, register

ROOT = Path(__file__).resolve().parents[2]
PTH = ROOT / "zz_lm_eval_steer.pth"

# Starts from a Python without our finder, whether or not a .pth is installed, then installs this checkout's.
HOOKED = f"""
import importlib, os, sys
os.environ["LM_EVAL_STEER_NO_HOOK"] = "0"
sys.path.insert(0, {str(ROOT)!r})
import lm_eval_steer_hook
importlib.reload(lm_eval_steer_hook)
"""


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LM_EVAL_STEER_NO_HOOK": "1", "OMP_NUM_THREADS": "1", **env}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def check(code: str, **env: str) -> str:
    done = python(code, **env)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


# ------------------------------------------------------------------------------------------------ which paths


def test_packaged_tasks_come_before_the_users(tmp_path: Path) -> None:
    ours = paths.tasks_dir().resolve()
    assert register.with_packaged_tasks(None) == [ours]
    assert register.with_packaged_tasks(str(tmp_path)) == [ours, str(tmp_path)]
    assert register.with_packaged_tasks([tmp_path, "b"]) == [ours, tmp_path, "b"]
    assert register.with_packaged_tasks((tmp_path,)) == [ours, tmp_path]


def test_a_path_of_the_user_that_holds_ours_is_indexed_once() -> None:
    ours = paths.tasks_dir()
    assert register.with_packaged_tasks(ours) == [ours]
    assert register.with_packaged_tasks([str(ours.parent)]) == [str(ours.parent)]


def test_an_installation_without_tasks_warns_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "nowhere")
    assert register.with_packaged_tasks("mine") == ["mine"]
    assert "Install it again" in caplog.text


# ------------------------------------------------------------------------------------------------ by hand


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> list[list[Path]]:
    """The paths of every task index built, without the 12 s of building one."""
    from lm_eval.tasks._index import TaskIndex

    seen: list[list[Path]] = []
    monkeypatch.setattr(TaskIndex, "build", staticmethod(lambda paths, **_: seen.append(list(paths)) or {}))
    register.register()
    return seen


def test_task_manager_indexes_ours_after_the_defaults_and_before_the_users(indexed: list[list[Path]]) -> None:
    from lm_eval.tasks import TaskManager

    ours = paths.tasks_dir().resolve()
    TaskManager()
    TaskManager(include_path="mine")
    manager = TaskManager(None, ["mine", "also"], metadata={})
    defaults = indexed[0][0]
    assert indexed == [[defaults, ours], [defaults, ours, Path("mine")], [defaults, ours, Path("mine"), Path("also")]]
    assert defaults.name == "tasks"
    assert defaults.parent.name == "lm_eval"
    assert manager.include_path == ["mine", "also"]


def test_a_bare_task_manager_stays_bare(indexed: list[list[Path]]) -> None:
    from lm_eval.tasks import TaskManager

    assert TaskManager(include_defaults=False).include_path is None
    TaskManager(include_path="mine", include_defaults=False)
    assert indexed == [[], [Path("mine")]]


def test_registering_twice_changes_nothing(indexed: list[list[Path]]) -> None:
    from lm_eval.api.registry import model_registry
    from lm_eval.tasks import TaskManager

    init, names = TaskManager.__init__, set(model_registry)
    register.register()
    assert TaskManager.__init__ is init
    assert set(model_registry) == names >= {"hf", "steered_hf"}


def test_a_task_manager_of_another_shape_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import lm_eval.tasks.manager

    class Newer:
        def __init__(self, plugins: bool = True) -> None:
            self.plugins = plugins

    init = Newer.__init__
    monkeypatch.setattr(lm_eval.tasks.manager, "TaskManager", Newer)
    register.add_tasks()
    assert Newer.__init__ is init
    assert "--include_path" in caplog.text


def test_steps_aside_for_an_lm_eval_that_found_the_plugin_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.api.registry as registry

    found = registry.Registry("model")
    found.register("steered_hf", target="elsewhere:Model")
    monkeypatch.setattr(registry, "model_registry", found)
    register.add_model()
    assert dict(found.items()) == {"steered_hf": "elsewhere:Model"}


# ------------------------------------------------------------------------------------------------ the hook


def test_the_hook_loads_nothing_but_itself() -> None:
    loaded = check(
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules.pop('lm_eval_steer_hook', None)\n"
        "before = set(sys.modules)\nimport lm_eval_steer_hook\nprint(*sorted(set(sys.modules) - before))",
        LM_EVAL_STEER_NO_HOOK="0",
    )
    assert loaded.split() == ["lm_eval_steer_hook"]


def test_the_hook_registers_after_the_built_ins_and_loads_no_torch() -> None:
    out = check(
        HOOKED + "import lm_eval.models\n"
        "from lm_eval.api.registry import model_registry\n"
        "names = list(model_registry)\n"
        "print(names[-1], 'hf' in names, 'torch' in sys.modules, 'lm_eval_steer.model' in sys.modules)"
    )
    assert out.split() == ["steered_hf", "True", "False", "False"]


def test_the_hook_survives_reloads_and_gives_the_loaders_back() -> None:
    out = check(
        HOOKED + "import importlib.util, lm_eval.models\n"
        "spec = importlib.util.find_spec('lm_eval.tasks.manager')\n"
        "assert 'class TaskManager' in spec.loader.get_source('lm_eval.tasks.manager')\n"
        "import lm_eval.tasks.manager as manager\n"
        "for module in (lm_eval.models, manager, lm_eval_steer_hook):\n"
        "    importlib.reload(module)\n"
        "print(hasattr(manager.TaskManager.__init__, '_lm_eval_steer'), sys.meta_path.count(lm_eval_steer_hook))\n"
        "print(type(manager.__loader__).__name__, type(lm_eval.models.__spec__.loader).__name__)"
    )
    assert out.split() == ["True", "1", "SourceFileLoader", "SourceFileLoader"]


def test_two_copies_of_the_hook_register_once() -> None:
    out = check(
        HOOKED + "import types\n"
        "second = types.ModuleType('second'); sys.modules['second'] = second\n"
        "exec(open(lm_eval_steer_hook.__file__).read(), vars(second))\n"
        "assert sys.meta_path[:2] == [second, lm_eval_steer_hook]\n"
        "import lm_eval.models\n"
        "from lm_eval.api.registry import model_registry\n"
        "print(list(model_registry).count('steered_hf'), type(lm_eval.models.__loader__).__name__)"
    )
    assert out.split() == ["1", "SourceFileLoader"]


@pytest.mark.parametrize(
    ("value", "on"), [("1", False), ("yes", False), ("0", True), ("", True)], ids=["1", "yes", "0", "empty"]
)
def test_the_environment_switches_the_hook_off(value: str, on: bool) -> None:
    code = HOOKED.replace('"0"', repr(value), 1) + "print(lm_eval_steer_hook in sys.meta_path)"
    assert check(code).split() == [str(on)]


def test_a_hook_whose_package_is_gone_leaves_lm_eval_whole() -> None:
    out = check(
        HOOKED + "sys.modules['lm_eval_steer'] = None\n"
        "import lm_eval.models\n"
        "from lm_eval.api.registry import model_registry\n"
        "print('hf' in model_registry, 'steered_hf' in model_registry)"
    )
    assert out.split() == ["True", "False"]


def test_the_pth_is_one_import_line_and_silent_without_the_module(tmp_path: Path) -> None:
    text = PTH.read_text()
    assert text.startswith("import ")
    assert text.count("\n") == 1
    check(f"import sys; sys.modules['lm_eval_steer_hook'] = None\nexec({text!r})")
    (tmp_path / "lm_eval_steer_hook.py").write_text("def cut(")  # half a file, as a full disk leaves it
    check(
        f"import sys; sys.modules.pop('lm_eval_steer_hook', 0); sys.path.insert(0, {str(tmp_path)!r})\nexec({text!r})"
    )


# ------------------------------------------------------------------------------------------------ errors


def end_with(error: str, program: str) -> subprocess.CompletedProcess[str]:
    return python(
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = [{program!r}]\n"
        "from lm_eval_steer import errors, register\n"
        "register.show_errors_plainly(); register.show_errors_plainly()\n"
        f"raise {error}"
    )


@pytest.mark.parametrize(
    "program", ["/venv/bin/lm_eval", "/venv/bin/lm-eval", "lm_eval.exe", "/site-packages/lm_eval/__main__.py"]
)
def test_lm_evals_own_command_ends_with_one_message_and_the_errors_code(program: str) -> None:
    done = end_with("errors.LayerError('layer 99 is out of range')", program)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: layer 99 is out of range\n")
    assert end_with("errors.ShapeError('width')", program).returncode == 3


def test_other_errors_and_other_programs_keep_their_traceback() -> None:
    for done in (
        end_with("ValueError('a bug')", "/venv/bin/lm_eval"),
        end_with("errors.LayerError('mine')", "train.py"),
        end_with("errors.LayerError('mine')", "/app/__main__.py"),
        end_with("errors.LayerError('mine')", ""),
    ):
        assert done.returncode == 1
        assert done.stderr.startswith("Traceback")
