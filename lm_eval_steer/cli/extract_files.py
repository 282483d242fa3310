"""What the kinds of ``lm-eval-steer extract`` share: files planned and written, progress, the embedded model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_steer.errors import ConfigError
from lm_eval_steer.files import check_writable

if TYPE_CHECKING:
    from lm_eval_steer.vector import SteeringVector

_SUFFIX = ".safetensors"
_LINES = 5


def control_path(out: Path, name: str) -> Path:
    """Return the file of a control beside ``out`` (``v.safetensors`` → ``v.letter.safetensors``), ``out`` for no name.

    The file of a method is named in the same way.

    Raises:
        ConfigError: ``out`` does not end in ``.safetensors``.
    """
    if out.suffix != _SUFFIX:
        raise ConfigError(f"--out {str(out)!r} must end in {_SUFFIX}; that is what is written.")
    return out.with_name(f"{out.stem}.{name}{_SUFFIX}") if name else out


def planned_files(out: Path, methods: Sequence[str], controls: str, *, force: bool) -> list[dict[str, Path]]:
    """Return each method's files, by control and with an empty name for the vector, once they can be written.

    Args:
        out: what ``--out`` said.
        methods: their names; an empty one for the only method.
        controls: what ``--controls`` said.
        force: whether files that exist may be overwritten.

    Raises:
        ConfigError: an unknown control, or a file that exists.
        WriteError: the folder cannot be written.
    """
    from lm_eval_steer.extraction.controls import parse_controls

    names = ["", *map(str, parse_controls(controls))]
    outs = [control_path(out, method) for method in methods]
    paths = [{name: control_path(each, name) for name in names} for each in outs]
    check_free([path for files in paths for path in files.values()], force=force)
    return paths


def check_free(paths: Sequence[Path], *, force: bool) -> None:
    """Check that files of one folder can be written, and nothing is lost by it.

    Args:
        paths: the files.
        force: whether those that exist may be overwritten.

    Raises:
        ConfigError: one exists.
        WriteError: the folder cannot be written.
    """
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise ConfigError(f"{', '.join(there)} exists already; pass --force to overwrite, or another --out.")
    check_writable(paths[0].parent)


def write_files(vector: SteeringVector, controls: Mapping[str, SteeringVector], files: Mapping[str, Path]) -> None:
    """Write a vector and its controls where :func:`planned_files` put them."""
    from lm_eval_steer.formats.native import save_vector

    for control, path in files.items():
        save_vector(controls[control] if control else vector, path)


def unpack_embedded(pretrained: str) -> None:
    """Fetch the embedded model where it is asked for and not there yet."""
    from lm_eval_steer import embedded
    from lm_eval_steer.loading import EMBEDDED

    if pretrained == EMBEDDED and embedded.find() is None:
        embedded.ensure(progress=say)


def say(message: str) -> None:
    """Print a line on stderr."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def extract_progress() -> Iterator[Callable[[int, int], None]]:
    """Give a progress callback: a bar on a terminal's stderr, else about five plain lines a pass."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        shown = 0

        def line(done: int, total: int) -> None:
            nonlocal shown
            part = _LINES * done // total
            if part != shown:  # a new pass begins at a lower part
                shown = part
                say(f"activations: {done} of {total} answers")

        yield line
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("activations", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
