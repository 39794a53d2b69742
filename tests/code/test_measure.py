"""Measurement of programs: statistics against scipy, clocks that cannot be fooled, odd programs."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sharpen.code.measure import (
    Late,
    Program,
    Ratio,
    Timer,
    compare,
    decide,
    encode_inputs,
    ratio_of_pairs,
)
from sharpen.code.measure.statistics import _rank_counts, pairs_needed
from sharpen.core.errors import ConfigError, ExecutionError


def program(source: str, entry: str = "f") -> Program:
    return Program(source=source, entry=entry)


LOOP = (
    "def f(n):\n    total = 0\n    for i in range(n):\n        total += i * i\n    return total\n"
)
FORMULA = "def f(n):\n    return (n - 1) * n * (2 * n - 1) // 6\n"
SMALL = encode_inputs([((500,), {})])


# -- statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_chances_of_rank_sums_are_counted(n: int) -> None:
    sums = [0]
    for rank in range(1, n + 1):
        sums = [*sums, *(s + rank for s in sums)]
    wanted = np.bincount(sums, minlength=n * (n + 1) // 2 + 1) / 2**n
    assert np.allclose(_rank_counts(n), wanted)


@pytest.mark.parametrize(("n", "error"), [(9, 0.01), (14, 0.05), (20, 0.01), (60, 0.02)])
def test_the_interval_holds_the_ratios_that_wilcoxons_test_does_not_refuse(
    n: int, error: float
) -> None:
    rng = np.random.default_rng(n)
    a, b = np.exp(rng.normal(0.2, 0.1, n)), np.ones(n)
    found = ratio_of_pairs(a.tolist(), b.tolist(), error)
    d = np.log(a)
    method = "exact" if n <= 25 else "approx"
    for ratio, is_inside in (
        (found.low * 1.001, True),
        (found.low * 0.995, False),
        (found.high * 0.999, True),
        (found.high * 1.005, False),
    ):
        p = stats.wilcoxon(d - math.log(ratio), method=method).pvalue
        assert (p > error * 0.9) == is_inside
    means = [(d[i] + d[j]) / 2 for i in range(n) for j in range(i, n)]
    assert found.value == pytest.approx(math.exp(np.median(means)))


def test_intervals_leave_out_the_truth_as_seldom_as_they_say() -> None:
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(600):
        noise = rng.standard_t(2, 20) * 0.05  # outliers
        found = ratio_of_pairs(np.exp(0.1 + noise).tolist(), [1.0] * 20, 0.05)
        missed += not found.low <= math.exp(0.1) <= found.high
    assert 10 <= missed <= 48  # 30 are expected


def test_few_pairs_say_nothing() -> None:
    assert pairs_needed(0.01) == 8
    found = ratio_of_pairs([2.0] * 7, [1.0] * 7, 0.01)
    assert (found.value, found.low, found.high) == (pytest.approx(2), 0, math.inf)
    found = ratio_of_pairs([2.0] * 8, [1.0] * 8, 0.01)
    assert (found.low, found.high) == (pytest.approx(2), pytest.approx(2))


@pytest.mark.parametrize(
    ("ratio", "wanted"),
    [
        (Ratio(1.05, 1.01, 1.1), "faster"),
        (Ratio(1.02, 1.01, 1.03), "unclear"),  # surely faster, but by less than matters
        (Ratio(1.05, 0.99, 1.1), "unclear"),
        (Ratio(0.9, 0.85, 0.95), "slower"),
        (Ratio(1.0, 0.98, 1.02), "same"),
        (Ratio(1.0, 0.9, 1.1), "unclear"),
        (Ratio(2.0, 0.0, math.inf), "unclear"),
    ],
)
def test_decisions(ratio: Ratio, wanted: str) -> None:
    assert decide(ratio) == wanted


# -- comparing ------------------------------------------------------------------------------------


def test_a_better_algorithm_is_faster_and_the_other_way_round_slower() -> None:
    inputs = [((300,), {}), ((1000,), {})]
    found = compare(program(LOOP), program(FORMULA), inputs, budget_s=2, opcodes=True)
    assert found.decision == "faster"
    assert found.low > 10
    assert found.note == ""
    assert found.per_input[1] > found.per_input[0] > 5
    assert found.opcodes is not None
    assert found.opcodes[0] > 50 * found.opcodes[1]
    assert "faster" in found.summary()
    back = compare(program(FORMULA), program(LOOP), inputs, budget_s=2)
    assert back.decision == "slower"
    assert back.high < 0.1


@pytest.mark.slow
def test_a_program_is_not_faster_than_itself() -> None:
    found = [compare(program(LOOP), program(LOOP), [((400,), {})], budget_s=1.5) for _ in range(6)]
    assert not {"faster", "slower"} & {one.decision for one in found}


def test_a_slow_program_gets_as_many_pairs_as_an_interval_needs() -> None:
    slow = "import time\ndef f():\n    end = time.thread_time() + 0.03\n"
    slow += "    while time.thread_time() < end: pass\n"
    half = slow.replace("0.03", "0.015")
    found = compare(program(slow), program(half), [((), {})], budget_s=0.5)
    assert found.pairs >= pairs_needed(0.01 / 3)
    assert found.decision == "faster"
    assert found.ratio == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clock": "sun"}, "clock='sun'"),
        ({"min_effect": 1.0}, "min_effect=1"),
        ({"confidence": 1.0}, "confidence=1"),
        ({"budget_s": 0}, "budget_s=0"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(program(LOOP), program(LOOP), [((1,), {})], **change)


def test_inputs_that_cannot_cross_are_named() -> None:
    with pytest.raises(ConfigError, match="no inputs"):
        encode_inputs([])
    with pytest.raises(ConfigError, match="input 1 cannot"):
        encode_inputs([((1,), {}), ((object(),), {})])


# -- timing ---------------------------------------------------------------------------------------


def test_every_call_has_arguments_of_its_own() -> None:
    source = "def f(values):\n    assert values == [3, 1, 2], values\n    values.sort()\n"
    with Timer(program(source), encode_inputs([(([3, 1, 2],), {})])) as timer:
        assert timer.time(500)[0] > 0


def test_iterators_are_used_up() -> None:
    lazy = "def f(n):\n    return (i * i for i in range(n))\n"
    eager = "def f(n):\n    return [i * i for i in range(n)]\n"
    inputs = encode_inputs([((2000,), {})])
    with Timer(program(lazy), inputs) as one, Timer(program(eager), inputs) as two:
        ratio = np.median([one.time(50)[0] / two.time(50)[0] for _ in range(7)])
    assert 0.3 < ratio < 4  # not the thousandth part


def test_a_program_cannot_replace_the_clock() -> None:
    source = "import time\ntime.process_time_ns = time.thread_time_ns = lambda: 0\n" + LOOP
    with Timer(program(source), SMALL) as one, Timer(program(LOOP), SMALL) as two:
        ratio = np.median([one.time(200)[0] / two.time(200)[0] for _ in range(7)])
    assert 0.5 < ratio < 2


def test_short_work_is_timed_where_the_processor_time_is_limited() -> None:
    # With RLIMIT_CPU the kernel moves the clock of the process in steps of milliseconds.
    code = (
        "import resource, sys\n"
        "from sharpen.code.measure.timing import time_inputs\n"
        "from sharpen.core.sandbox.inside.codec import encode\n"
        "if sys.argv[1] == 'limited':\n"
        "    resource.setrlimit(resource.RLIMIT_CPU, (60, 61))\n"
        f"exec({LOOP!r})\n"
        "inputs = [encode(((1000,), {}))]\n"
        "print(sorted(time_inputs(f, inputs, 1, 'cpu')[0] for _ in range(41))[20])\n"
    )

    def median(how: str) -> int:
        line = [sys.executable, "-c", code, how]
        return int(subprocess.run(line, check=True, capture_output=True, text=True).stdout)

    ratios = sorted(median("limited") / median("free") for _ in range(3))
    assert 0.2 < ratios[1] < 5  # not nothing, and not a thousand times as much
    assert resource.getrlimit(resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY


def test_instructions_are_counted_the_same_each_time() -> None:
    source = LOOP + "def g(n):\n    return [f(k) for k in range(n)]\n"
    inputs = encode_inputs([((5,), {}), ((10,), {})])
    with Timer(program(source, "g"), inputs) as timer:
        first = timer.opcodes()
        assert timer.opcodes() == first
    assert first[1] > first[0] > 5


def test_memory_is_what_the_call_needs() -> None:
    source = "def f(mib):\n    return len(b'x' * (mib << 20))\n"
    with Timer(program(source), encode_inputs([((64,), {})])) as timer:
        assert timer.peak_mib() == pytest.approx(64, abs=3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(n): return 1 / 0", "ZeroDivisionError"),
        ("import os\ndef f(n): os._exit(0)", "ended its process"),
        ("import os\ndef f(n): os.kill(os.getpid(), 11)", "ended its process|signal 11"),
        ("import sys\ndef f(n): sys.exit()", "SystemExit"),
        ("def f(n): return f(n)", "RecursionError"),
        ("def f(): pass", "TypeError"),
    ],
)
def test_programs_that_fail_say_how(source: str, message: str) -> None:
    with Timer(program(source), SMALL) as timer:
        with pytest.raises(ExecutionError, match=message):
            timer.time(10)
        with pytest.raises(ExecutionError, match=message):  # its process is still there
            timer.time(10)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:", "SyntaxError"),
        ("import no_such_module", "no_such_module"),
        ("raise SystemExit(3)", "SystemExit"),
        ("import os\nos._exit(0)", "did not load"),
    ],
)
def test_programs_that_do_not_load_say_why(source: str, message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        Timer(program(source), SMALL)


def test_a_program_without_the_function_is_refused() -> None:
    for entry in ("g", "f.g"):
        with pytest.raises(ConfigError, match=f"defines no '{entry}'"):
            Timer(program("def f(): pass", entry), SMALL)


def test_a_program_that_hangs_is_ended() -> None:
    with Timer(program("def f(n):\n    while True: pass\n"), SMALL) as timer:
        begin = time.monotonic()
        with pytest.raises(Late, match=r"0\.3 s"):
            timer.time(1, limit_s=0.3)
        assert time.monotonic() - begin < 10
        assert timer._process is not None
        children = Path(f"/proc/{timer._process.pid}/task/{timer._process.pid}/children")
        assert children.read_text() == ""


def test_what_it_prints_is_lost_and_what_it_changes_too() -> None:
    source = "seen = []\ndef f(n):\n    print('x' * 10**6)\n    seen.append(n)\n"
    source += "    assert len(seen) == 1, seen\n    seen.clear()\n"
    with Timer(program(source), SMALL) as timer:
        timer.time(3)
        timer.time(3)


def test_a_function_of_a_package_imports_its_neighbours(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "near.py").write_text("FACTOR = 3\n")
    (package / "code.py").write_text(
        "from pack.near import FACTOR\nfrom .near import FACTOR as again\n\n"
        "class Box:\n    @staticmethod\n    def f(n):\n        return n * FACTOR * again\n"
    )
    one = Program.from_file(package / "code.py", "Box.f", root=tmp_path)
    assert one.module == "pack.code"
    with Timer(one, SMALL) as timer:
        assert timer.time(10)[0] > 0


def test_nothing_is_left_of_a_measurement_whose_owner_is_killed() -> None:
    code = (
        "from sharpen.code.measure import Program, Timer, encode_inputs\n"
        "source = 'def f():\\n    while True: pass\\n'\n"
        "timer = Timer(Program(source=source, entry='f'), encode_inputs([((), {})]))\n"
        "print(timer._process.pid, flush=True)\n"
        "timer.time(1)\n"
    )
    line = [sys.executable, "-c", code]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        runner = int(owner.stdout.readline())
        children = Path(f"/proc/{runner}/task/{runner}/children")
        while not (child := children.read_text().split()):
            time.sleep(0.01)
        owner.kill()
    end = time.monotonic() + 10
    left = [Path(f"/proc/{pid}/stat") for pid in (runner, int(child[0]))]

    def is_running(stat: Path) -> bool:
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"

    while any(map(is_running, left)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(is_running, left))


def test_a_curve_begins_and_ends_with_the_calls_and_sees_what_is_held() -> None:
    source = (
        "def f(n):\n    sum(range(2_000_000))\n    kept = bytearray(n)\n"
        "    return len(kept), sum(range(2_000_000))\n"
    )
    with Timer(Program(source=source, entry="f"), encode_inputs([((32 << 20,), {})])) as timer:
        curve = timer.curve()
        seconds = sum(timer.time(1, clock="cpu"))
    times = [at for at, _ in curve]
    assert times == sorted(times)
    assert times[-1] - times[0] == pytest.approx(seconds, rel=0.5)
    memory = [mib for _, mib in curve]
    assert max(memory) - memory[0] == pytest.approx(32, abs=2)
    assert len(curve) > 10
    with Timer(Program(source="def f(n):\n    return n\n", entry="f"), timer._inputs) as short:
        assert len(short.curve()) >= 2
