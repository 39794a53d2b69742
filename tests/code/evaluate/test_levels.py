"""Programs judged on inputs of growing size: right ones, wrong ones, slow ones, cheats."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sharpen.code.evaluate.config import EvalConfig
from sharpen.code.evaluate.levels import Pools, Verdict, judge, prepare
from sharpen.code.metrics import level_efficiency
from sharpen.code.problems import Problem
from sharpen.core.errors import ExecutionError
from sharpen.core.sandbox import SandboxPool, detect_tiers

if sys.platform != "linux" or detect_tiers().best < 1:
    pytest.skip("sandboxes need Linux with Landlock", allow_module_level=True)

REFERENCE = """
def total(n):
    s = 0
    for i in range(n):
        s += i
    return s
"""
GENERATOR = """
def generate(size, level, index, seed):
    return (size + index,)
"""
PROBLEM = Problem(
    name="total",
    entry="total",
    prompt="def total(n):\n    '''Sum of the numbers below n.'''",
    reference=REFERENCE,
    generator=GENERATOR,
    levels=(3, 1000, 2000, 4000),
    counts=(2, 2, 2, 2),
)
COUNTS = EvalConfig(clock="opcodes", repeats=1)
CPU = EvalConfig(clock="cpu", repeats=3)


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    with SandboxPool(1) as ours, SandboxPool(1) as theirs:
        yield Pools(ours, theirs)


def verdict(
    program: str, pools: Pools, config: EvalConfig = COUNTS, problem: Problem = PROBLEM
) -> Verdict:
    return judge(problem, program, prepare(problem, config, pools), config, pools)


def test_the_reference_has_efficiency_one_by_counts(pools: Pools) -> None:
    found = verdict(REFERENCE, pools)
    assert found.passed
    assert found.efficiency == pytest.approx(1.0, abs=1e-12)
    assert found.times == prepare(PROBLEM, COUNTS, pools).times


def test_efficiency_is_the_formula_of_the_counts(pools: Pools) -> None:
    program = REFERENCE.replace("s += i", "s += i + 0 * i")
    prepared = prepare(PROBLEM, COUNTS, pools)
    found = judge(PROBLEM, program, prepared, COUNTS, pools)
    assert found.passed
    assert found.efficiency == pytest.approx(level_efficiency(found.times, prepared.times))
    assert 0.2 < found.efficiency < 1


def test_a_faster_program_is_above_one(pools: Pools) -> None:
    for config in (COUNTS, CPU):
        assert (
            verdict("def total(n):\n    return n * (n - 1) // 2\n", pools, config).efficiency > 1.3
        )


@pytest.mark.parametrize("config", [COUNTS, CPU], ids=["opcodes", "cpu"])
def test_a_program_that_gets_slow_is_right_but_not_efficient(
    pools: Pools, config: EvalConfig
) -> None:
    problem = replace(PROBLEM, levels=(3, 1000, 2000, 200_000), counts=(1, 1, 1, 1))
    slow = "def total(n):\n    return sum(sum(1 for _ in range(j)) for j in range(n))\n"
    slower = "def total(n):\n    while n > 100_000:\n        pass\n" + slow.partition("\n")[2]
    for program in (slow, slower):
        found = verdict(program, pools, config, problem)
        assert found.passed
        assert found.efficiency < 0.05
        assert found.why.startswith("level ")


def test_wrong_on_a_late_level_is_wrong(pools: Pools) -> None:
    found = verdict(REFERENCE.replace("return s", "return s if n < 4000 else -1"), pools)
    assert not found.passed
    assert found.efficiency == 0
    assert found.why == "level 3: input 0: wrong output"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("def total(n):\n    return float(n * (n - 1) // 2)\n", "wrong output"),
        ("def total(n):\n    return 1 // 0\n", "ZeroDivisionError"),
        ("def other(n):\n    return 1\n", "no 'total'"),
        ("def total(n:\n", "SyntaxError"),
        ("import os\ndef total(n):\n    os._exit(0)\n", "exited early"),
        ("def total(n):\n    while True:\n        pass\n", "level 0: timeout"),
        pytest.param(
            "import time\ndef total(n):\n    time.sleep(1000)\n",
            "level 0: wall_timeout",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_fails_is_told(pools: Pools, program: str, why: str) -> None:
    config = replace(CPU, repeats=1)
    found = verdict(program, pools, config)
    assert not found.passed
    assert why in found.why


def test_no_memory_on_a_late_level_is_no_error(pools: Pools) -> None:
    config = replace(COUNTS, memory_bytes=200 << 20)
    program = REFERENCE.replace("s = 0", "s = 0 * len(bytearray(1 << 30)) if n >= 2000 else 0")
    found = verdict(program, pools, config)
    assert found.passed
    assert found.times[2:] == [None]
    assert 0 < found.efficiency < 0.6


def test_what_was_right_before_a_hang_and_what_was_wrong_is_told(pools: Pools) -> None:
    hang = "def total(n):\n    while n == 1001:\n        pass\n    return {}\n"
    config = replace(CPU, repeats=1)
    right = verdict(hang.format("n * (n - 1) // 2"), pools, config)
    assert right.passed
    assert right.why.startswith("level 1: timeout")
    wrong = verdict(hang.format("n * (n - 1) // 2 + (n == 1000)"), pools, config)
    assert not wrong.passed
    assert wrong.why == "level 1: input 0: wrong output"


def test_a_checker_decides_where_values_differ(pools: Pools) -> None:
    checker = "def check(args, expected, output):\n    return abs(expected - output) < 1\n"
    problem = replace(PROBLEM, checker=checker)
    program = "def total(n):\n    return n * (n - 1) / 2 + {}\n"
    assert verdict(program.format("0.5"), pools, problem=problem).passed
    assert not verdict(program.format("1.5"), pools, problem=problem).passed
    refuses = replace(problem, checker="def check(args, expected, output):\n    return False\n")
    with pytest.raises(ExecutionError, match="its checker refuses"):
        prepare(refuses, COUNTS, pools)


def test_results_are_not_kept_from_one_repeat_to_the_next(pools: Pools) -> None:
    program = REFERENCE.replace(
        "def total(n):", "from functools import cache\n@cache\ndef total(n):"
    )
    problem = replace(PROBLEM, levels=(3, 100_000, 200_000, 400_000), counts=(1, 1, 1, 1))
    assert verdict(program, pools, CPU, problem).efficiency < 1.5


def test_a_program_that_hides_its_time_gains_nothing(pools: Pools) -> None:
    problem = replace(PROBLEM, levels=(3, 1_000_000, 2_000_000, 4_000_000), counts=(1, 1, 1, 1))
    thread = (
        REFERENCE.replace("total", "work")
        + "import threading\ndef total(n):\n    found = []\n"
        + "    one = threading.Thread(target=lambda: found.append(work(n)))\n"
        + "    one.start()\n    one.join()\n    return found[0]\n"
    )
    found = verdict(thread, pools, CPU, problem)
    assert found.passed
    assert "from outside" in found.suspicious
    assert found.efficiency < 1.35  # the reference has 1, and what takes no time 1.5


def test_a_reference_that_fails_is_told(pools: Pools) -> None:
    with pytest.raises(ExecutionError, match="its own solution"):
        prepare(replace(PROBLEM, reference="def total(n):\n    return 1 // 0\n"), COUNTS, pools)


@pytest.mark.parametrize("value", ["{1: 'a', 'b': 2}", "{3, 'x', (1, 2)}", "Decimal('1.5')", "'x'"])
def test_equal_values_of_any_kind_are_right(pools: Pools, value: str) -> None:
    """Also where a dict or set was filled in another order, or a type is not built in."""
    start = f"from decimal import Decimal\ndef total(n):\n    x = {value}\n"
    turn = "    if isinstance(x, (dict, set)):\n        x = type(x)(reversed(list("
    turn += "x.items() if isinstance(x, dict) else x)))\n"
    problem = replace(PROBLEM, reference=start + "    return x, n\n")
    config = replace(COUNTS, alpha=100.0)
    assert verdict(start + turn + "    return x, n\n", pools, config, problem).passed
    assert not verdict(start + turn + "    return x, n + 1\n", pools, config, problem).passed
