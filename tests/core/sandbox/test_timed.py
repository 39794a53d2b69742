"""Times of calls in a sandbox: right for honest programs, doubted for others."""

from __future__ import annotations

import statistics
import time
from collections import deque
from decimal import Decimal

import pytest

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.sandbox import Call, Job, Limits, Result, SandboxPool, doubt, overhead_s, seen_s
from sharpen.core.sandbox.inside.program import digest
from sharpen.core.sandbox.job import same

WORK = """
def work(n):
    total = 0
    for i in range(n):
        total += i
    return total
"""
HONEST = WORK + "def f(n):\n    return work(n)\n"
LOAD = "def f(n):\n    return n * (n - 1) // 2\n"
LONG = 1_500_000

# Each does the whole work and wants to be seen doing less.
FORGERS = {
    "writes other numbers where times are kept": WORK
    + """
import sys
def f(n):
    result = work(n)
    frame = sys._getframe()
    while frame is not None:
        for value in list(frame.f_locals.values()):
            times = getattr(value, "times", None)
            if isinstance(times, list):
                times[:] = [1] * len(times)
        frame = frame.f_back
    return result
""",
    "works in a thread": WORK
    + """
import threading
def f(n):
    found = []
    thread = threading.Thread(target=lambda: found.append(work(n)))
    thread.start()
    thread.join()
    return found[0]
""",
    "works in another process": WORK
    + """
import os
def f(n):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, str(work(n)).encode())
        os._exit(0)
    data = os.read(read, 100)
    os.waitpid(pid, 0)
    return int(data)
""",
    "writes the result itself": WORK
    + """
import os, sys
def f(n):
    result = work(n)
    frame = sys._getframe()
    while "write" not in frame.f_locals:
        frame = frame.f_back
    one = {"status": "ok", "outputs": [result] * 3, "mutated": [], "times": [1] * 3, "marks": []}
    frame.f_locals["write"](3, one, 1 << 20)
    os._exit(0)
""",
}


def timed(pool: SandboxPool, source: str, clock: str = "cpu", n: int = LONG) -> Result:
    inputs = [(n,)] * 3
    return pool.run(Job(source=source, entry="f", inputs=inputs, clock=clock, limits=Limits()))  # type: ignore[arg-type]


def test_short_work_is_timed_as_outside(pool: SandboxPool) -> None:
    names: dict[str, object] = {}
    exec(HONEST, names)
    f, here = names["f"], []
    for _ in range(40):
        begin = time.thread_time()
        f(1500)  # type: ignore[operator]
        here.append(time.thread_time() - begin)
    job = Job(source=HONEST, entry="f", inputs=[(1500,)] * 40, clock="cpu")
    inside = statistics.median(pool.run(job).times[20:])
    assert inside == pytest.approx(statistics.median(here[20:]), rel=0.5)


def test_the_sum_agrees_with_what_is_seen_from_outside(pool: SandboxPool) -> None:
    result, trusted = timed(pool, HONEST), timed(pool, LOAD)
    assert result.ok
    assert len(result.times) == 3
    assert doubt(result, overhead_s(trusted)) == ""
    assert sum(result.times) == pytest.approx(seen_s(result, overhead_s(trusted)), rel=0.2)


@pytest.mark.parametrize("name", FORGERS)
def test_forged_times_are_doubted(pool: SandboxPool, name: str) -> None:
    trusted, honest = timed(pool, LOAD), timed(pool, HONEST)
    result = timed(pool, FORGERS[name])
    overhead = overhead_s(trusted)
    if result.ok:
        assert "from outside it took" in doubt(result, overhead)
        least = 1 if name.endswith("itself") else 3  # how often it worked
        assert seen_s(result, overhead) > 0.5 * least / 3 * sum(honest.times)
    else:
        assert result.status in ("error", "violation"), result.summary()


def test_replaced_clocks_change_nothing_and_are_seen(pool: SandboxPool) -> None:
    honest = timed(pool, HONEST)
    source = (
        HONEST
        + """
import time
for name in ("thread_time_ns", "perf_counter_ns", "process_time_ns", "time"):
    setattr(time, name, lambda: 0)
"""
    )
    for clock in ("cpu", "wall"):
        result = timed(pool, source, clock)
        assert result.ok
        assert "it replaced time.thread_time_ns" in result.suspicious
        assert sum(result.times) > 0.3 * sum(honest.times)


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("sys.settrace(None)", "sys.settrace"),
        ("sys.settrace(lambda *a: None)", "sys.settrace"),
        ("gc.get_objects()", "gc.get_objects"),
    ],
)
def test_counting_cannot_be_switched_off_unseen(pool: SandboxPool, line: str, seen: str) -> None:
    source = f"import gc, sys\n{WORK}\ndef f(n):\n    {line}\n    return work(n)\n"
    assert seen in timed(pool, source, "opcodes", 100).suspicious


def test_instructions_are_the_same_in_every_run(pool: SandboxPool) -> None:
    counts = {timed(pool, HONEST, "opcodes", 1000).times for _ in range(3)}
    assert len(counts) == 1
    (one,) = counts
    assert len(set(one)) == 1
    more = timed(pool, HONEST, "opcodes", 2000).times
    assert more[0] - one[0] == pytest.approx(one[0], rel=0.02)
    assert timed(pool, FORGERS["works in a thread"], "opcodes", 1000).times[0] > one[0]


@pytest.mark.parametrize(("clock", "limit"), [("cpu", 0.01), ("wall", 0.02), ("opcodes", 9000)])
def test_a_call_beyond_its_limit_ends_the_job(pool: SandboxPool, clock: str, limit: float) -> None:
    job = Job(
        source=HONEST + "def g(n):\n    try:\n        return f(n)\n    except BaseException:\n"
        "        return 0\n",
        entry="g",
        inputs=[(10,), (20,), (LONG,), (30,)],
        clock=clock,  # type: ignore[arg-type]
        call_limit=limit,
        limits=Limits(),
    )
    result = pool.run(job)
    assert result.status == "timeout"
    assert result.outputs == (45, 190)
    assert len(result.times) == 2
    assert "call 2" in str(result.error)


def test_calls_that_raise_have_times_too(pool: SandboxPool) -> None:
    source = "def f(n):\n    return 1 // n\n"
    job = Job(source=source, entry="f", inputs=[(0,), (1,)], clock="cpu", catch=True)
    result = pool.run(job)
    assert result.ok
    assert len(result.times) == 2


def test_forged_numbers_are_a_violation(pool: SandboxPool) -> None:
    source = FORGERS["writes the result itself"].replace('"times": [1] * 3', '"times": [-1, 0.5]')
    result = timed(pool, source, n=10)
    assert result.status == "violation"


def test_wrong_clocks_are_told() -> None:
    for given in (
        {"clock": "sun"},
        {"clock": "cpu", "entry": None, "inputs": ()},
        {"call_limit": 1.0},
        {"clock": "cpu", "call_limit": 0},
    ):
        with pytest.raises(ConfigError, match=r"clock|call_limit"):
            Job(**{"source": "", "entry": "f", "inputs": [()], **given})  # type: ignore[arg-type]


def test_arguments_encoded_once_are_the_same_values(pool: SandboxPool) -> None:
    shared = [1, -0.0]
    given = [shared, shared, {"a": (True, None, b"x", 1 << 80)}, Decimal("1.50"), deque([1])]
    source = """
def f(*args):
    args[0].append(3)
    return [type(a).__name__ for a in args], list(args)
"""
    call = Call(given).encoded()
    for inputs in ([given], [call], [call, call]):
        result = pool.run(Job(source=source, entry="f", inputs=inputs))
        assert result.ok, result.summary()
        for types, values in result.outputs:
            assert types == ["list", "list", "dict", "Decimal", "deque"]
            assert same(values, [[1, -0.0, 3], *given[1:]])
    nested: list[object] = []
    nested.append(nested)
    for wrong in (nested, object(), [len]):
        with pytest.raises(DataError, match=r"args\[0\]"):
            Call([wrong]).encoded()


def test_digests_stand_for_outputs(pool: SandboxPool) -> None:
    values = [[1, 2.5, "x"], [True, 2.5, "x"], [1, 2.5, "x"], (1, 2.5, "x"), -0.0, 0.0]
    source = "def f(x):\n    return x\n"
    job = Job(source=source, entry="f", inputs=[(v,) for v in values], digests=True)
    outputs = pool.run(job).outputs
    assert list(outputs) == [digest(v) for v in values]
    assert len(set(outputs)) == len(values) - 1
    other = Job(source="def f():\n    return object()\n", entry="f", inputs=[()], digests=True)
    assert pool.run(other).outputs == (None,)
    lists = [1, 2]
    assert digest([lists, lists]) == digest([[1, 2], [1, 2]])
