"""Assert-style tests in one sandbox, the program in another."""

from __future__ import annotations

import math
import struct
import time

import pytest

from sharpen.core.sandbox import Job, Limits, SandboxPool, encode

CHECK = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(5) == 6\n"


def judged(source: str, tests: str = CHECK, **options: object) -> Job:
    return Job(source=source, entry="f", tests=tests, **options)  # type: ignore[arg-type]


def test_a_right_program_passes(pool: SandboxPool) -> None:
    result = pool.run(judged("def f(x): return x + 1"))
    assert result.ok, result.error
    assert result.counts["calls"] == 2
    plain = pool.run(judged("def f(x): return x + 1", "assert f(1) == 2\nassert f(x=3) == 4"))
    assert plain.ok
    assert plain.counts["calls"] == 2


@pytest.mark.parametrize(
    ("source", "status", "message"),
    [
        ("def f(x): return 2", "wrong", "(line 3 of the tests)"),
        ("def f(x): return None", "wrong", "line 2 of the tests"),
        ("def f(x): raise ValueError('no')", "error", "no"),
        ("def f(x): return 1 / 0", "error", "division by zero"),
        ("def g(x): return 2", "error", "defines no 'f'"),
        ("def f(x) return 2", "error", "expected ':'"),
        ("import sys\ndef f(x): sys.exit(0)", "error", "exited early"),
        ("import os\ndef f(x): os._exit(0)", "error", "exited early"),
        ("import os\nos._exit(0)", "error", "exited early"),
        ("raise SystemExit", "error", "exited early"),
        ("def f(x): return 'x' * (1 << 40)", "memory", ""),
        ("import os\ndef f(x): os.kill(os.getpid(), 11)", "killed", "SIGSEGV"),
        ("def f(x):\n    while True: pass", "timeout", "processor time"),
        ("import time\ndef f(x): time.sleep(60)", "wall_timeout", "more than"),
        ("def f(x):\n    while True: print('x' * 1000)", "output_limit", "printed"),
    ],
)
def test_how_others_end(best: SandboxPool, source: str, status: str, message: str) -> None:
    limits = Limits(cpu_s=0.3, wall_s=1, memory_bytes=128 << 20)
    begin = time.monotonic()
    result = best.run(judged(source, limits=limits))
    assert result.status == status, result.summary()
    assert message in str(result.error)
    assert time.monotonic() - begin < 4
    assert best.run(judged("def f(x): return x + 1")).ok


CHEATS = {
    "equal to all": "class A:\n    def __eq__(s, o): return True\ndef f(x): return A()",
    "an int equal to all": (
        "class A(int):\n    def __eq__(s, o): return True\ndef f(x): return A(0)"
    ),
    "a test replaced": "import builtins\nbuiltins.AssertionError = KeyError\ndef f(x): return 0",
    "a check of its own": "def check(c): pass\ndef f(x): return 0",
    "looks for the tests": (
        "import gc, sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for v in list(frame.f_globals.values()) + list(frame.f_locals.values()):\n"
        "            if isinstance(v, str) and 'assert ' + 'candidate' in v: return x + 1\n"
        "        frame = frame.f_back\n    return 0"
    ),
    "answers before it is asked": (
        "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'\\0' * 64)\n"
        "    except OSError: pass\ndef f(x): return 0"
    ),
    "a forged answer": (
        "import os\ndef f(x):\n    for fd in range(3, 64):\n"
        "        try: os.write(fd, b'\\x01\\0\\0\\0\\0\\0\\0\\0N')\n"
        "        except OSError: pass\n    return 0"
    ),
}


@pytest.mark.parametrize("source", CHEATS.values(), ids=CHEATS)
def test_no_cheat_passes(best: SandboxPool, source: str) -> None:
    result = best.run(judged(source))
    assert result.status in ("wrong", "error", "violation"), result.summary()


def test_names_of_the_prompt_are_there_and_the_function_stands_for_itself(
    best: SandboxPool,
) -> None:
    prompt = "def helper(x): return x * 10\ndef f(x):\n    '''The task.'''\n"
    tests = "def check(candidate):\n    assert f(2) == helper(2)\n    assert candidate is f\n"
    assert best.run(judged("def f(x): return 10 * x", tests, prompt=prompt)).ok


def test_what_is_changed_in_place_is_seen_by_the_tests(best: SandboxPool) -> None:
    source = "def f(xs, d, s): xs.sort(); d['n'] = len(xs); s.add(9)"
    tests = (
        "def check(c):\n    xs, d, s = [3, 1], {}, set()\n    assert c(xs, d, s) is None\n"
        "    assert (xs, d, s) == ([1, 3], {'n': 2}, {9})\n"
    )
    assert best.run(judged(source, tests)).ok


def test_a_test_may_expect_an_exception(best: SandboxPool) -> None:
    tests = (
        "def check(c):\n    for kind, x in ((ValueError, 1), (KeyError, 2), (RuntimeError, 3)):\n"
        "        try: c(x)\n        except kind: continue\n        assert False\n"
    )
    source = (
        "class Own(Exception): pass\n"
        "def f(x): raise {1: ValueError, 2: KeyError, 3: Own}[x]('message')"
    )
    assert best.run(judged(source, tests)).ok
    swallowed = "def check(c):\n    try: c(1)\n    except ValueError: pass\n    assert c(0) == 1\n"
    ended = best.run(judged("def f(x):\n    if x: raise ValueError\n    return 2", swallowed))
    assert ended.status == "wrong"


def test_types_cross_to_the_tests(best: SandboxPool) -> None:
    tests = (
        "def check(c):\n    v = c(1.5)\n    assert type(v[0]) is tuple\n    assert v[1] == {1, 2}\n"
    )
    assert best.run(judged("def f(x): return [(x,), {2, 1}]", tests)).ok


@pytest.mark.parametrize(
    "answer",
    [
        5,
        {},
        {"error": 5, "status": "error"},
        {"error": {}, "status": "error"},
        {"error": {"type": "ValueError", "message": "m"}, "status": "infra"},
        {"error": {"type": "ValueError", "message": "m"}, "status": []},
        {"error": {"type": "E", "message": "m", "frames": [(math.inf, "f")]}, "status": "error"},
        {"value": 5, "changed": {}},
        {"value": b"N", "changed": {7: b"N"}},
        {"value": b"N", "changed": 7},
        {"value": b"", "changed": {}},
    ],
    ids=str,
)
def test_a_forged_answer_does_not_pass(best: SandboxPool, answer: object) -> None:
    payload = encode(answer)
    data = struct.pack("<Q", len(payload)) + payload
    source = f"import os, time\ndef f(x):\n    os.write(4, {data!r})\n    time.sleep(0.2)\n"
    result = best.run(judged(source))
    assert result.status in ("violation", "error", "wrong"), result.summary()
    assert best.run(judged("def f(x): return x + 1")).ok
