import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from scipy.stats import spearmanr

from sharpen.align.rewards import RewardPool, find_reward
from sharpen.align.rewards.code import CodeReward, PerfReward
from sharpen.align.rewards.verdict import Verdict
from sharpen.core.errors import ConfigError, DataError, ExecutionError

REFERENCE = "def total(n):\n    s = 0\n    for i in range(n):\n        s += i\n    return s\n"
TASK: dict[str, Any] = {"entry": "total", "inputs": [[300], [301]], "reference": REFERENCE}
SLOWER = REFERENCE.replace("s += i", "s += i; x = i * i; x = i * i; x = i * i; x = x + i * i")


def work(times: float) -> str:
    """A program that runs about ``times`` as many instructions as the reference."""
    return (
        "def total(n):\n"
        "    s = 0\n"
        f"    for i in range(int(n * {times})):\n"
        "        s += i\n"
        "    return n * (n - 1) // 2\n"
    )


@pytest.fixture(scope="module")
def code() -> Iterator[CodeReward]:
    made = CodeReward(clock="opcodes", cpu_s=0.5)
    yield made
    made.close()


ROWS = [
    ("no code here", "compile", -1.0),
    ("def total(n:\n    return 1\n", "compile", -1.0),
    ("def other(n):\n    return 1\n", "compile", -1.0),
    ("def total(n):\n    return 1\nreturn 2\n", "compile", -1.0),
    (
        "import sys\ndef total(n):\n    sys.settrace(None)\n    return n * (n - 1) // 2\n",
        "violation",
        -1.0,
    ),
    ("def total(n):\n    while True:\n        pass\n", "timeout", -0.6),
    ("def total(n):\n    return len(bytearray(8 << 30))\n", "memory", -0.6),
    ("def total(n):\n    return 1 // 0\n", "error", -0.6),
    ("import os\ndef total(n):\n    os._exit(0)\n", "error", -0.6),
    ("def total(n):\n    return 0\n", "wrong", -0.3),
    ("def total(n):\n    return float(n * (n - 1) // 2)\n", "wrong", -0.3),
    (REFERENCE, "correct", 0.5),
    ("def total(n):\n    return n * (n - 1) // 2\n", "correct", 1.0),
    (work(9.0), "correct", 0.0),
    (work(2.0), "correct", 0.25),
    (work(0.5), "correct", 0.75),
]


@pytest.mark.parametrize(("program", "outcome", "value"), ROWS)
def test_the_table(code: CodeReward, program: str, outcome: str, value: float) -> None:
    verdict = code.verdict(program, TASK)
    assert verdict.outcome == outcome, verdict
    assert code.value(verdict) == pytest.approx(value, abs=0.01)
    fenced = f"Here it is:\n```python\n{program}```\n"
    if outcome not in ("compile", "timeout"):
        assert code([""], [fenced], [TASK]) == [pytest.approx(value, abs=0.01)]
        closed = f"{program}```\nThat is all."  # of a prompt that ends in an open fence
        assert code([""], [closed], [TASK]) == [pytest.approx(value, abs=0.01)]


def test_a_sandbox_that_fails_gives_no_reward(code: CodeReward) -> None:
    assert code.value(Verdict(outcome="infra")) is None
    assert PerfReward().value(Verdict(outcome="infra")) is None


def test_a_small_difference_is_none(code: CodeReward) -> None:
    assert code([""], [work(1.03)], [TASK]) == [0.5]
    wide = CodeReward(clock="opcodes", dead_zone=0.8)
    assert wide([""], [work(2.0)], [TASK]) == [0.5]
    wide.close()


def test_processor_time_tells_fast_from_slow() -> None:
    made = CodeReward(clock="cpu", repeats=3)
    values = made([""] * 3, [work(0.1), work(1.0), work(9.0)], [TASK] * 3)
    made.close()
    fast, same, slow = (value or 0.0 for value in values)
    assert fast > same > slow
    assert same == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("clock", ["opcodes", "cpu"])
def test_very_slow_programs_are_not_timed_to_the_end(clock: str) -> None:
    made = CodeReward(clock=clock, repeats=3)  # type: ignore[arg-type]
    for times in (40.0, 4000.0):
        verdict = made.verdict(work(times), TASK)
        assert verdict.outcome == "correct"
        assert verdict.log_ratio is not None
        assert verdict.log_ratio < -math.log(20)
    assert verdict.log_ratio == -math.log(64)
    made.close()


def test_a_clock_that_is_replaced_is_tampering() -> None:
    forged = (
        "import time\ntime.thread_time_ns = lambda: 0\ndef total(n):\n    return n * (n - 1) // 2\n"
    )
    made = CodeReward(clock="cpu", repeats=1)
    assert made.verdict(forged, TASK).outcome == "violation"
    made.close()


def test_correct_programs_always_get_more() -> None:
    partial = CodeReward(clock="opcodes", partial=0.2)
    known = f"def total(n):\n    return {300 * 299 // 2}\n"
    assert partial([""], [known], [TASK]) == [pytest.approx(-0.2)]
    partial.close()
    for wrong in ({"half": 0.8}, {"wrong": 0.1}, {"untimed": -0.5}):
        with pytest.raises(ConfigError, match="every correct one"):
            CodeReward(**wrong)
    for name, value in {"partial": 0.3, "s_max": 1.0, "repeats": 0, "clock": "wall"}.items():
        with pytest.raises(ConfigError, match=name):
            CodeReward(**{name: value})


def test_tests_judge_what_has_no_outputs(code: CodeReward) -> None:
    tests = "def check(candidate):\n    assert candidate(4) == 6\n"
    about = {"entry": "total", "tests": tests}
    right, wrong = "def total(n):\n    return 6\n", "def total(n):\n    return 5\n"
    assert code(["", ""], [right, wrong], [about, about]) == [1.0, -0.3]
    expected = {"entry": "total", "inputs": [[4]], "expected": [6]}
    assert code(["", ""], [right, wrong], [expected, expected]) == [1.0, -0.3]


def test_problems_of_the_house_are_named(code: CodeReward) -> None:
    about = {"problem": "pairs_with_sum"}
    slow = code.verdict("def pairs_with_sum(*a):\n    return None\n", about)
    assert slow.outcome in ("wrong", "error")
    with pytest.raises(DataError, match="Did you mean 'pairs_with_sum'"):
        code([""], [""], [{"problem": "pairs_with_sums"}])


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({}, "neither 'entry'"),
        ({"entry": "f"}, "'inputs' or 'tests'"),
        ({"entry": "f g"}, "'entry' must be"),
        ({"entry": "f", "inputs": [1]}, "'inputs' must be"),
        ({"entry": "f", "inputs": [[1]]}, "needs 'expected'"),
        ({"entry": "f", "inputs": [[1]], "expected": []}, "as many"),
        ({"entry": "f", "tests": 3}, "'tests' must be text"),
    ],
)
def test_rows_that_cannot_be_judged_are_named(
    code: CodeReward, about: dict[str, Any], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        code([""], ["x = 1"], [about])


def test_a_reference_that_fails_is_no_fault_of_the_program(code: CodeReward) -> None:
    broken = {**TASK, "reference": "def total(n):\n    raise ValueError\n"}
    with pytest.raises(ExecutionError, match="the reference of 'total' fails"):
        code([""], [REFERENCE], [broken])


def test_perf_scores_rise_with_the_outcome() -> None:
    made = PerfReward(clock="opcodes", cpu_s=0.5)
    programs = ["oops(", "def total(n):\n    return 0\n", REFERENCE, work(0.5), work(2)]
    assert made([""] * 5, programs, [TASK] * 5) == [0.0, 1.0, 1.3, 2.0, 1.3]
    made.close()
    with pytest.raises(ConfigError, match="must rise"):
        PerfReward(fails=1.4)


def test_it_runs_in_the_pool_and_knows_what_it_has_seen() -> None:
    reward = find_reward("code", ["clock=opcodes"])
    assert pickle.loads(pickle.dumps(reward)) == reward
    with RewardPool(reward, workers=1, deadline_s=60) as pool:
        found = pool.score([""] * 3, [REFERENCE, work(0.5), REFERENCE], [TASK] * 3)
        assert found.values == [0.5, pytest.approx(0.75, abs=0.01), 0.5]
        assert pool.stats.known == 1
        with pytest.raises(DataError, match="cannot be judged"):
            pool.submit([""], [REFERENCE], [{}])


@pytest.mark.slow
@pytest.mark.parametrize(("clock", "least"), [("opcodes", 0.99), ("cpu", 0.95)])
def test_load_does_not_change_the_order(clock: str, least: float) -> None:
    programs = [work(math.exp(math.log(4) * (2 * i / 49 - 1))) for i in range(50)]
    about = {**TASK, "inputs": [[3000], [3001]]}
    made = CodeReward(clock=clock, dead_zone=0.0)  # type: ignore[arg-type]
    idle = made([""] * 50, programs, [about] * 50)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        loaded = made([""] * 50, programs, [about] * 50)
    finally:
        for one in busy:
            one.kill()
            one.wait()
        made.close()
    assert None not in (*idle, *loaded)
    assert spearmanr(idle, loaded).statistic >= least
