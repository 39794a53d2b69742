"""A process that has loaded one program and forks a child for each measurement of it.

Children are fresh: what one measurement leaves in memory or caches, the next does not find. They
are for programs that are trusted, as the user's own are; others run in the sandbox.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

from sharpen.code.measure.timing import count_opcodes, time_inputs
from sharpen.core.sandbox.inside.channel import receive, send
from sharpen.core.sandbox.inside.linux import die_with_parent

__all__ = ["Missing", "load", "main"]


class Missing(Exception):
    """The program has no such function."""


def load(program: dict[str, Any]) -> Callable[..., Any]:
    """The function of a program: its source is run as a module of its name, or imported."""
    sys.path[:0] = program["path"]
    name = program["module"]
    module = types.ModuleType(name)
    module.__file__ = program["file"]
    package, _, _ = name.rpartition(".")
    module.__package__ = package
    if package:
        __import__(package)
    sys.modules[name] = module
    exec(compile(program["source"], program["file"], "exec", dont_inherit=True), module.__dict__)
    found: Any = module
    for part in program["entry"].split("."):
        if not hasattr(found, part):
            raise Missing
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def main(fd: int) -> None:
    """Load the program that comes over a socket and answer until nobody asks any more."""
    die_with_parent(signal.SIGKILL)
    channel = socket.socket(fileno=fd)
    program, _ = receive(channel)
    # What the program prints is not asked for.
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    try:
        function = load(program)
    except Missing:
        send(channel, {"missing": True})
        return
    except BaseException as error:
        send(channel, {"error": f"{type(error).__name__}: {error}"})
        return
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
    ours.settimeout(task["limit_s"])
    try:
        found, _ = receive(ours)
    except EOFError:
        found = {"error": "the program ended its process"}
    except TimeoutError:
        found = {"late": True}
        os.kill(child, signal.SIGKILL)
    finally:
        ours.close()
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status) and "late" not in found and "ns" not in found:
        found = {"error": f"signal {os.WTERMSIG(status)} ended it"}
    return {**found, "peak_kib": usage.ru_maxrss}


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
        else:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            times = time_inputs(function, inputs, task["loops"], task["clock"])
            found = {"ns": times, "base_kib": before}
    except BaseException as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    send(channel, found)


if __name__ == "__main__":
    main(int(sys.argv[1]))
