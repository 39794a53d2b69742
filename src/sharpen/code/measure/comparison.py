"""Compare the speed of two programs on the same inputs.

Batches of both are timed in turns, AB BA AB ..., each in a fresh child on one processor, with the
clock of processor time. Calls are repeated until a batch takes 20 ms. Each pair has processes of
its own, since where a process happens to have its code and data biases all that is measured in it
(Mytkowicz et al., *Producing Wrong Data Without Doing Anything Obviously Wrong!*, ASPLOS 2009);
where programs load slowly a pair is the mean of several turns, unless its first tells enough. Both
get the same seed of hashes, another one each pair. Data are looked at as soon as there are enough
pairs for an interval, and at a half and the whole of the budget; see
:mod:`sharpen.code.measure.statistics` for what is concluded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sharpen.code.measure.process import Timer, encode_inputs
from sharpen.code.measure.program import Program
from sharpen.code.measure.statistics import (
    Decision,
    Ratio,
    decide,
    pairs_needed,
    ratio_of_pairs,
)
from sharpen.core.errors import ConfigError

__all__ = ["Comparison", "Inputs", "calibrated", "compare", "compare_timers"]

_BATCH_S = 0.02
_LOOKS = (0.0, 0.5, 1.0)  # parts of the budget; the first waits for the fewest pairs
_MOST_LOOPS = 10**7
_MOST_TURNS = 8
_CLEAR = 1.5  # a turn with such a ratio needs no second one
_OVERTIME = 4.0, 10.0  # the budget times, and seconds beyond it, for as many pairs as it needs

Inputs = Sequence[tuple[Sequence[Any], dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was found of two programs."""

    ratio: float
    """Time of a, divided by that of b: above 1, b is faster."""

    low: float
    high: float
    decision: Decision
    pairs: int
    clock: str
    a_s: float
    """Median seconds of a over all inputs, one call of each."""

    b_s: float
    per_input: list[float] = field(default_factory=list)
    """Median ratio of each input."""

    opcodes: tuple[int, int] | None = None
    """Instructions of the interpreter of a and b, where they were counted."""

    note: str = ""
    """What makes the result less sure."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def summary(self) -> str:
        """One line."""
        interval = f"{self.ratio:.3f} x [{self.low:.3f}, {self.high:.3f}]"
        note = f"; {self.note}" if self.note else ""
        return f"{self.decision}: {interval} from {self.pairs} pairs by {self.clock}{note}"


def compare(
    a: Program,
    b: Program,
    inputs: Inputs,
    *,
    clock: str = "cpu",
    min_effect: float = 1.025,
    confidence: float = 0.99,
    budget_s: float = 10.0,
    opcodes: bool = False,
) -> Comparison:
    """Whether b is faster than a.

    Args:
        a: the one program.
        b: the other.
        inputs: arguments, by position and by name; each is called equally often.
        clock: ``cpu``, ``thread`` (processor time of one thread alone) or ``wall``.
        min_effect: the least ratio that matters.
        confidence: of the interval, over all looks together.
        budget_s: wall time to spend; where pairs are slow up to four times as much, or 10 s more,
            for the fewest pairs that can tell.
        opcodes: also count the interpreter's instructions.

    Raises:
        ConfigError: a value is out of range, or an input cannot be handed to another process.
        ExecutionError: a program does not load, raises, or ends its process.
        Late: one call of each input takes longer than the budget.
    """
    encoded = encode_inputs(inputs)
    processor = min(os.sched_getaffinity(0))
    with Timer(a, encoded, processor) as one, Timer(b, encoded, processor) as two:
        return compare_timers(
            one,
            two,
            clock=clock,
            min_effect=min_effect,
            confidence=confidence,
            budget_s=budget_s,
            opcodes=opcodes,
        )


def compare_timers(
    a: Timer,
    b: Timer,
    *,
    clock: str = "cpu",
    min_effect: float = 1.025,
    confidence: float = 0.99,
    budget_s: float = 10.0,
    opcodes: bool = False,
    until: float | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Comparison:
    """The same with programs that are loaded already.

    Args:
        a: the one program.
        b: the other.
        clock: as of :func:`compare`, and so on.
        min_effect: likewise.
        confidence: likewise.
        budget_s: likewise.
        opcodes: likewise.
        until: a ratio: time is spent until the interval lies on one side of it; until there is a
            decision without it.
        now: a clock of seconds.
    """
    if clock not in ("cpu", "thread", "wall"):
        raise ConfigError(f"clock='{clock}' must be cpu, thread or wall.")
    if not min_effect > 1 or not 0 < confidence < 1 or not budget_s > 0:
        raise ConfigError(
            f"min_effect={min_effect} must be above 1, confidence={confidence} between 0 and 1,"
            f" budget_s={budget_s} above 0."
        )
    begin, limit = now(), max(budget_s, 1.0)
    loops_a, loops_b = (calibrated(one, clock, limit) for one in (a, b))
    error = (1 - confidence) / len(_LOOKS)
    needed = pairs_needed(error)
    rows_a: list[list[float]] = []
    rows_b: list[list[float]] = []
    looks = [part * budget_s for part in _LOOKS]
    latest = max(_OVERTIME[0] * budget_s, budget_s + _OVERTIME[1])
    note = ""
    while True:
        turns = [(a, loops_a), (b, loops_b)]
        if len(rows_a) % 2:
            turns.reverse()
        for timer, _ in turns:
            timer.restart(len(rows_a))
        row_a, row_b = _pair(a, b, turns, clock, 10 * limit, now)
        rows_a.append(row_a)
        rows_b.append(row_b)
        spent = now() - begin
        if len(rows_a) < needed and spent < latest:
            continue
        if spent < looks[0]:
            continue
        while len(looks) > 1 and spent >= looks[0]:
            del looks[0]
        ratio = _ratio(rows_a, rows_b, error)
        decision = decide(ratio, min_effect)
        known = decision != "unclear" if until is None else not ratio.low < until <= ratio.high
        if known or spent >= budget_s:
            break
    if ratio.high == float("inf"):
        note = f"{len(rows_a)} pairs are too few for an interval"
    counts = (sum(a.opcodes()), sum(b.opcodes())) if opcodes else None
    if counts and decision in ("faster", "slower"):
        fewer = counts[1] < counts[0]
        if fewer != (decision == "faster") and counts[0] != counts[1]:
            note = "the instructions counted say otherwise"
    return Comparison(
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        decision=decision,
        pairs=len(rows_a),
        clock=clock,
        a_s=_median([sum(row) for row in rows_a]),
        b_s=_median([sum(row) for row in rows_b]),
        per_input=[
            _median([x[i] / y[i] for x, y in zip(rows_a, rows_b, strict=True)])
            for i in range(len(rows_a[0]))
        ],
        opcodes=counts,
        note=note,
    )


def _pair(
    a: Timer,
    b: Timer,
    turns: list[tuple[Timer, int]],
    clock: str,
    limit_s: float,
    now: Callable[[], float],
) -> tuple[list[float], list[float]]:
    """[inputs] times of both, of processes that have just been started.

    One turn where its ratio is clear, which says nothing of its direction; else as many as take
    about half as long as it took to load the programs.
    """
    times: dict[Timer, list[list[float]]] = {a: [], b: []}
    begin, most = now(), 1
    while len(times[a]) < most:
        for timer, loops in turns:
            times[timer].append(timer.time(loops, clock=clock, limit_s=limit_s))
        turns.reverse()
        if len(times[a]) == 1:
            one, other = sum(times[a][0]), sum(times[b][0])
            if max(one, other) < _CLEAR * min(one, other):
                most += int((a.load_s + b.load_s) / (2 * max(now() - begin, _BATCH_S)))
                most = min(most, _MOST_TURNS)
    return _means(times[a]), _means(times[b])


def _ratio(rows_a: list[list[float]], rows_b: list[list[float]], error: float) -> Ratio:
    return ratio_of_pairs([sum(row) for row in rows_a], [sum(row) for row in rows_b], error)


def calibrated(timer: Timer, clock: str, limit_s: float) -> int:
    """Calls for a batch of 20 ms."""
    loops = 1
    while True:
        room = limit_s if loops == 1 else 10 * limit_s
        took = sum(timer.time(loops, clock=clock, limit_s=room)) * loops
        if took >= _BATCH_S or loops >= _MOST_LOOPS:
            return loops
        # A first guess from little is a bad one: grow by at most a hundred each time.
        loops = min(loops * min(100, max(2, int(1.2 * _BATCH_S / max(took, 1e-9)))), _MOST_LOOPS)


def _means(rows: list[list[float]]) -> list[float]:
    """[inputs] means over turns."""
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _median(values: Sequence[float]) -> float:
    some = sorted(values)
    middle = len(some) // 2
    return some[middle] if len(some) % 2 else (some[middle - 1] + some[middle]) / 2
