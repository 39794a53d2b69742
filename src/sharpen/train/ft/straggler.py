"""Which rank is slow: compute time of each rank, without its waiting for the others.

Jiang et al., MegaScale, 2024 (arXiv 2402.15627), section 5: of many machines a few are 10 % slower
and hold up all. In a collective operation everyone waits for the slowest, who waits least: so wall
times are alike, and only the time outside of waiting tells. Over windows of a few steps, with
compute time c_r of rank r::

    ratio_r = c_r / median of the others' c

A rank whose ratio is above ``slow_ratio`` in several windows running is named, once.

Where ZeRO 2 and 3 gather weights inside the forward and backward pass, waiting cannot be told from
computing by the clock on the wall; there these two passes count the processor time of the rank's
main thread, which does not run while it waits.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["ComputeClock", "StragglerDetector", "slow_ratios"]

_log = logging.getLogger(__name__)
_WINDOWS = 3  # running, before a rank is named


class ComputeClock:
    """Seconds that a rank computes, its waiting left out."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._depth = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What the block takes is waiting for other ranks, or is no work of the step."""
        begin = time.perf_counter()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._waited += time.perf_counter() - begin

    @contextmanager
    def processor(self) -> Iterator[None]:
        """Of what the block takes, only this thread's processor time is computing."""
        begin, busy = time.perf_counter(), time.thread_time()
        before = self._waited
        yield
        idle = (time.perf_counter() - begin) - (time.thread_time() - busy)
        self._waited = before + max(0.0, idle)

    def leave_out(self, seconds: float) -> None:
        """Seconds of waiting that somebody else has measured."""
        self._waited += seconds

    def take(self) -> float:
        """Seconds computed since the last call, or since the clock was made."""
        now = time.perf_counter()
        seconds = now - self._start - self._waited
        self._start, self._waited = now, 0.0
        return max(0.0, seconds)


def slow_ratios(seconds: Sequence[float]) -> list[float]:
    """Each rank's time over the median of the others'; 1.0 for a rank alone.

    Examples:
        >>> slow_ratios([1.0, 1.0, 3.0])
        [0.5, 0.5, 3.0]
    """
    if len(seconds) < 2:
        return [1.0] * len(seconds)
    ratios = []
    for rank, mine in enumerate(seconds):
        median = statistics.median([*seconds[:rank], *seconds[rank + 1 :]])
        ratios.append(mine / median if median > 0 else 1.0)
    return ratios


class StragglerDetector:
    """Names ranks that stay slow.

    Args:
        ratio: above it a rank is slow in a window.
        windows: running, before it is named.
        tells: logs a warning then; one of the ranks should.

    Attributes:
        slow: named ranks, and the ratio of the window in which they were named.
    """

    def __init__(self, ratio: float, *, windows: int = _WINDOWS, tells: bool = True) -> None:
        self._ratio, self._windows, self._tells = ratio, windows, tells
        self._running: dict[int, int] = {}
        self.slow: dict[int, float] = {}

    def observe(self, seconds: Sequence[float]) -> list[int]:
        """Take in a window's compute time of every rank; the ranks named because of it."""
        named = []
        for rank, ratio in enumerate(slow_ratios(seconds)):
            self._running[rank] = self._running.get(rank, 0) + 1 if ratio > self._ratio else 0
            if self._running[rank] >= self._windows and rank not in self.slow:
                self.slow[rank] = round(ratio, 3)
                named.append(rank)
                if self._tells:
                    self._tell(rank, ratio)
        return named

    def _tell(self, rank: int, ratio: float) -> None:
        _log.warning(
            "rank %d is slow: it computes %.2f times as long as the others in %d windows running "
            "(ft.slow_ratio %g), and they wait for it. Look for other work on its cores, a hot "
            "processor or a slow disk.",
            *(rank, ratio, self._windows, self._ratio),
        )
