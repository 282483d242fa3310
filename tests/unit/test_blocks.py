"""Blocks and claims: the same bytes for the same arrays, and each block computed once."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lm_eval_steer.sweep import claims as claims_module
from lm_eval_steer.sweep.blocks import dump_arrays, load_arrays
from lm_eval_steer.sweep.claims import Claims, this_process
from lm_eval_steer.sweep.ledger import Ledger

ROOT = Path(__file__).parents[2]
ARRAYS = {"logp": np.linspace(-3, 0, 24, dtype=np.float32).reshape(2, 3, 4), "best": np.array([True, False])}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "ledger")


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


# ------------------------------------------------------------------------------------------------ files


def test_a_block_comes_back(ledger: Ledger) -> None:
    assert ledger.blocks.get("b") is None
    ledger.blocks.put("b", {**ARRAYS, "scalar": np.float64(2.5), "empty": np.zeros((0, 3), np.int16)})
    back = ledger.blocks.get("b")
    assert back is not None
    assert sorted(back) == ["best", "empty", "logp", "scalar"]
    assert back["logp"].dtype == np.float32
    assert (back["logp"] == ARRAYS["logp"]).all()
    assert (back["scalar"].shape, float(back["scalar"]), back["empty"].shape) == ((), 2.5, (0, 3))
    assert ledger.blocks.ids() == ["b"]


def test_equal_arrays_are_equal_bytes_whenever_and_however_they_are_laid_out() -> None:
    first = dump_arrays(ARRAYS)
    other = {
        "best": ARRAYS["best"],
        "logp": np.asfortranarray(ARRAYS["logp"]).astype(ARRAYS["logp"].dtype.newbyteorder(">")),
    }
    time.sleep(2.1)  # a zip's clock has steps of two seconds
    assert dump_arrays(other) == first


def test_python_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="pickle"):
        dump_arrays({"x": np.array([{}])})


def test_every_flipped_byte_is_noticed_or_harmless() -> None:
    data = dump_arrays(ARRAYS)
    noticed = 0
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x41
        try:
            back = load_arrays(bytes(damaged))
        except ValueError:
            noticed += 1
        else:
            assert sorted(back) == sorted(ARRAYS)
            assert all((back[name] == ARRAYS[name]).all() for name in ARRAYS)
    assert noticed > len(data) // 2


def test_a_damaged_block_is_set_aside_and_computed_again(ledger: Ledger) -> None:
    ledger.blocks.put("b", ARRAYS)
    path = ledger.blocks.folder / "b.npz"
    path.write_bytes(path.read_bytes()[:-30])
    assert ledger.blocks.get("b") is None
    (problem,) = ledger.problems
    assert (problem.what, problem.moved_to) == ("blocks/b.npz", "aside/blocks/b.npz")
    with ledger.blocks.computing("b") as mine:
        assert mine
        ledger.blocks.put("b", ARRAYS)
    assert ledger.problems == []


# ------------------------------------------------------------------------------------------------ claims


def test_a_claim_is_one_processs(ledger: Ledger) -> None:
    first, second = Claims(ledger.path / "claims"), Claims(ledger.path / "claims")
    assert first.claim("b")
    assert not first.claim("b")
    assert not second.claim("b")
    assert second.claim("c")
    second.release("b")  # not its own: nothing happens
    assert first.alive("b")
    first.release("b")
    assert second.claim("b")
    assert second.count() == (2, 0)
    with pytest.raises(ValueError, match="cannot be claimed"):
        first.claim("../x")


def write_claim(folder: Path, name: str, **changes: object) -> Path:
    import json

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.0.claim"
    path.write_text(json.dumps({**dataclasses.asdict(this_process()), **changes}))
    return path


def test_a_dead_claim_is_taken_over(ledger: Ledger) -> None:
    child = python("pass")
    child.wait()
    claims = Claims(ledger.path / "claims")
    write_claim(ledger.path / "claims", "gone", pid=child.pid)
    write_claim(ledger.path / "claims", "another", start="1")  # the number was given to another process since
    for name in ("gone", "another"):
        assert not claims.alive(name)
        assert claims.claim(name)
        claims.release(name)
    assert list((ledger.path / "claims").iterdir()) == []


def test_a_claim_of_another_machine_lives_as_long_as_it_is_touched(ledger: Ledger) -> None:
    path = write_claim(ledger.path / "claims", "b", place="elsewhere", pid=1)
    claims = Claims(ledger.path / "claims")
    assert claims.alive("b")
    assert not claims.claim("b")
    os.utime(path, (time.time() - 601,) * 2)
    assert claims.claim("b")


def test_a_claim_that_was_never_written_is_dead_after_a_while(ledger: Ledger) -> None:
    path = write_claim(ledger.path / "claims", "b")
    path.write_text("")
    assert Claims(ledger.path / "claims").alive("b")
    os.utime(path, (time.time() - 11,) * 2)
    assert not Claims(ledger.path / "claims").alive("b")


def test_a_held_claim_is_touched(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "BEAT_SECONDS", 0.02)
    claims = Claims(ledger.path / "claims")
    claims.claim("b")
    path = ledger.path / "claims" / "b.0.claim"
    os.utime(path, (1, 1))
    end = time.time() + 10
    while path.stat().st_mtime < 2 and time.time() < end:
        time.sleep(0.01)
    assert path.stat().st_mtime > 2
    claims.release("b")
    assert not path.exists()


def test_of_many_who_find_a_dead_claim_at_most_one_wins(ledger: Ledger) -> None:
    rounds, takers = 60, 6
    for round_ in range(rounds):
        name = f"b{round_}"
        write_claim(ledger.path / "claims", name, start="1")
        barrier, winners = threading.Barrier(takers), []

        def take(name: str = name, barrier: threading.Barrier = barrier, winners: list[int] = winners) -> None:
            claims = Claims(ledger.path / "claims")
            barrier.wait()
            if claims.claim(name):
                winners.append(1)

        threads = [threading.Thread(target=take) for _ in range(takers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) <= 1, name


def test_the_claim_is_given_back_after_an_error(ledger: Ledger) -> None:
    with pytest.raises(KeyError), ledger.blocks.computing("b"):
        raise KeyError("x")
    assert ledger.blocks.claims.count() == (0, 0)


def test_waiting_ends_when_the_block_is_there(ledger: Ledger) -> None:
    ledger.blocks.claim("b")
    other = Ledger.open(ledger.path).blocks
    assert not other.wait("b", timeout=0.05)
    timer = threading.Timer(0.2, lambda: ledger.blocks.put("b", ARRAYS))
    timer.start()
    assert other.wait("b", timeout=20)
    with other.computing("b") as mine:
        assert not mine


def test_waiting_ends_when_the_worker_is_killed(ledger: Ledger) -> None:
    code = (
        "import sys, time; from lm_eval_steer.sweep.ledger import Ledger\n"
        "assert Ledger.open(sys.argv[1]).blocks.claim('b'); print('mine', flush=True); time.sleep(60)"
    )
    child = python(code, str(ledger.path))
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "mine"
    assert not ledger.blocks.claim("b")
    (ledger.blocks.folder).mkdir(exist_ok=True)
    half = ledger.blocks.folder / ".b.npz.abc.tmp"
    half.write_text("half")
    child.send_signal(signal.SIGKILL)  # not waited for: a zombie is dead too
    with ledger.blocks.computing("b") as mine:
        assert mine
    assert not half.exists()
    child.wait()


WORKER = """
import random, sys, time
import numpy as np
from lm_eval_steer.sweep.ledger import Ledger
blocks = Ledger.open(sys.argv[1]).blocks
ids = [f"b{i}" for i in range(20)]
random.Random(int(sys.argv[2])).shuffle(ids)
for block in ids:
    with blocks.computing(block) as mine:
        if mine:
            print(block, flush=True)
            time.sleep(0.01)
            blocks.put(block, {"x": np.full(100, int(block[1:]))})
    assert (blocks.get(block)["x"] == int(block[1:])).all()
"""


def test_two_processes_compute_each_block_once(ledger: Ledger) -> None:
    children = [python(WORKER, str(ledger.path), str(seed)) for seed in range(3)]
    computed = [line for child in children for line in child.communicate(timeout=120)[0].split()]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sorted(computed) == sorted(f"b{i}" for i in range(20))
    assert sorted(ledger.blocks.ids()) == sorted(computed)
    assert ledger.blocks.claims.count() == (0, 0)


def test_a_random_array_comes_back_with_its_bits(ledger: Ledger) -> None:
    generator = random.Random(1)
    for number in range(20):
        dtype = generator.choice(["float32", "float64", "float16", "int64", "bool", "uint8"])
        shape = tuple(generator.randrange(4) for _ in range(generator.randrange(4)))
        array = np.random.default_rng(number).integers(0, 99, shape).astype(dtype)
        back = load_arrays(dump_arrays({"a.b/c": array}))["a.b/c"]
        assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
