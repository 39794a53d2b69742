"""How fast requests go out: no minute has more than a limit, and waits grow after failures.

The limit holds for every window of 60 seconds, not on average: a request waits until those of the
minute before it leave room. After a failure the wait is drawn evenly from ``[0, min(cap, base
2^k)]`` ("full jitter"), so that many clients do not come back at the same moment; what the server
says in ``Retry-After``, in seconds or as a date, goes before.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["MinuteLimit", "backoff_s", "retry_after_s"]

_MINUTE_S = 60.0
_MOST_BACKOFF_S = 30.0


class MinuteLimit:
    """At most so much in any minute; safe for threads.

    Args:
        limit: of a minute.
        clock: seconds.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._taken: deque[tuple[float, float]] = deque()  # when and how much, in order
        self._lock = threading.Lock()

    def reserve(self, amount: float = 1.0) -> float:
        """Take ``amount`` at the earliest moment; returns the seconds until then.

        More than the limit is taken as the limit, so that it comes at all.
        """
        amount = min(amount, self._limit)
        with self._lock:
            now = self._clock()
            while self._taken and self._taken[0][0] <= now - _MINUTE_S:
                self._taken.popleft()
            at = max(now, self._taken[-1][0]) if self._taken else now
            inside = [(when, much) for when, much in self._taken if when > at - _MINUTE_S]
            total = sum(much for _, much in inside)
            for when, much in inside:
                if total + amount <= self._limit:
                    break
                at, total = when + _MINUTE_S, total - much
            self._taken.append((at, amount))
            return at - now


def backoff_s(failures: int, base_s: float) -> float:
    """Seconds to wait after so many failures in a row."""
    return random.uniform(0.0, min(_MOST_BACKOFF_S, base_s * 2.0 ** (failures - 1)))


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds of a ``Retry-After`` header; None where it says nothing that can be read.

    Args:
        value: ``"2"``, ``"0.5"``, or a date of HTTP.
        now: the present, with its zone.

    Examples:
        >>> retry_after_s("2")
        2.0
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, TypeError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if seconds == seconds and seconds != float("inf") else None
