"""How many threads a step of decoding takes, by trying.

A step is hundreds of short products, and at the end of each all threads wait for the slowest. Where
another job uses one of the cores, that one is late every time, and two threads can be three times
slower than one. So a few steps in a hundred are taken with fewer or more threads, and what was
faster stays. Results do not depend on it.
"""

from __future__ import annotations

__all__ = ["ThreadChoice"]

_WINDOW = 8  # steps that are compared
_FIRST, _LAST = 2, 32  # windows between trials, at first and in the end
_GAIN = 0.92  # time of a trial, over that before it, from which it stays


class ThreadChoice:
    """Counts of threads from ``most`` down to 1 by halves; starts with ``most``.

    Call :meth:`next` before a step and :meth:`took` after it. Steps are compared with others of as
    many rows, up to a power of two; what a change of rows cuts off is not counted.

    Args:
        most: threads that there may be.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._counts = [most]
        while self._counts[-1] > 1:
            self._counts.append(self._counts[-1] // 2)
        self._at = 0
        self._trial: int | None = None
        self._turn = -1
        self._kind = -1
        self._times: list[float] = []
        self._before = 0.0
        self._windows = 0
        self._wait = _FIRST

    @property
    def now(self) -> int:
        """Threads of the present step."""
        return self._counts[self._at if self._trial is None else self._trial]

    def next(self, rows: int) -> int:
        """Threads for a step of so many rows."""
        kind = rows.bit_length()
        if kind != self._kind:
            self._kind, self._times, self._trial, self._windows = kind, [], None, 0
        return self.now

    def took(self, seconds: float) -> None:
        """That step took so long."""
        if len(self._counts) == 1:
            return
        self._times.append(seconds)
        total = sum(self._times)
        lost = self._trial is not None and total >= _GAIN * self._before
        if len(self._times) < _WINDOW and not lost:
            return
        self._times = []
        if self._trial is not None:
            if lost:
                self._wait = min(2 * self._wait, _LAST)
            else:
                self._at, self._wait = self._trial, _FIRST
            self._trial, self._windows = None, 0
            return
        self._before = total
        self._windows += 1
        if self._windows >= self._wait:
            self._trial = self._other()

    def _other(self) -> int:
        """The next count to try: all others in turn, for waiting hides what lies between."""
        self._turn = (self._turn + 1) % (len(self._counts) - 1)
        return self._turn + (self._turn >= self._at)
