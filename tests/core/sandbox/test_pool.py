"""Jobs in sandboxes: what goes in and comes out, how they end, what is left."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.sandbox import (
    Call,
    Job,
    Limits,
    Opaque,
    Raised,
    Result,
    SandboxPool,
    SandboxUnavailable,
    Status,
    encode,
    run_untrusted,
)
from sharpen.core.sandbox.pool import _Turns


def job(body: str, *args: object, **options: object) -> Job:
    return Job(
        source=textwrap.dedent(body),
        entry="f",
        inputs=[args],
        **options,  # type: ignore[arg-type]
    )


def test_values_go_in_and_come_out(best: SandboxPool) -> None:
    result = best.run(
        Job(
            source="def f(x, *, y=0): return [x, (y,), {x}, {'k': x}]",
            entry="f",
            inputs=[(1,), Call((2,), {"y": 3}), Call(kwargs={"x": "a"})],
        )
    )
    assert result.status is Status.OK
    assert result.ok
    expected = [[1, (0,), {1}, {"k": 1}], [2, (3,), {2}, {"k": 2}], ["a", (0,), {"a"}, {"k": "a"}]]
    assert list(result.outputs) == expected
    assert result.counts == {"calls": 3, "leftover": 0}
    assert result.tier == best.tier
    assert result.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert result.wall_s > 0
    assert "ok" in result.summary()
    assert result.to_json()["outputs"][2][0] == "a"


def test_nan_and_infinity_come_back_as_they_are(best: SandboxPool) -> None:
    source = "def f(x): return x, -x, float('inf'), -0.0"
    expected = [(math.nan, math.nan, math.inf, -0.0)]
    given = [(math.nan,)]
    result = best.run(Job(source=source, entry="f", inputs=given, expected=expected))
    assert result.status == "ok", result.error
    assert math.isnan(result.outputs[0][0])


@pytest.mark.parametrize("expected", [1, True, "1", [1.0], None, 1.0000000000000002])
def test_an_output_of_another_type_is_wrong(best: SandboxPool, expected: object) -> None:
    given = Job(source="def f(): return 1.0", entry="f", inputs=[()], expected=[expected])
    result = best.run(given)
    assert result.status == "wrong"
    assert result.error is not None
    assert "gave 1.0, expected" in result.error.message


def test_something_equal_to_all_is_wrong(best: SandboxPool) -> None:
    for base, made in (("object", "A()"), ("int", "A(5)"), ("str", "A('x')")):
        body = f"""
            class A({base}):
                def __eq__(self, other): return True
                def __ne__(self, other): return False
                __hash__ = {base}.__hash__
            def f(): return {made}
        """
        result = best.run(job(body, expected=[42]))
        assert result.status == "wrong", base


def test_what_does_not_cross_is_opaque(best: SandboxPool) -> None:
    result = best.run(job("def f(): return (i for i in range(3)), open, f"))
    assert result.ok
    assert all(isinstance(value, Opaque) for value in result.outputs[0])
    assert best.run(job("def f(): return iter([])", expected=[None])).status == "wrong"


def test_an_argument_that_cannot_cross_is_named(best: SandboxPool) -> None:
    with pytest.raises(DataError, match=r"args\[0\]\['x'\]: <class 'object'> cannot go into"):
        best.run(job("def f(x): pass", {"x": object()}))
    several = Job(source="def f(x): pass", entry="f", inputs=[(1,), (1, [print])])
    with pytest.raises(DataError, match=r"inputs\[1\].args\[1\]\[0\]: <class 'builtin"):
        best.submit(several)
    with pytest.raises(DataError, match=r"inputs\[0\] is 'text'"):
        best.run(Job(source="", entry="f", inputs=["text"]))


def test_an_exception_says_where_it_happened(best: SandboxPool) -> None:
    result = best.run(
        job("import json\ndef f(x):\n    y = 1\n    return g(x)\ndef g(x): return y/0", 1)
    )
    assert result.status == "error"
    error = result.error
    assert error is not None
    assert (error.type, error.message) == ("NameError", "name 'y' is not defined")
    assert error.frames == ((4, "f"), (5, "g"))
    assert "line 4, in f\n    return g(x)" in error.traceback
    broken = best.run(job("def f(:\n    pass"))
    assert broken.error is not None
    assert broken.error.type == "SyntaxError"
    assert broken.error.frames == ((1, "<module>"),)
    missing = best.run(job("g = 1"))
    assert missing.error is not None
    assert "defines no 'f'" in missing.error.message


def test_calls_go_on_after_an_exception_where_asked(best: SandboxPool) -> None:
    source = "def f(x): return 1 / x"
    inputs = [(1,), (0,), (2,)]
    stopped = best.run(Job(source=source, entry="f", inputs=inputs))
    assert stopped.status == "error"
    assert stopped.outputs == (1.0,)
    caught = best.run(Job(source=source, entry="f", inputs=inputs, catch=True))
    assert caught.ok
    assert caught.outputs == (1.0, Raised("ZeroDivisionError", "division by zero"), 0.5)


def test_arguments_that_were_changed_come_back(best: SandboxPool) -> None:
    body = "def f(xs, *, d): xs.sort(); d['n'] = len(xs)"
    result = best.run(
        Job(source=body, entry="f", inputs=[Call(([2, 1],), {"d": {}})], mutated=True)
    )
    assert result.mutated == (([[1, 2]], {"d": {"n": 2}}),)
    assert best.run(Job(source=body, entry="f", inputs=[Call(([],), {"d": {}})])).mutated == ()


def test_a_script_a_method_and_a_coroutine(best: SandboxPool) -> None:
    script = (
        "import sys\nif __name__ == '__main__':\n    print('hello')\n"
        "    print('no', file=sys.stderr)\n"
    )
    result = best.run(Job(source=script))
    assert (result.status, result.stdout, result.stderr) == ("ok", "hello\n", "no\n")
    method = "class A:\n    @staticmethod\n    def g(x): return x * 2"
    assert best.run(Job(source=method, entry="A.g", inputs=[(2,)])).outputs == (4,)
    coroutine = "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x"
    assert best.run(job(coroutine, 7)).outputs == (7,)
    record = (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(): return P(3)"
    )
    assert best.run(job(record)).outputs[0].x == 3


def test_nothing_of_a_job_is_there_for_the_next(best: SandboxPool) -> None:
    dirty = """
        import builtins, math, os, sys
        def f():
            seen = hasattr(builtins, 'left'), hasattr(math, 'left'), 'left' in os.environ
            builtins.left = math.left = 1
            os.environ['left'] = '1'
            sys.modules['left'] = math
            open('left', 'w').close()
            os.mkdir('folder')
            return seen, os.listdir('.')
    """
    for result in best.map([job(dirty)] * 4):
        assert result.outputs[0][0] == (False, False, False)
        assert sorted(result.outputs[0][1]) == ["folder", "left"]


def test_packages_are_there_where_asked_for(best: SandboxPool) -> None:
    without = best.run(job("def f(): import numpy"))
    assert without.error is not None
    assert without.error.type == "ModuleNotFoundError"
    own = best.run(job("def f(): import sharpen"))
    assert own.error is not None
    assert own.error.type == "ModuleNotFoundError"
    with SandboxPool(1, packages=["numpy"]) as pool:
        body = (
            "import numpy as np\nimport numpy.fft\n"
            "def f(x): return np.linalg.inv(x), np.float32(x.sum())"
        )
        result = pool.run(job(body, 2 * np.eye(2)))
        assert result.ok, result.error
        assert np.array_equal(result.outputs[0][0], np.eye(2) / 2)
        assert type(result.outputs[0][1]) is np.float32
        assert result.versions["numpy"] == np.__version__
        bomb = pool.run(
            job(
                "import numpy as np\ndef f(): return [np.ones(1 << 27) for _ in range(9)]",
                limits=Limits(memory_bytes=256 << 20),
            )
        )
        assert bomb.status in ("memory", "killed")
    with SandboxPool(1, packages=["no_such_package"]) as pool:
        result = pool.run(job("def f(): pass"))
        assert result.status == "infra"
        assert "no_such_package" in str(result.error)


def test_hashes_are_the_same_in_every_sandbox() -> None:
    body = "def f(): return hash('text'), list({'a', 'b', 'c', 'd'})"
    assert run_untrusted(body, "f", [()]).outputs == run_untrusted(body, "f", [()]).outputs


def test_a_result_as_large_as_allowed_comes_whole(best: SandboxPool) -> None:
    size = 60 << 20
    limits = Limits(memory_bytes=2 << 30)
    result = best.run(job(f"def f(): return b'x' * {size}", limits=limits))
    assert result.ok, result.error
    assert len(result.outputs[0]) == size
    small = Limits(result_bytes=1000)
    for count, status in ((900, "ok"), (1100, "output_limit")):
        ended = best.run(job(f"def f(): return 'x' * {count}", limits=small))
        assert ended.status == status, ended.error


def test_limits_of_a_job_stand_for_those_of_the_pool(best: SandboxPool) -> None:
    begin = time.monotonic()
    result = best.run(job("def f():\n    while True: pass", limits=Limits(cpu_s=0.3, wall_s=5)))
    assert result.status == "timeout"
    assert 0.2 < result.cpu_s < 1.5
    assert time.monotonic() - begin < 7
    noisy = best.run(job("def f(): print('x' * 100)", limits=Limits(output_bytes=50)))
    assert noisy.status == "output_limit"
    files = best.run(
        job("def f(): return [open(f'{i}', 'w') for i in range(50)]", limits=Limits(open_files=20))
    )
    assert files.error is not None
    assert "Too many open files" in files.error.message
    large = best.run(
        job(
            "def f():\n    with open('x', 'wb') as file: file.write(b'x' * 100_000)",
            limits=Limits(file_bytes=10_000),
        )
    )
    assert large.status in ("output_limit", "error")


def test_processes_are_limited(pool: SandboxPool) -> None:
    body = """
        import os, time
        def f():
            count = 0
            for _ in range(60):
                try:
                    pid = os.fork()
                except OSError:
                    return count
                if pid == 0:
                    time.sleep(60)
                count += 1
            return count
    """
    result = pool.run(job(body, limits=Limits(processes=8, wall_s=5)))
    assert result.ok, result.summary()
    counts_others = pool.tier == 1 and os.geteuid() != 0  # tasks of the user that come and go
    assert 3 <= result.outputs[0] <= (60 if counts_others else 8)
    assert result.counts["leftover"] == result.outputs[0]
    assert pool.run(job("def f(): return 1")).ok


def test_peak_memory_is_that_of_the_job(best: SandboxPool) -> None:
    small, large = best.map(
        [job("def f(): pass"), job("def f():\n    x = bytearray(64 << 20)\n    return len(x)")]
    )
    assert small.peak_mib < 16
    assert 60 < large.peak_mib < 90


def test_the_clock_of_a_thread_is_exact_in_a_sandbox(best: SandboxPool) -> None:
    body = """
        import statistics, time
        def f():
            found = []
            for _ in range(20):
                begin = time.thread_time()
                for _ in range(20_000): pass
                found.append(time.thread_time() - begin)
            return statistics.median(found)
    """
    names: dict[str, object] = {}
    exec(textwrap.dedent(body), names)
    here = names["f"]
    assert callable(here)
    ratios = []
    for _ in range(3):
        result = best.run(job(body))
        ratios.append(result.outputs[0] / here())
    # the failure to catch is a reading of 0; a busy machine shifts single ratios
    assert any(0.75 < ratio < 1.25 for ratio in ratios) or 0.4 < sorted(ratios)[1] < 2.5, ratios


def test_sleep_is_the_fault_of_the_program_and_is_not_tried_again(best: SandboxPool) -> None:
    begin = time.monotonic()
    result = best.run(job("import time\ndef f(): time.sleep(60)", limits=Limits(wall_s=1)))
    assert result.status == "wall_timeout"
    assert time.monotonic() - begin < 1.9


def test_one_alone_waits_for_those_beside_it() -> None:
    turns, seen = _Turns(), []

    def beside(name: str, gate: threading.Event) -> None:
        with turns.beside():
            seen.append(name)
            gate.wait(5)
            seen.append(f"{name} ends")

    def alone() -> None:
        with turns.alone():
            seen.append("alone")

    gate = threading.Event()
    first = threading.Thread(target=beside, args=("first", gate))
    first.start()
    while "first" not in seen:
        time.sleep(0.001)
    last = threading.Thread(target=alone)
    last.start()
    while turns._waiting_alone == 0:
        time.sleep(0.001)
    late = threading.Thread(target=beside, args=("late", gate))
    late.start()
    gate.set()
    for thread in (first, last, late):
        thread.join(5)
    assert seen[:3] == ["first", "first ends", "alone"]
    assert seen[3:] == ["late", "late ends"]


def test_a_sandbox_that_is_killed_is_the_machines_fault_and_replaced(pool: SandboxPool) -> None:
    assert pool.run(job("def f(): return 1")).ok
    sandbox = pool._workers[0].program
    assert sandbox is not None
    inner = psutil.Process(sandbox.pid).children(recursive=True)
    future = pool.submit(job("import time\ndef f(): time.sleep(60)"))
    time.sleep(0.3)
    inner[0].kill()  # the supervisor
    assert future.result(10).status == "infra"
    _, alive = psutil.wait_procs(inner, 3)
    assert not alive
    assert pool.run(job("def f(): return 2")).outputs == (2,)
    replaced = pool._workers[0].program
    assert replaced is not None
    assert replaced.pid != sandbox.pid


def test_a_sandbox_is_replaced_after_many_jobs(best: SandboxPool) -> None:
    with SandboxPool(1, best.tier) as pool:
        pool.run(job("def f(): pass"))
        sandbox = pool._workers[0].program
        assert sandbox is not None
        sandbox.runs = 199
        assert pool.run(job("def f(): pass")).ok
        assert pool._workers[0].program is None
        assert not psutil.pid_exists(sandbox.pid)
        assert pool.run(job("def f(): return 3")).outputs == (3,)


def test_two_pools_at_once(pool: SandboxPool, best: SandboxPool) -> None:
    body = "def f(x):\n    open('mine', 'w').write(str(x))\n    return int(open('mine').read())\n"
    jobs = [job(body, i) for i in range(20)]
    one = [pool.submit(j) for j in jobs]
    two = [best.submit(j) for j in jobs]
    assert [f.result().outputs[0] for f in one] == list(range(20))
    assert [f.result().outputs[0] for f in two] == list(range(20))


def test_results_can_be_awaited(best: SandboxPool) -> None:
    async def both() -> list[Result]:
        jobs = [job("def f(x): return x", i) for i in range(2)]
        return await asyncio.gather(*(asyncio.wrap_future(best.submit(j)) for j in jobs))

    assert [r.outputs for r in asyncio.run(both())] == [(0,), (1,)]


def test_a_closed_pool_has_cancelled_what_had_not_begun(best: SandboxPool) -> None:
    pool = SandboxPool(1, best.tier)
    sleeping = pool.submit(job("import time\ndef f(): time.sleep(0.5)"))
    waiting = [pool.submit(job("def f(): pass")) for _ in range(3)]
    while not sleeping.running():
        time.sleep(0.001)
    pool.close()
    assert sleeping.result().ok
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result()
    with pytest.raises(ConfigError, match="closed"):
        pool.run(job("def f(): pass"))
    pool.close()


def test_a_killed_parent_leaves_no_process(pool: SandboxPool) -> None:
    daemon = (
        "import os, signal, time\ndef f():\n    if os.fork() == 0:\n        os.setsid()\n"
        "        if os.fork() == 0: signal.signal(15, signal.SIG_IGN)\n    time.sleep(60)\n"
    )
    program = (
        "import sys, time\nfrom sharpen.core.sandbox import Job, SandboxPool\n"
        f"pool = SandboxPool(2, {pool.tier})\n"
        "pool.map([Job(source='def f(): pass', entry='f', inputs=[()])] * 4)\n"
        f"pool.submit(Job(source={daemon!r}, entry='f', inputs=[()]))\n"
        "time.sleep(0.5)\n"
        "folders = [w.program._folder for w in pool._workers if w.program]\n"
        "print(*filter(None, folders), flush=True)\ntime.sleep(60)\n"
    )
    started = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with started:
        assert started.stdout is not None
        folders = started.stdout.readline().split()
        below = psutil.Process(started.pid).children(recursive=True)
        assert len(below) >= 4
        os.kill(started.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(below, 5)
        assert not alive
    assert bool(folders) == (pool.tier == 1)
    assert not any(Path(folder).exists() for folder in folders)


def test_a_pool_that_is_closed_leaves_no_folder_and_no_group() -> None:
    before = _traces()
    with SandboxPool(2) as pool:
        pool.map([job("def f(): open('x', 'w').write('y')")] * 4)
    assert _traces() <= before


def _traces() -> set[Path]:
    own = f"sharpen-sandbox-{os.getpid()}-*"
    found = {path for root in Path("/sys/fs/cgroup").glob("*/") for path in root.rglob(own)}
    return found | set(Path("/dev/shm").glob(own))


def test_wrong_settings_are_told() -> None:
    for wrong in (
        lambda: SandboxPool(0),
        lambda: SandboxPool(1, tier="best"),
        lambda: Job(source="", entry="f()"),
        lambda: Job(source="", inputs=[()]),
        lambda: Job(source="", entry="f", inputs=[()], expected=[]),
        lambda: Job(source="", entry="f", inputs=[()], tests=""),
        lambda: Job(source=b"", entry="f"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError):
            wrong()
    with pytest.raises(SandboxUnavailable, match="--unsafe-no-sandbox"):
        SandboxPool(1, tier=0)
    assert SandboxUnavailable("x").exit_code == 3


def test_without_protection_it_runs_where_that_is_asked_for() -> None:
    result = run_untrusted(
        "import os\ndef f(): return os.getuid()", "f", [()], tier=0, allow_unsafe=True
    )
    assert result.outputs == (os.getuid(),)
    assert result.tier == 0


def test_names_are_there_before_the_program_is_run(best: SandboxPool) -> None:
    source = "def f(x=factor): return x * factor"
    given = Job(source=source, entry="f", inputs=[(), (3,)], names={"factor": 2})
    assert best.run(given).outputs == (4, 6)
    with pytest.raises(DataError, match=r"names\['g'\]: <class 'object'>"):
        best.run(Job(source="", names={"g": object()}))


def test_a_failure_can_be_raised_again(best: SandboxPool) -> None:
    for body, kind, text in (
        ("def f(): return {}['a']", KeyError, "'a'"),
        ("def f(): raise ValueError('no')", ValueError, "no"),
        ("class E(Exception): pass\ndef f(): raise E('own')", RuntimeError, "E: own"),
        ("def f(): b'\\xff'.decode()", RuntimeError, "UnicodeDecodeError: 'utf-8' codec"),
        ("import sys\ndef f(): sys.exit(3)", RuntimeError, "SystemExit: exited early"),
    ):
        error = best.run(job(body)).error
        assert error is not None
        raised = error.as_exception()
        assert type(raised) is kind
        assert str(raised).startswith(text)


def test_what_a_call_does_to_its_arguments_is_not_seen_by_the_next(best: SandboxPool) -> None:
    shared = [1]
    source = "def f(xs):\n    xs.append(0)\n    return len(xs)"
    assert best.run(Job(source=source, entry="f", inputs=[(shared,)] * 3)).outputs == (2, 2, 2)
    assert shared == [1]


def test_a_pool_of_a_parent_process_is_refused(best: SandboxPool) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b"ran"
        try:
            best.submit(job("def f(): pass"))
        except ConfigError as error:
            said = str(error).encode()
        finally:
            os.write(writing, said)
            os._exit(0)
    os.waitpid(pid, 0)
    assert b"made before a fork" in os.read(reading, 1000)
    os.close(reading)
    os.close(writing)
    assert best.run(job("def f(): return 1")).ok


def forged(payload: bytes) -> str:
    """A program that writes its result itself."""
    data = struct.pack("<Q", len(payload)) + payload
    return f"import os\ndef f():\n    os.write(3, {data!r})\n    os._exit(0)\n"


FORGED = {
    "nothing": {},
    "no status": {"outputs": [1]},
    "a status of ours": {"status": "infra"},
    "wrong as a status": {"status": "wrong"},
    "a list as status": {"status": []},
    "no outputs": {"status": "ok"},
    "too many outputs": {"status": "ok", "outputs": [1, 2]},
    "outputs that are none": {"status": "ok", "outputs": 5},
    "an error that is none": {"status": "error", "error": 5},
    "an error without a text": {"status": "error", "error": {"type": 1, "message": 2}},
    "lines that are none": {
        "status": "error",
        "error": {"type": "E", "message": "", "frames": [(math.inf, "f")]},
    },
    "arguments that are none": {"status": "ok", "outputs": [1], "mutated": [5]},
}


@pytest.mark.parametrize("frame", FORGED.values(), ids=FORGED)
def test_a_forged_result_is_a_violation(best: SandboxPool, frame: dict[str, object]) -> None:
    source = forged(encode(frame))
    result = best.run(Job(source=source, entry="f", inputs=[()], expected=[1]))
    assert result.status in ("violation", "error"), result.summary()


@given(st.binary(max_size=60))
@settings(max_examples=25)
def test_any_bytes_as_a_result_leave_the_pool_whole(best: SandboxPool, payload: bytes) -> None:
    result = best.run(Job(source=forged(payload), entry="f", inputs=[()], expected=[1]))
    assert result.status != "ok"
    assert best.run(job("def f(): return 1")).ok


def test_a_number_of_many_digits_can_be_told(best: SandboxPool) -> None:
    source = "def f(): return 1 << 40_000"
    result = best.run(Job(source=source, entry="f", inputs=[()], expected=[1]))
    assert result.status == "wrong"
    assert result.outputs == (1 << 40_000,)
    assert json.loads(json.dumps(result.to_json()))["outputs"] == [hex(1 << 40_000)]
    nested = best.run(Job(source="def f(): return {1: 1 << 40_000}", entry="f", inputs=[()]))
    assert json.dumps(nested.to_json())


def test_a_busy_program_that_takes_too_long_is_tried_again_alone() -> None:
    with SandboxPool(1) as pool:
        result = pool.run(job("def f():\n    while True: pass", limits=Limits(wall_s=0.4)))
        assert result.status == "wall_timeout"
        sandbox = pool._workers[0].program
        assert sandbox is not None
        assert sandbox.runs == 2
