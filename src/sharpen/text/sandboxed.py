"""A function whose text nobody trusts, as something that can be called: it runs in a sandbox.

What it is given and what it gives cross as plain values. What goes wrong there is raised here, by
the name of its built-in type and from the line of the text where it happened.
"""

from __future__ import annotations

import asyncio
import linecache
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.sandbox import (
    Call,
    CodecError,
    Job,
    Record,
    Result,
    SandboxFailed,
    SandboxPool,
    Status,
    encode,
)
from sharpen.core.sandbox.outcome import find_opaque
from sharpen.text.surroundings import surroundings

__all__ = ["CannotCrossError", "SandboxedFunction"]

_LOCK = threading.Lock()
_POOLS: dict[tuple[int, tuple[str, ...]], SandboxPool] = {}


class CannotCrossError(ConfigError):
    """An argument of a function that runs in a sandbox is no plain value."""


def _pool(packages: tuple[str, ...]) -> SandboxPool:
    """The pool of this process; sandboxes start with the first call."""
    key = (os.getpid(), packages)
    with _LOCK:
        if key not in _POOLS:
            _POOLS[key] = SandboxPool(packages=packages)
        return _POOLS[key]


class SandboxedFunction:
    """Runs a text in a sandbox when it is called.

    Args:
        text: source of one function.
        function: that it stands for, of the same name and arguments.
        filename: how reports call the text.
        is_async: whether a call gives something to await.

    Attributes:
        __code__: what reports of errors know its lines by; it is never run as a program.

    Raises:
        SandboxUnavailable: this machine has no sandbox.
    """

    def __init__(
        self, text: str, function: Callable[..., Any], filename: str, *, is_async: bool
    ) -> None:
        self.__name__ = function.__name__
        self.is_async = is_async
        around = surroundings(text, function)
        preamble = around.preamble()
        self._source = preamble + text
        self._first = preamble.count("\n")
        self._lines = len(text.splitlines())
        self._names = around.values
        self._left_behind = around.left_behind
        parameters = function.__code__.co_varnames[: function.__code__.co_argcount]
        self._is_method = parameters[:1] == ("self",)
        self._pool = _pool(tuple(sorted({"numpy", *around.packages})))
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        marks = "\n".join(f"if line == {i + 1}: raise error" for i in range(self._lines))
        self.__code__ = compile(marks, filename, "exec")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the text gives for these arguments.

        Raises:
            CannotCrossError: an argument is no plain value.
            SandboxFailed: the sandbox failed, twice.
            Exception: the text raised, or used more than it may.
        """
        if self._is_method and args:
            args = (_stand_in(args[0]), *args[1:])
        job = Job(
            source=self._source,
            entry=self.__name__,
            inputs=[Call(args, kwargs)],
            names=self._names,
        )
        return self._awaited(job) if self.is_async else self._value(self._run(job))

    def _submit(self, job: Job) -> Future[Result]:
        try:
            return self._pool.submit(job)
        except DataError as error:
            raise CannotCrossError(
                f"the code of '{self.__name__}' was proposed, so it runs in a sandbox, and {error}"
                " Or op(trainable=True, trust='inline') runs it in this process, with your rights."
            ) from None

    def _run(self, job: Job) -> Result:
        result = self._submit(job).result()
        return self._submit(job).result() if result.status is Status.INFRA else result

    async def _awaited(self, job: Job) -> Any:
        result = await asyncio.wrap_future(self._submit(job))
        if result.status is Status.INFRA:
            result = await asyncio.wrap_future(self._submit(job))
        return self._value(result)

    def _value(self, result: Result) -> Any:
        if result.status is Status.OK:
            value = result.outputs[0]
            opaque = find_opaque(value)
            if opaque is not None:
                raise ValueError(
                    f"it gave a value of the type {opaque.type_name}, which cannot leave a sandbox:"
                    " give numbers, texts, None, lists, tuples, dicts, sets or arrays."
                )
            return value
        error = result.error
        assert error is not None
        if result.status is Status.INFRA:
            raise SandboxFailed(error.message)
        if result.status in (Status.TIMEOUT, Status.WALL_TIMEOUT):
            raise TimeoutError(error.message)
        if result.status is Status.MEMORY:
            raise MemoryError(error.message or "it needed more memory than it may")
        if result.status is not Status.ERROR:
            raise RuntimeError(f"{result.status}: {error.message}")
        raised = error.as_exception()
        if isinstance(raised, NameError):
            raised = self._explained(raised)
        lines = [line - self._first for line, _ in error.frames]
        inside = [line for line in lines if 1 <= line <= self._lines]
        if inside:
            exec(self.__code__, {"line": inside[-1], "error": raised})
        raise raised

    def _explained(self, error: NameError) -> NameError:
        for name, kind in self._left_behind.items():
            if f"'{name}'" in str(error):
                return NameError(
                    f"{error}: it is a {kind} outside, which cannot go into the sandbox; take it as"
                    " an argument"
                )
        return error


def _stand_in(owner: Any) -> Any:
    """An object of a method as its attributes that are plain values."""
    held = {}
    for name, value in getattr(owner, "__dict__", {}).items():
        try:
            encode(value, strict=True)
        except CodecError:
            continue
        held[name] = value
    return Record("dataclass", type(owner).__name__, held)
