"""A job's own process: it loads the program, calls it, and writes what came out.

Nobody trusts what is written here: the program shares this process and may write it itself. It can
say what its outputs are, and nothing else; what it used and how it ended is seen from outside.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import io
import linecache
import os
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

from sharpen.core.sandbox.inside.channel import LENGTH
from sharpen.core.sandbox.inside.codec import (
    CodecError,
    Raised,
    SizeError,
    decode,
    encode,
)
from sharpen.core.sandbox.inside.timed import Late, Meter

__all__ = [
    "FILE",
    "PICKLED",
    "as_exception",
    "digest",
    "failure_of",
    "load",
    "pickled",
    "run_calls",
    "write_frame",
]

FILE = "<program>"
"""How tracebacks call the program's source."""

PICKLED = b"P"
"""Begins arguments that are not written by the codec; no value of it begins so."""

_MAX_MESSAGE = 4096
_MAX_FRAMES = 30


def write_frame(fd: int, frame: dict[str, Any], max_bytes: int) -> None:
    """Write a result; one that is too long becomes the error that it is."""
    try:
        payload = encode(frame, max_bytes=max_bytes)
    except SizeError:
        said = f"the outputs take more than {max_bytes:,} bytes"
        error = {"type": "SizeError", "message": said, "traceback": "", "frames": []}
        payload = encode({"status": "output_limit", "error": error})
    data = memoryview(LENGTH.pack(len(payload)) + payload)
    while data:
        data = data[os.write(fd, data) :]


def _text(value: object) -> str:
    """``str(value)`` of what may not want to be shown."""
    try:
        return str.__str__(str(value))[:_MAX_MESSAGE]
    except BaseException as error:
        return f"<its text could not be read: {type(error).__name__}>"


def failure_of(error: BaseException) -> dict[str, Any]:
    """What an exception looks like outside: type, message, where in the program it passed."""
    frames: list[tuple[int, str]] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == FILE:
            frames.append((trace.tb_lineno, code.co_name))
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename == FILE and error.lineno:
        frames.append((error.lineno, "<module>"))
    if len(frames) > _MAX_FRAMES:
        frames = [*frames[: _MAX_FRAMES // 2], *frames[-_MAX_FRAMES // 2 :]]
    kind, message = type.__dict__["__name__"].__get__(type(error)), _text(error)
    lines = ["Traceback (most recent call last):"]
    for line, name in frames:
        lines.append(f"  line {line}, in {name}")
        source = linecache.getline(FILE, line).strip()
        if source:
            lines.append(f"    {source}")
    lines.append(f"{kind}: {message}" if message else kind)
    return {"type": kind, "message": message, "traceback": "\n".join(lines), "frames": frames}


class _Shown(str):
    """A text whose ``repr`` is itself: what a ``KeyError`` shows of its key."""

    __slots__ = ()
    __repr__ = str.__str__


def as_exception(type_name: str, message: str) -> Exception:
    """An exception of the built-in type of that name; a ``RuntimeError`` that names others."""
    kind = getattr(builtins, type_name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(_Shown(message))
        except TypeError:  # one that needs more than a message
            pass
    return RuntimeError(f"{type_name}: {message}")


def load(source: str, names: bytes, *, main: bool) -> dict[str, Any]:
    """Run a program's source as a module that has some names already; gives its names."""
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    module = types.ModuleType("__main__" if main else "program")
    module.__file__ = FILE
    sys.modules[module.__name__] = module
    module.__dict__.update(decode(names))
    exec(compile(source, FILE, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def find(names: dict[str, Any], entry: str) -> Callable[..., Any]:
    """The function that is called: a name, or a dotted path below one."""
    found: Any = names
    for part in entry.split("."):
        missing = object()
        inner = found.get(part, missing) if found is names else getattr(found, part, missing)
        if inner is missing:
            raise NameError(f"the program defines no {entry!r}")
        found = inner
    function: Callable[..., Any] = found
    return function


def call(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What a function gives; of a coroutine function, what it gives in the end."""
    value = function(*args, **kwargs)
    if isinstance(value, types.CoroutineType):
        import asyncio

        return asyncio.run(value)
    return value


def exited(error: BaseException) -> dict[str, Any]:
    """An error as :func:`failure_of` has it; leaving early is told apart."""
    failure = failure_of(error)
    if isinstance(error, SystemExit):
        failure["message"] = f"exited early: SystemExit({_text(error)})"
    return failure


def flush() -> None:
    """Let printed text out."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


class _NotPlain(Exception):
    """A value of a type that is not built in."""


class _OfPlainTypes(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        raise _NotPlain


def pickled(value: Any) -> bytes | None:
    """A value of built-in types as bytes, the same for the same value; None for others."""
    file = io.BytesIO()
    pickler = _OfPlainTypes(file, protocol=5)
    pickler.fast = True  # without references: all are copies
    try:
        pickler.dump(value)
    except (_NotPlain, ValueError, RecursionError):  # ValueError: it holds itself
        return None
    return file.getvalue()


def digest(value: Any) -> bytes | None:
    """What tells a value of built-in types from all others; None for other types.

    Equal sets and dicts that were filled in another order have another digest.
    """
    data = pickled(value)
    return None if data is None else hashlib.blake2b(data, digest_size=32).digest()


def _arguments(data: bytes) -> Any:
    """Arguments of a call, which come from outside; nothing is ever unpickled the other way."""
    if data[:1] == PICKLED:
        return pickle.loads(memoryview(data)[1:])
    return decode(data)


def run_calls(job: dict[str, Any], fd: int) -> None:
    """Load a program, call its entry with each input, and write the outputs.

    Args:
        job: ``source``, ``entry``, ``names`` (encoded), ``inputs`` (pairs of encoded arguments),
            ``catch``, ``mutated``, ``limits``, ``clock``, ``call_limit``,
            ``digests``.
        fd: where the result goes.
    """
    frame: dict[str, Any]
    write, end, identify = write_frame, flush, digest  # as they are before the program is loaded
    who_am_i, leave, owner = os.getpid, os._exit, os.getpid()
    outputs: list[Any] = []
    mutated: list[Any] = []
    invoke, meter = call, None
    if job["clock"]:

        def stop() -> None:
            write(fd, late(), job["limits"]["result_bytes"])
            leave(0)

        meter = Meter(job["clock"], job["call_limit"], stop)
        invoke = meter.call

    def measured() -> dict[str, Any]:
        return {} if meter is None else {"times": meter.times, "marks": meter.marks}

    def late() -> dict[str, Any]:
        kept = {"outputs": outputs, "mutated": mutated, "late": True}
        return {"status": "ok", **kept, **measured()}

    try:
        names = load(job["source"], job["names"], main=job["entry"] is None)
        if job["entry"] is not None:
            function = find(names, job["entry"])
            for args_bytes, kwargs_bytes in job["inputs"]:
                args, kwargs = _arguments(args_bytes), _arguments(kwargs_bytes)
                try:
                    value = invoke(function, args, kwargs)
                except Exception as error:
                    if not job["catch"]:
                        raise
                    failure = failure_of(error)
                    value = Raised(failure["type"], failure["message"])
                outputs.append(identify(value) if job["digests"] else value)
                if job["mutated"]:
                    mutated.append((list(args), kwargs))
        frame = {"status": "ok", "outputs": outputs, "mutated": mutated, **measured()}
        end()
        if who_am_i() != owner:
            leave(1)  # a process that the program made, on its way out
        try:
            write(fd, frame, job["limits"]["result_bytes"])
        except CodecError as error:
            write(fd, {"status": "error", "error": failure_of(error)}, 1 << 20)
    except Late:
        end()
        write(fd, late(), job["limits"]["result_bytes"])
    except BaseException as error:
        end()
        if who_am_i() != owner:
            leave(1)
        status = "memory" if isinstance(error, MemoryError) else "error"
        kept = {"status": status, "outputs": [], "error": exited(error), "mutated": []}
        kept |= measured()
        with contextlib.suppress(CodecError, TypeError):
            kept["outputs"] = decode(encode(outputs, max_bytes=job["limits"]["result_bytes"]))
        write(fd, kept, job["limits"]["result_bytes"])
