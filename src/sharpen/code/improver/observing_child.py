"""A process that has loaded a trusted program and forks a child for each series of calls."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from typing import Any

from sharpen.code.improver.observing import observe, state_of
from sharpen.code.improver.profiling import count_lines
from sharpen.code.measure.loading import loaded
from sharpen.core.sandbox.inside.channel import receive, send
from sharpen.core.sandbox.inside.codec import CodecError, SizeError, decode
from sharpen.core.sandbox.inside.linux import die_with_parent

__all__ = ["main"]


def main(fd: int) -> None:
    """Load the program that comes over a socket and call it as often as asked."""
    found = loaded(fd)
    if found is None:
        return
    channel, function, program = found
    names = sys.modules[program["module"]].__dict__
    send(channel, {"state": state_of(names)})
    while True:
        try:
            task, _ = receive(channel)
        except EOFError:
            return
        runner = os.getpid()
        child = os.fork()
        if child == 0:
            die_with_parent(signal.SIGKILL, runner)
            limit = task["memory_bytes"]
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            if task["what"] == "lines":
                _count(function, program["file"], task["inputs"], channel)
            else:
                _call_each(function, names, task["inputs"], channel)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        send(channel, {"ended": os.waitstatus_to_exitcode(status)})


def _call_each(
    function: Any, names: dict[str, Any], inputs: list[bytes], channel: socket.socket
) -> None:
    for data in inputs:
        args, kwargs = decode(data)
        try:
            send(channel, {"seen": observe(function, args, kwargs)})
        except (SizeError, RecursionError, MemoryError) as error:
            send(channel, {"unseen": f"its result cannot be looked at: {type(error).__name__}"})
        except CodecError as error:
            send(channel, {"unseen": f"its result cannot be looked at: {error}"})
        except KeyboardInterrupt:
            send(channel, {"unseen": "it was interrupted"})
    send(channel, {"state": state_of(names)})


def _count(function: Any, file: str, inputs: list[bytes], channel: socket.socket) -> None:
    try:
        send(channel, {"lines": count_lines(function, file, inputs)})
    except BaseException as error:
        send(channel, {"unseen": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main(int(sys.argv[1]))
