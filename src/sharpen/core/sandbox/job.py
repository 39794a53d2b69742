"""A program to run, and what to run it on."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import copysign
from typing import Any, Literal

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.sandbox.inside.codec import CodecError, Opaque, Record, encode
from sharpen.core.sandbox.inside.program import PICKLED, pickled
from sharpen.core.sandbox.limits import Limits

__all__ = ["Call", "Clock", "EncodedCall", "EncodedJob", "Job", "same"]

Clock = Literal["cpu", "wall", "opcodes"]

_COMPARED_BY_VALUE = frozenset((int, str, bool, bytes, type(None)))


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of a call."""

    args: Sequence[Any] = ()
    """By position."""

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """By name."""

    def encoded(self, where: str = "") -> EncodedCall:
        """As it crosses, for many jobs.

        Args:
            where: the beginning of paths in messages.

        Raises:
            DataError: an argument is of a type that does not cross.
        """
        args = _given(list(self.args), f"{where}args")
        return EncodedCall(args, _given(dict(self.kwargs), f"{where}kwargs"))


@dataclass(frozen=True, slots=True)
class EncodedCall:
    """Arguments of a call as they cross."""

    args: bytes
    """By position."""

    kwargs: bytes
    """By name."""


@dataclass(frozen=True, slots=True)
class EncodedJob:
    """Values of a job as they cross."""

    inputs: list[tuple[bytes, bytes]]
    """Arguments of each call, by position and by name."""

    names: bytes
    """Names that the program has before it is run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A program to run in a sandbox.

    Example:
        >>> job = Job(source="def f(x): return x + 1", entry="f", inputs=[(1,)], expected=[2])
    """

    source: str
    """The program."""

    entry: str | None = None
    """The function that is called, or a dotted path; without one the program is only run, as a
    script is."""

    inputs: Sequence[Call | EncodedCall | Sequence[Any]] = ()
    """Calls, one after another in one process: each its arguments in order, or a :class:`Call`, or
    what its ``encoded()`` gives."""

    expected: Sequence[Any] | None = None
    """What each call should give. It stays outside; types count: 1, 1.0 and True differ."""

    tests: str | None = None
    """Assert-style tests. They run in a sandbox of their own, in which ``entry`` stands for the
    program's function; where they define ``check``, it is called with it. Instead of inputs."""

    prompt: str = ""
    """Helpers that the tests use; run before them."""

    catch: bool = False
    """Go on after a call that raised; its output is a ``Raised``."""

    mutated: bool = False
    """Give back arguments as they are after the calls."""

    names: Mapping[str, Any] = field(default_factory=dict)
    """Plain values that the program finds under these names before it is run."""

    clock: Clock | None = None
    """Time each call: ``cpu`` (of the thread), ``wall``, or ``opcodes``, the instructions of the
    interpreter, which takes about a hundred times as long. Iterators that are returned are not used
    up."""

    call_limit: float | None = None
    """What a call may take by that clock, seconds or instructions; after one that takes more the
    job ends with the status ``timeout`` and has the outputs of the calls before."""

    sample_memory: bool = False
    """Look at its memory every 5 ms, from outside."""

    digests: bool = False
    """Give back a digest of each output in its place, as :func:`digest` has it, where large
    outputs are only compared with those of another run: a program that does not know what is
    expected cannot know its digest either."""

    limits: Limits | None = None
    """Its limits; those of the pool without them."""

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise ConfigError(f"source of a job: give its text, not {type(self.source).__name__}.")
        if self.entry is not None and not all(p.isidentifier() for p in self.entry.split(".")):
            raise ConfigError(f"entry={self.entry!r} of a job: give a function's name.")
        if self.entry is None and (self.inputs or self.tests is not None):
            raise ConfigError("a job with inputs or tests needs entry, the function to call.")
        if self.tests is not None and (self.inputs or self.expected is not None):
            raise ConfigError("a job has tests, or inputs and what is expected, not both.")
        if self.clock is not None:
            if self.clock not in ("cpu", "wall", "opcodes"):
                raise ConfigError(f"clock={self.clock!r} of a job: cpu, wall or opcodes.")
            if self.entry is None or self.tests is not None:
                raise ConfigError("a job with a clock needs entry and inputs, not tests.")
        if self.call_limit is not None and (self.clock is None or not self.call_limit > 0):
            raise ConfigError(
                f"call_limit={self.call_limit!r} of a job: give a number above 0, and a clock."
            )
        if self.expected is not None and len(self.expected) != len(self.inputs):
            raise ConfigError(
                f"a job has {len(self.inputs)} inputs and expects {len(self.expected)} outputs."
                " Give one for each."
            )

    def encoded(self) -> EncodedJob:
        """Its values as they cross.

        Raises:
            DataError: one is of a type that does not; the message has its path.
        """
        inputs = []
        for index, given in enumerate(self.inputs):
            if not isinstance(given, EncodedCall):
                call = given if isinstance(given, Call) else Call(given)
                if isinstance(call.args, (str, bytes)) or not isinstance(call.args, Sequence):
                    raise DataError(
                        f"inputs[{index}] is {call.args!r:.60}: give the arguments of the call in a"
                        " list or tuple, or a Call."
                    )
                given = call.encoded("" if len(self.inputs) == 1 else f"inputs[{index}].")
            inputs.append((given.args, given.kwargs))
        return EncodedJob(inputs, _crossing(dict(self.names), "names"))


def _given(value: Any, where: str) -> bytes:
    """Arguments: what goes in is trusted, so that the fast way will do where it knows all types."""
    data = pickled(value)
    return _crossing(value, where) if data is None else PICKLED + data


def _crossing(value: Any, where: str) -> bytes:
    try:
        return encode(value, strict=True, where=where)
    except CodecError as error:
        raise DataError(
            f"{error} cannot go into a sandbox. Give numbers, texts, bytes, None, lists, tuples,"
            " dicts, sets, arrays, or records of them."
        ) from None


def same(a: Any, b: Any) -> bool:
    """Whether two plain values are the same: of one type, in all they hold; NaN is NaN.

    0.0 and -0.0 differ. The order of a dict does not count.
    """
    if type(a) is not type(b) or isinstance(a, Opaque):
        return False
    if type(a) in _COMPARED_BY_VALUE:
        return bool(a == b)
    if type(a) is float:
        return (a == b and (a != 0.0 or copysign(1, a) == copysign(1, b))) or (a != a and b != b)
    if isinstance(a, dict):
        return len(a) == len(b) and all(k in b and same(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple, deque)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Record):
        names = (a.kind, a.type_name) == (b.kind, b.type_name)
        return names and same(a.fields, b.fields)
    if isinstance(a, complex) and a != a and b != b:
        return True
    try:
        return encode(a) == encode(b)
    except CodecError:
        return False
