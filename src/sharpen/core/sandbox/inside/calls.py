"""Calls across two sandboxes: the tests in one, the program that they test in another.

Assert-style tests hold the values they expect, so the program must not share their process. The
program's side answers calls; the tests' side has a stand-in for the function, whose arguments and
results cross as plain values. Arguments are copies: what the program changed in place comes back
and is copied into the caller's lists, sets and dicts.
"""

from __future__ import annotations

import socket
import types
from collections import deque
from collections.abc import Callable
from typing import Any

from sharpen.core.sandbox.inside.channel import receive_bytes, send
from sharpen.core.sandbox.inside.codec import CodecError, SizeError, decode, encode
from sharpen.core.sandbox.inside.program import (
    as_exception,
    call,
    exited,
    failure_of,
    find,
    flush,
    load,
    write_frame,
)

__all__ = ["run_judge", "serve_calls"]

_TESTS = "<tests>"


class _Gone(BaseException):
    """The program's process has ended; no test may catch it."""


def serve_calls(job: dict[str, Any], fd: int, peer: socket.socket) -> None:
    """Load a program and answer calls of it until nobody asks any more.

    Args:
        job: ``source``, ``entry``, ``names`` (encoded), ``limits``.
        fd: where the result goes: how many calls there were, or why the program did not load.
        peer: the tests' side.
    """
    limit = job["limits"]["result_bytes"]
    answered = 0
    try:
        function = find(load(job["source"], job["names"], main=False), job["entry"])
    except BaseException as error:
        flush()
        status = "memory" if isinstance(error, MemoryError) else "error"
        write_frame(fd, {"status": status, "error": exited(error)}, limit)
        return
    while True:
        try:
            asked, _ = receive_bytes(peer, limit)
            send(peer, _answer(function, asked, limit), max_bytes=limit + (1 << 20))
        except (EOFError, OSError):
            break
        answered += 1
    flush()
    write_frame(fd, {"status": "ok", "outputs": [], "calls": answered}, limit)


def _answer(function: Callable[..., Any], asked: bytes, limit: int) -> dict[str, Any]:
    args, kwargs = decode(asked)
    before = [encode(a) for a in args]
    try:
        value = encode(call(function, args, kwargs), max_bytes=limit)
        after = [encode(a, max_bytes=limit) for a in args]
    except SizeError as error:
        return {"error": failure_of(error), "status": "output_limit"}
    except BaseException as error:
        status = "memory" if isinstance(error, MemoryError) else "error"
        return {"error": exited(error), "status": status}
    changed = {i: new for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    return {"value": value, "changed": changed}


class _StandIn:
    """Calls the program's function in its own sandbox."""

    def __init__(self, name: str, peer: socket.socket, limit: int) -> None:
        self.name = name
        self.peer = peer
        self.limit = limit
        self.raised: dict[str, Any] | None = None
        self.error: BaseException | None = None
        self.status = "error"
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        send(self.peer, (list(args), kwargs))
        try:
            payload, _ = receive_bytes(self.peer, self.limit + (1 << 20))
        except (EOFError, OSError):
            raise _Gone from None
        self.calls += 1
        try:
            answer = decode(payload)
            if "error" in answer:
                failure = dict(answer["error"])
                self.status = str(answer["status"])
            else:
                value = decode(answer["value"])
                for index, data in answer["changed"].items():
                    _copy_into(args[index], decode(data))
                return value
        except (CodecError, LookupError, TypeError, ValueError, AttributeError) as error:
            self.status = "violation"
            self.raised = {"type": "CodecError", "message": f"a forged answer: {error}"}
            raise _Gone from None
        self.raised = failure
        self.error = as_exception(str(failure.get("type")), str(failure.get("message")))
        raise self.error


def _copy_into(target: Any, new: Any) -> None:
    if type(target) is not type(new):
        return
    if isinstance(target, (list, bytearray)):
        target[:] = new
    elif isinstance(target, (dict, set)):
        target.clear()
        target.update(new)
    elif isinstance(target, deque):
        target.clear()
        target.extend(new)


def run_judge(job: dict[str, Any], fd: int, peer: socket.socket) -> None:
    """Run tests against the program in the other sandbox and write the verdict.

    Args:
        job: ``prompt`` (helpers that the tests use), ``tests``, ``entry``, ``limits``. Tests that
            define ``check`` have it called with the function; others are run as they are.
        fd: where the verdict goes.
        peer: the program's side.
    """
    limit = job["limits"]["result_bytes"]
    stand_in = _StandIn(job["entry"], peer, limit)

    def function(*args: Any, **kwargs: Any) -> Any:
        return stand_in(*args, **kwargs)

    function.__name__ = job["entry"]
    module = types.ModuleType("tests")
    names = module.__dict__
    frame: dict[str, Any]
    try:
        if job["prompt"]:
            exec(compile(job["prompt"], "<prompt>", "exec", dont_inherit=True), names)
        names[job["entry"]] = function
        exec(compile(job["tests"], _TESTS, "exec", dont_inherit=True), names)
        check = names.get("check")
        if callable(check):
            check(function)
        frame = {"verdict": "passed"}
    except _Gone:
        frame = {"verdict": "gone"}
        if stand_in.status == "violation":
            frame = {"verdict": "violation", "failure": stand_in.raised}
    except BaseException as error:
        if error is stand_in.error:
            frame = {"verdict": stand_in.status, "failure": stand_in.raised}
        else:
            frame = {"verdict": "wrong", "failure": _of_tests(error)}
    frame["calls"] = stand_in.calls
    frame["status"] = "ok"
    flush()
    write_frame(fd, frame, limit)


def _of_tests(error: BaseException) -> dict[str, Any]:
    """A failed test: the line of the tests, in place of lines of the program."""
    failure = failure_of(error)
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _TESTS:
            line = trace.tb_lineno
        trace = trace.tb_next
    if line is not None:
        failure["message"] = f"{failure['message']} (line {line} of the tests)".strip()
    return failure
