"""Instructions that cachegrind counts."""

import pytest

from sharpen.code.measure import Program
from sharpen.code.measure.instructions import count_instructions, has_counter
from sharpen.core.errors import ConfigError, ExecutionError

pytestmark = pytest.mark.skipif(not has_counter(), reason="no valgrind")

SUM = "def f(n):\n    t = 0\n    for i in range(n):\n        t += i\n    return t\n"
IN_C = "def f(n):\n    return sum(range(n))\n"


@pytest.mark.slow
def test_counts_repeat_and_grow_with_the_work() -> None:
    program = Program(source=SUM, entry="f")
    once = count_instructions(program, [((20_000,), {})])
    again = count_instructions(program, [((20_000,), {})])
    assert once == pytest.approx(again, rel=0.01)
    twice = count_instructions(program, [((40_000,), {})])
    assert twice == pytest.approx(2 * once, rel=0.05)
    # A turn of the loop is some dozens of instructions.
    assert 20 < once / 20_000 < 500
    # Work in C, which the interpreter's own instructions do not show, counts too.
    in_c = count_instructions(Program(source=IN_C, entry="f"), [((20_000,), {})])
    assert 20_000 < in_c < once


@pytest.mark.slow
def test_what_fails_is_told() -> None:
    with pytest.raises(ExecutionError, match="ZeroDivisionError"):
        count_instructions(Program(source="def f():\n    1 / 0\n", entry="f"), [((), {})])
    with pytest.raises(ConfigError, match="loops=0"):
        count_instructions(Program(source=SUM, entry="f"), [((1,), {})], loops=0)
