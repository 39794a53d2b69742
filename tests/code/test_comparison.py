"""What a comparison concludes of simulated programs, whose true ratio is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sharpen.code.measure.comparison import Comparison, compare_timers
from sharpen.code.measure.process import Timer
from sharpen.code.measure.statistics import pairs_needed

LOAD_S = 0.03
FEWEST = pairs_needed(0.01 / 3)


class Machine:
    """A clock that simulated programs move on; what disturbs it strikes whoever runs."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s


class Simulated(Timer):
    """A program whose every process is some per cent faster or slower than others."""

    def __init__(self, machine: Machine, call_s: float) -> None:
        self.machine, self.call_s = machine, call_s
        self.load_s = LOAD_S
        self.turns = self.starts = 0
        self.restart(0)

    def restart(self, hash_seed: int) -> None:
        self.starts += 1
        self.machine.now_s += LOAD_S
        self.bias = math.exp(self.machine.rng.normal(0, 0.03))

    def time(self, loops: int, *, clock: str = "cpu", limit_s: float = 60.0) -> list[float]:
        self.turns += 1
        found = self.call_s * self.bias * math.exp(self.machine.rng.standard_t(3) * 0.02)
        self.machine.now_s += found * loops
        return [found]


def compared(seed: int, times: float, until: float | None = None) -> tuple[Comparison, float, int]:
    """A comparison, the seconds that it took, and turns for each process."""
    machine = Machine(seed)
    a, b = Simulated(machine, 1e-3 * times), Simulated(machine, 1e-3)
    begin = machine.now_s
    found = compare_timers(a, b, budget_s=10.0, until=until, now=machine.now)
    return found, machine.now_s - begin, round(b.turns / b.starts)


def test_a_program_seems_faster_than_itself_as_seldom_as_it_may() -> None:
    found = [compared(seed, 1.0)[0].decision for seed in range(300)]
    # At most 1 %, of which half is "faster": 9 or more of 300 come with a chance of 0.4 %.
    assert sum(one in ("faster", "slower") for one in found) < 9


def test_intervals_that_end_early_hold_the_truth() -> None:
    found = [compared(seed, 1.15, until=1.1)[0] for seed in range(200)]
    assert sum(not one.low <= 1.15 <= one.high for one in found) < 8


def test_a_clear_difference_takes_the_fewest_pairs_with_a_turn_each() -> None:
    found, took_s, turns = compared(1, 40.0)
    assert found.decision == "faster"
    assert found.pairs == FEWEST
    assert turns == 1
    assert took_s < 2.0  # of 10


def test_time_is_spent_until_the_interval_lies_on_one_side() -> None:
    certain, _, _ = compared(3, 1.3, until=1.1)
    assert certain.low >= 1.1
    close, took_s, _ = compared(3, 1.1, until=1.1)
    assert close.low < 1.1 < close.high
    assert took_s == pytest.approx(10, rel=0.1)
    assert close.pairs > certain.pairs
