"""Timing of calls in a job's own process.

The clocks are bound before the program is loaded, and afterwards it is looked whether they, or the
tracing that counts, were replaced. That catches what is clumsy. A program shares this process and
may write any number it likes, so a time is a claim like all else that comes out: whoever uses it
compares it with the processor time that was seen from outside.

``cpu`` is the clock of the thread: while ``RLIMIT_CPU`` is set, the kernel may count the clock of
the process in ticks of milliseconds, and short work reads as nothing.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Late", "Meter"]

_BOUND = {name: getattr(time, name) for name in ("thread_time_ns", "perf_counter_ns")}
_CLOCKS = {"cpu": _BOUND["thread_time_ns"], "wall": _BOUND["perf_counter_ns"]}
_TIMERS = {
    "cpu": (signal.ITIMER_PROF, signal.SIGPROF),
    "wall": (signal.ITIMER_REAL, signal.SIGALRM),
}
_TICK_S = 0.02  # timers of processor time are not more exact than that
_WATCHED = ("sys.settrace", "sys.setprofile", "gc.get_objects", "gc.get_referrers", "ctypes.dlopen")


class Late(BaseException):
    """A call took longer than it may."""


class Meter:
    """Times calls, in nanoseconds or instructions of the interpreter.

    Args:
        clock: ``cpu``, ``wall`` or ``opcodes``.
        limit: of a call, in its unit; None for none.
        stop: called when the limit is passed, within the program, so that it must not return. A
            program may keep that from happening; then it is ended from outside.
    """

    def __init__(self, clock: str, limit: float | None, stop: Callable[[], None]) -> None:
        self.times: list[int] = []
        self.marks: list[str] = []
        self._is_ours = False
        sys.addaudithook(self._audit)
        gc.collect()
        gc.disable()
        self.call = (
            self._counting(limit, stop) if clock == "opcodes" else self._timing(clock, limit, stop)
        )

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _WATCHED and not self._is_ours:
            self._mark(f"it called {event}")

    def _mark(self, what: str) -> None:
        if what not in self.marks:
            self.marks.append(what)

    def _timing(
        self, clock: str, limit: float | None, stop: Callable[[], None]
    ) -> Callable[..., Any]:
        now, times, bound = _CLOCKS[clock], self.times, dict(_BOUND)
        timer, number = _TIMERS[clock]
        set_timer = signal.setitimer
        ends_s = 0.0 if limit is None else limit / 1e9 + _TICK_S
        if limit is not None:
            signal.signal(number, lambda *_: stop())

        def call(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
            set_timer(timer, ends_s)
            begin = now()
            try:
                value = function(*args, **kwargs)
            finally:
                took = now() - begin
                set_timer(timer, 0)
                times.append(took)
                for name, one in bound.items():
                    if getattr(time, name, None) is not one:
                        self._mark(f"it replaced time.{name}")
            if limit is not None and took > limit:
                raise Late
            return value

        return call

    def _counting(self, limit: float | None, stop: Callable[[], None]) -> Callable[..., Any]:
        # Where it is loaded, each fork sees to all threads: 0.4 ms a job, for all jobs.
        from threading import settrace as trace_threads

        count = 0
        most = float("inf") if limit is None else limit
        trace, traced = sys.settrace, sys.gettrace

        def each(frame: Any, event: str, arg: Any) -> Any:
            nonlocal count
            if event == "opcode":
                count += 1
                if count > most:
                    stop()
            elif event == "call":
                frame.f_trace_opcodes = True
                frame.f_trace_lines = False
            return each

        def call(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
            nonlocal count
            count = 0
            self._is_ours = True
            trace_threads(each)
            trace(each)
            self._is_ours = False
            try:
                value = function(*args, **kwargs)
            finally:
                still = traced() is each
                self._is_ours = True
                trace(None)
                self._is_ours = False
                self.times.append(count)
                if not still:
                    self._mark("it switched the counting off")
            return value

        return call
