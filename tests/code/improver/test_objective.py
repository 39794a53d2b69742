"""What is counted of two programs, and the words for it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from sharpen.code import improve
from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.improve import judge_of, prepare
from sharpen.code.improver.objective import OBJECTIVES, Gain, area, counted, said, size_s
from sharpen.code.inputs import Input
from sharpen.code.measure import Program, Timer, encode_inputs
from sharpen.core.errors import ConfigError, DependencyNotInstalled

LARGE = Program(source="def f(n):\n    return len([bytes(1000) for _ in range(n)])\n", entry="f")
SMALL = Program(source="def f(n):\n    return n\n", entry="f")


@pytest.mark.parametrize("objective", ["memory", "tmu", "opcodes"])
def test_counts_have_intervals_that_hold_them(objective: str) -> None:
    inputs: list[Input] = [((20_000,), {})]
    with Timer(LARGE, encode_inputs(inputs)) as old, Timer(SMALL, encode_inputs(inputs)) as new:
        gain = counted(objective, old, new, inputs)
    assert gain.low <= gain.ratio <= gain.high
    assert gain.low > 10
    if objective == "memory":
        assert gain.before == pytest.approx(20_000 * 1033 / 2**20, rel=0.25)
    elif objective == "opcodes":
        assert gain.low == gain.high
        assert gain.after < 10


def test_every_objective_has_words() -> None:
    told = set()
    for name in OBJECTIVES:
        gain = Gain(objective=name, before=6.0, after=2.0, ratio=3.0, low=2.5, high=3.5)
        assert "3 x [2.5, 3.5]" in gain.summary()
        told.add(gain.summary())
        assert said(name, 3.0).startswith("3 times as ")
    assert len(told) == len(OBJECTIVES) - 1  # both kinds of time in the same words


def test_what_takes_long_to_count_is_counted_for_smaller_inputs() -> None:
    assert size_s("cpu", 0.05) == size_s("memory", 0.05) == 0.05
    assert size_s("instructions", 0.05) == 0.01
    assert size_s("opcodes", 0.001) == 0.001


def test_without_valgrind_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyNotInstalled, match="valgrind") as caught:
        improve(tmp_path / "none.py", "f", objective="instructions")
    assert caught.value.exit_code == 3


def test_instructions_are_not_counted_of_what_nobody_trusts(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(SMALL.source)
    calls: list[Input] = [((3,), {})]
    with ExitStack() as stack:
        config = ImproveConfig(tests="none", levels=1, top_s=0.001)
        prepared = prepare(file, "f", config, stack, calls=calls, asks=False, say=lambda _: None)
        prepared.config = ImproveConfig(objective="instructions")
        with pytest.raises(ConfigError, match="--trust-llm"):
            judge_of(prepared, stack, out=None, sandboxed=True)


def test_memory_over_time_is_less_where_either_is() -> None:
    """A list of 16 MiB that is held for a while, against one that is not, and a shorter while."""
    held = "def f(n):\n    kept = bytearray(n)\n    return len(kept), sum(range(3_000_000))\n"
    texts = (held, held.replace("bytearray(n)", "b''"), held.replace("3_000_000", "30_000"))
    inputs: list[Input] = [((64 << 20,), {})]
    areas = []
    for text in texts:
        with Timer(Program(source=text, entry="f"), encode_inputs(inputs)) as timer:
            areas.append(min(area(timer) for _ in range(3)))
    assert areas[0] > 2 * areas[1]
    assert areas[0] > 2 * areas[2]
