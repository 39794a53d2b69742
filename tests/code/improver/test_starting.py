"""First calls that cost more than later ones, and from how many calls on that is worth it."""

from __future__ import annotations

import math

import pytest

from sharpen.code.improver.observer import Watcher
from sharpen.code.improver.observing import state_of
from sharpen.code.improver.starting import costly_start, first_call_s
from sharpen.code.inputs import Input
from sharpen.code.measure import Program

BUSY = """import time
KEPT = []
def busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
def f(x):
    if not KEPT:
        busy({first})
        KEPT.append(1)
    busy(0.01)
    return x
"""
CALL: Input = ((1,), {})


def watcher(first_s: float) -> Watcher:
    return Watcher(Program(source=BUSY.format(first=first_s), entry="f"))


def test_the_first_call_is_told_from_later_ones() -> None:
    with watcher(0.1) as costly:
        assert first_call_s(costly, CALL) == pytest.approx(0.1, abs=0.02)
        assert first_call_s(costly, CALL) == pytest.approx(0.1, abs=0.02)  # in new processes
    with Watcher(Program(source="def f(x): raise SystemExit\n", entry="f")) as bad:
        assert math.isfinite(first_call_s(bad, CALL))  # what it raises is an outcome


def test_calls_pay_for_what_the_first_costs() -> None:
    with watcher(0.0) as before, watcher(0.1) as after:
        found = costly_start(before, after, [CALL, CALL], 2 * 0.02)
        assert found is not None
        assert found.calls == pytest.approx(0.1 / 0.02, abs=1)
        assert f"from {found.calls} calls" in found.summary()
        # One call is worth it, nothing is saved, or it is the original that starts slowly.
        assert costly_start(before, after, [CALL], 0.2) is None
        assert costly_start(before, after, [CALL], -0.02) is None
        assert costly_start(after, before, [CALL], 0.02) is None


def test_compiled_functions_are_no_state_of_a_module() -> None:
    numba = pytest.importorskip("numba")

    def double(x: int) -> int:
        return 2 * x

    compiled = numba.njit(double)
    assert compiled(4) == 8
    assert list(state_of({"double": compiled, "kept": [1]})) == ["kept"]
