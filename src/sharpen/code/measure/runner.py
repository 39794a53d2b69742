"""A process that has loaded one program and forks a child for each measurement of it.

Children are fresh: what one measurement leaves in memory or caches, the next does not find. They
are for programs that are trusted, as the user's own are; others run in the sandbox.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from sharpen.code.measure.loading import loaded
from sharpen.code.measure.timing import call_once, count_opcodes, time_inputs
from sharpen.core.sandbox.inside.channel import receive, send
from sharpen.core.sandbox.inside.codec import decode
from sharpen.core.sandbox.inside.linux import die_with_parent

__all__ = ["main"]

_SAMPLE_S = 1e-3


def main(fd: int) -> None:
    """Load the program that comes over a socket and answer until nobody asks any more."""
    found = loaded(fd)
    if found is None:
        return
    channel, function, _ = found
    send(channel, {"ok": True})
    while True:
        try:
            task, _ = receive(channel)
        except EOFError:
            return
        send(channel, _in_child(function, task))


def _in_child(function: Callable[..., Any], task: dict[str, Any]) -> dict[str, Any]:
    ours, theirs = socket.socketpair()
    runner = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(signal.SIGKILL, runner)
        ours.close()
        _work(function, task, theirs)
        os._exit(0)
    theirs.close()
    samples: list[tuple[int, int]] = []
    try:
        if task["what"] == "curve":
            samples = _sampled(child, ours, task["limit_s"])
        ours.settimeout(task["limit_s"])
        found, _ = receive(ours)
    except EOFError:
        found = {"error": "the program ended its process"}
    except TimeoutError:
        found = {"late": True}
        os.kill(child, signal.SIGKILL)
    finally:
        ours.close()
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status) and not found.keys() & {"late", "ns", "end"}:
        found = {"error": f"signal {os.WTERMSIG(status)} ended it"}
    if "begin" in found:
        begin, end = tuple(found["begin"]), tuple(found["end"])
        between = [one for one in samples if begin[0] < one[0] < end[0]]
        found["samples"] = [begin, *between, end]
    return {**found, "peak_kib": usage.ru_maxrss}


def _sampled(child: int, channel: socket.socket, limit_s: float) -> list[tuple[int, int]]:
    """[n, 2] processor time in ns and memory in KiB of a child until it has something to say.

    Raises:
        TimeoutError: it takes longer.
    """
    clock = (~child << 3) | 2  # clock_getcpuclockid: time of all threads of a process
    end = time.monotonic() + limit_s
    found: list[tuple[int, int]] = []
    while not select.select([channel], [], [], _SAMPLE_S)[0]:
        if time.monotonic() > end:
            raise TimeoutError
        try:
            found.append((time.clock_gettime_ns(clock), _held_kib(child)))
        except (OSError, IndexError, ValueError):
            break  # it is over
    return found


def _held_kib(process: int | str) -> int:
    """Memory that a process holds."""
    with open(f"/proc/{process}/statm", "rb") as file:  # noqa: PTH123 (a thousand a second)
        return int(file.read().split()[1]) * (resource.getpagesize() // 1024)


def _work(function: Callable[..., Any], task: dict[str, Any], channel: socket.socket) -> None:
    found: dict[str, Any]
    try:
        if task["processor"] is not None:
            os.sched_setaffinity(0, {task["processor"]})
        inputs = task["inputs"]
        if task["what"] == "opcodes":
            found = {"counts": count_opcodes(function, inputs)}
        elif task["what"] == "nothing":
            found = {}
        elif task["what"] == "curve":
            calls = [decode(one) for one in inputs]
            begin = time.process_time_ns(), _held_kib("self")
            for args, kwargs in calls:
                call_once(function, args, kwargs)
            found = {"begin": begin, "end": (time.process_time_ns(), _held_kib("self"))}
        else:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            times = time_inputs(function, inputs, task["loops"], task["clock"])
            found = {"ns": times, "base_kib": before}
    except BaseException as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    send(channel, found)


if __name__ == "__main__":
    main(int(sys.argv[1]))
