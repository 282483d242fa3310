"""Claims: which process works on which block, so that two on one ledger never do the same work.

A claim is a file ``NAME.GENERATION.claim`` that was created exclusively and says who holds it. Whoever finds that all
claims on a name are dead makes the next generation; after making one, a process holds the name only if its generation
is the highest and no other claim on the name is alive, else it takes its own back. Nothing is ever renamed or
overwritten, so two processes that find the same dead claim cannot both win, and one that is killed while it takes a
claim over leaves a dead claim like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lm_eval_steer.errors import WriteError
from lm_eval_steer.files import content_id

BEAT_SECONDS = 30.0
STALE_SECONDS = 600.0
_UNWRITTEN_SECONDS = 10.0
_FILE = re.compile(r"(?P<name>[A-Za-z0-9_-]+)\.(?P<generation>\d+)\.claim")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Owner:
    """A process, told apart from every other that ever had its number.

    Attributes:
        host: name of the machine, for people.
        place: content id of machine, boot and process namespace: within one, process numbers can be compared.
        pid: its number.
        start: when it started, in the kernel's ticks; None where the system does not say.
    """

    host: str
    place: str
    pid: int
    start: str | None

    def running(self) -> bool | None:
        """Whether the process runs; None where that cannot be seen from here."""
        if self.place != _place():
            return None
        state, start = _process(self.pid)
        return state not in ("", "Z", "X") and (self.start is None or start is None or start == self.start)

    def token(self) -> str:
        """Return the process as part of a file name."""
        return f"{self.place}-{self.pid}-{self.start or 0}"


def this_process() -> Owner:
    """Return the owner that this process is."""
    return Owner(socket.gethostname(), _place(), os.getpid(), _process(os.getpid())[1])


def abandoned(path: Path, token: str | None = None) -> bool:
    """Whether a temporary file or folder belongs to a process that is gone.

    Args:
        path: the file; one that was not touched for ten minutes counts as abandoned where nothing better is known.
        token: the :meth:`Owner.token` in its name.
    """
    if token is not None:
        place, pid, start = token.split("-")
        running = Owner("", place, int(pid), None if start == "0" else start).running()
        if running is not None:
            return not running
    return _age(path) > STALE_SECONDS


class Claims:
    """The claims in one folder.

    Args:
        folder: where they are; made when the first is taken.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, tuple[Path, threading.Event]] = {}

    def claim(self, name: str) -> bool:
        """Take ``name`` for this process; False where a living process (this one too) has it.

        A claim that is held is touched every half minute, so that other machines see its holder live.

        Raises:
            WriteError: the folder cannot be written.
            ValueError: the name is no file name.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be claimed: 1 to 64 letters, digits, - and _ are allowed.")
        others = self._files(name)
        if any(_alive(path) for path in others.values()):
            return False
        generation = max(others, default=-1) + 1
        mine = self._create(name, generation)
        if mine is None:
            return False
        others = {number: path for number, path in self._files(name).items() if path != mine}
        if max(others, default=-1) > generation or any(_alive(path) for path in others.values()):
            mine.unlink(missing_ok=True)
            return False
        for path in others.values():
            path.unlink(missing_ok=True)
        self._held[name] = (mine, _keep_beating(mine))
        return True

    def release(self, name: str) -> None:
        """Give ``name`` back; nothing happens where this object does not hold it."""
        if name in self._held:
            path, stop = self._held.pop(name)
            stop.set()
            path.unlink(missing_ok=True)

    def alive(self, name: str) -> bool:
        """Whether a living process has ``name``."""
        return any(_alive(path) for path in self._files(name).values())

    def count(self) -> tuple[int, int]:
        """Return how many claims are alive and how many are dead."""
        alive = [_alive(path) for path in self._folder.glob("*.claim")]
        return sum(alive), len(alive) - sum(alive)

    def clear_dead(self) -> None:
        """Remove the claims whose processes are gone, by taking them over: a name may be claimed anew meanwhile."""
        for path in sorted(self._folder.glob("*.claim")):
            match = _FILE.fullmatch(path.name)
            if match is not None and self.claim(match["name"]):
                self.release(match["name"])

    def _files(self, name: str) -> dict[int, Path]:
        found = ((_FILE.fullmatch(path.name), path) for path in self._folder.glob(f"{name}.*.claim"))
        return {int(match["generation"]): path for match, path in found if match is not None}

    def _create(self, name: str, generation: int) -> Path | None:
        path = self._folder / f"{name}.{generation}.claim"
        text = json.dumps(vars(this_process()), sort_keys=True).encode()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError as error:
            if self._folder.is_dir():
                return None
            raise WriteError(f"cannot claim {path}: {self._folder} is no folder.") from error
        except OSError as error:
            raise WriteError(f"cannot claim {path}: {error.strerror or error}.") from error
        try:
            os.write(number, text)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise WriteError(f"cannot claim {path}: {error.strerror or error}.") from error
        finally:
            os.close(number)
        return path


def _keep_beating(path: Path) -> threading.Event:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(path)

    threading.Thread(target=beat, daemon=True, name=f"claim {path.name}").start()
    return stop


def _alive(path: Path) -> bool:
    try:
        owner = Owner(**json.loads(path.read_text(encoding="utf-8")))
        running = owner.running()
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError):
        # Made a moment ago and not written yet; or its process was killed in between.
        return _age(path) < _UNWRITTEN_SECONDS
    return _age(path) < STALE_SECONDS if running is None else running


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


@cache
def _place() -> str:
    """Name what makes process numbers comparable. Containers share a boot, sometimes a host name, never a namespace."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return content_id(parts, 12)


def _process(pid: int) -> tuple[str, str | None]:
    """Return a process' state letter, empty where there is none, and its start."""
    if Path("/proc/self/stat").exists():
        try:
            # The name in parentheses may hold anything, spaces and parentheses too.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return "", None
        return fields[0], fields[19]
    try:
        os.kill(pid, 0)
    except PermissionError:
        return "?", None
    except OSError:
        return "", None
    return "?", None
