"""Rewards that are being computed: who waits for which, and what is known already.

The pool's thread and its callers share a :class:`State`; whatever they change there, they change
under its lock.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any

from sharpen.align.rewards.checked import Samples, Scores
from sharpen.align.rewards.registry import RewardFunction
from sharpen.core.errors import SharpenError

__all__ = ["Call", "Pending", "RewardStats", "Rewards", "State"]

_REMEMBERED = 100_000  # values by key


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """What came of some samples, in their order."""

    values: list[float | None]
    """None: the sample is to be left out."""

    reasons: list[str]
    """Why: ``dropped`` (the reward said so), ``deadline``, ``crashed``, ``raised``, ``not finite``,
    ``wrong type``, ``wrong length``, ``closed``; empty where there is a value."""

    error: str = ""
    """What was said of the last call that raised or crashed."""


@dataclass(slots=True, kw_only=True)
class RewardStats:
    """What a pool has done."""

    samples: int = 0
    """Asked for."""

    known: int = 0
    """Of these, how many had been computed before, or were just being computed."""

    calls: int = 0
    """Of the reward, those tried again included."""

    retried: int = 0
    """Calls tried again: alone after a call of several failed, or after a crash."""

    missing: dict[str, int] = field(default_factory=dict)
    """Samples without a value, by reason."""

    waited_s: float = 0.0
    """Seconds that callers waited for results."""

    busy_s: float = 0.0
    """Seconds of calls that came to an end, over all workers."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class Pending:
    """Rewards that are being computed."""

    def __init__(self, count: int, pool: State) -> None:
        self._pool = pool
        self._left = count
        self._values: list[float | None] = [None] * count
        self._reasons = ["deadline"] * count
        self._error = ""
        self._failure: SharpenError | None = None
        self._done = threading.Event()
        if not count:
            self._done.set()

    def done(self) -> bool:
        """Whether all are there."""
        return self._done.is_set()

    def result(self, timeout_s: float | None = None) -> Rewards:
        """Wait for all of them.

        Args:
            timeout_s: wait so long at most; what is not there then has the reason ``deadline``, and
                is not computed any more if it has not begun.

        Raises:
            ExecutionError: the reward cannot be loaded by the workers.
        """
        begin = time.perf_counter()
        self._done.wait(timeout_s)
        with self._pool.lock:
            self._pool.stats.waited_s += time.perf_counter() - begin
            if self._failure is not None:
                raise self._failure
            if not self._done.is_set():
                late = self._reasons.count("deadline")
                self._count("deadline", late)
                self._done.set()
            return Rewards(
                values=list(self._values), reasons=list(self._reasons), error=self._error
            )

    def put(self, index: int, value: float | None, reason: str, error: str) -> None:
        """Take one; the pool's lock is held."""
        if self._done.is_set():
            return
        self._values[index], self._reasons[index] = value, reason
        self._error = error or self._error
        if reason:
            self._count(reason, 1)
        self._left -= 1
        if not self._left:
            self._done.set()

    def fail(self, failure: SharpenError) -> None:
        """End with an error; the pool's lock is held."""
        self._failure = failure
        self._done.set()

    def _count(self, reason: str, count: int) -> None:
        if count:
            missing = self._pool.stats.missing
            missing[reason] = missing.get(reason, 0) + count


Place = tuple[Pending, int]
"""Somebody who waits, and which of their samples it is."""


@dataclass(slots=True)
class Call:
    """Samples that one call of the reward gets."""

    samples: Samples
    places: list[list[Place]]
    """Who waits for each sample."""

    keys: list[str | None]
    is_again: bool = False
    crashes: int = 0

    def alone(self) -> list[Call]:
        """A call for each of its samples."""
        return [
            Call(
                ([self.samples[0][i]], [self.samples[1][i]], [self.samples[2][i]]),
                [places],
                [self.keys[i]],
                is_again=True,
                crashes=self.crashes,
            )
            for i, places in enumerate(self.places)
        ]


class State:
    """What the pool and its thread share."""

    def __init__(self, function: RewardFunction) -> None:
        self.function = function
        self.lock = threading.Lock()
        self.stats = RewardStats()
        self.known: OrderedDict[str, float] = OrderedDict()
        self.running: dict[str, list[Place]] = {}
        self.calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self.closing = threading.Event()
        self.is_over = False
        self.failure: SharpenError | None = None

    def count(self, call: Call) -> None:
        """A call begins."""
        with self.lock:
            self.stats.calls += 1
            self.stats.retried += call.is_again

    def forget(self, call: Call) -> bool:
        """Whether nobody waits for a call any more; then it is as if it had never been asked."""
        with self.lock:
            if any(not one.done() for places in call.places for one, _ in places):
                return False
            for key in call.keys:
                if key is not None:
                    self.running.pop(key, None)
            return True

    def settle(self, call: Call, found: Scores, seconds: float = 0.0) -> None:
        """Give what was found to whoever waits."""
        with self.lock:
            self.stats.busy_s += seconds
            for places, key, value, reason in zip(
                call.places, call.keys, found.values, found.reasons, strict=True
            ):
                if key is not None:
                    self.running.pop(key, None)
                    if value is not None:
                        self.known[key] = value
                        if len(self.known) > _REMEMBERED:
                            self.known.popitem(last=False)
                for pending, index in places:
                    pending.put(index, value, reason, found.error)

    def missing(self, call: Call, reason: str, error: str = "") -> None:
        """There is no value for any sample of a call."""
        count = len(call.places)
        self.settle(call, Scores([None] * count, [reason] * count, error))
