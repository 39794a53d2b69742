"""When two calls count as the same.

``exact``
    one class, floats bit by bit (NaN is NaN, 0.0 is not -0.0), dicts in their order, arrays of one
    type and shape.
``close:rtol=1e-9,atol=0``
    the same, but floats within ``atol + rtol * |expected|``.
``ulp:4``
    the same, but floats at most so many representable numbers apart.
``mod:FILE.py:same``
    results for which ``same(expected, got)`` is true; all else exact.
"""

from __future__ import annotations

import math
import runpy
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError, ExecutionError, MissingFileError
from sharpen.core.sandbox import CodecError, Opaque, Record, encode
from sharpen.core.sandbox.outcome import shown

__all__ = ["Difference", "Equality", "ulps"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two calls differ.

    Args:
        where: such as ``result[3]``, ``args[0]`` or ``printed text``.
        expected: in a few words.
        got: in a few words.
    """

    where: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.where} is {self.got}, not {self.expected}"


def ulps(a: float, b: float) -> float:
    """How many representable numbers lie from one to the other; infinite with a NaN or infinity.

    Examples:
        >>> ulps(1.0, 1.0000000000000002)
        1.0
    """
    if a == b:
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return float(abs(_place(a) - _place(b)))


def _place(value: float) -> int:
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return int(bits) if bits >= 0 else -(int(bits) & 0x7FFF_FFFF_FFFF_FFFF)


class Equality:
    """Compares what was seen of two calls.

    Args:
        text: as the module says.
        largest: most ulps between floats that counted as the same so far.

    Raises:
        ConfigError: another text.
        MissingFileError: the file of ``mod:`` is not there.
    """

    def __init__(self, text: str = "exact") -> None:
        self.text = text
        self.largest = 0.0
        self._same: Callable[[Any, Any], Any] | None = None
        self._rtol = self._atol = self._ulps = 0.0
        kind, _, rest = text.partition(":")
        if kind == "exact" and not rest:
            return
        if kind == "close":
            self._rtol, self._atol = _tolerances(rest)
        elif kind == "ulp":
            self._ulps = _number(rest, text)
        elif kind == "mod" and rest:
            self._same = _function(rest)
        else:
            raise ConfigError(
                f"--equal {text!r}: give exact, close:rtol=1e-9,atol=0, ulp:4 or mod:FILE.py:NAME."
            )

    @property
    def rounds(self) -> bool:
        """Whether results may differ by rounding."""
        return self._rtol > 0 or self._atol > 0 or self._ulps > 0

    def difference(self, expected: Mapping[str, Any], got: Mapping[str, Any]) -> Difference | None:
        """The first thing in which two calls differ; None where they do not."""
        if self._same is not None and expected["error"] is None and got["error"] is None:
            return self._by_user(expected["value"], got["value"]) or self._rest(expected, got)
        if (expected["error"] is None) != (got["error"] is None):
            return Difference("result", _call(expected), _call(got))
        return (
            self._of(expected["error"], got["error"], "exception")
            or self._of(expected["value"], got["value"], "result")
            or self._rest(expected, got)
        )

    def _rest(self, expected: Mapping[str, Any], got: Mapping[str, Any]) -> Difference | None:
        for name, where in _REST.items():
            found = self._of(expected[name], got.get(name), where)
            if found is not None:
                return found
        return None

    def _by_user(self, expected: Any, got: Any) -> Difference | None:
        assert self._same is not None
        try:
            same = self._same(expected, got)
        except Exception as error:
            raise ExecutionError(
                f"--equal {self.text}: it raised {type(error).__name__}: {error}"
            ) from None
        return None if same else Difference("result", shown(expected), shown(got))

    def _of(self, a: Any, b: Any, where: str) -> Difference | None:
        try:
            if encode(a, strict=True) == encode(b, strict=True):
                return None
        except (CodecError, TypeError):
            pass
        return self._inner(a, b, where)

    def _inner(self, a: Any, b: Any, where: str) -> Difference | None:
        different = Difference(where, shown(a), shown(b))
        if isinstance(a, Opaque) or isinstance(b, Opaque):
            return Difference(where, f"{shown(a)}, which cannot be compared", shown(b))
        if type(a) is not type(b):
            names = type(a).__name__, type(b).__name__
            return Difference(where, f"{shown(a)} ({names[0]})", f"{shown(b)} ({names[1]})")
        if isinstance(a, float):
            return None if self._floats(a, b) else different
        if isinstance(a, complex):
            both = self._floats(a.real, b.real) and self._floats(a.imag, b.imag)
            return None if both else different
        if isinstance(a, (list, tuple)):
            if len(a) != len(b):
                lengths = f"{len(a)} items: {shown(a)}", f"{len(b)} items: {shown(b)}"
                return Difference(where, *lengths)
            pairs = enumerate(zip(a, b, strict=True))
            return _first(self._inner(x, y, f"{where}[{i}]") for i, (x, y) in pairs)
        if isinstance(a, dict):
            # Keys in their order: 1, 1.0 and True are one key and three values.
            return self._inner(list(a), list(b), f"{where}, its keys") or _first(
                self._inner(a[key], b[key], f"{where}[{shown(key)}]") for key in a
            )
        if isinstance(a, Record):
            if (a.kind, a.type_name) != (b.kind, b.type_name):
                return different
            return self._inner(a.fields, b.fields, where)
        if isinstance(a, (np.ndarray, np.generic)):
            return None if self._arrays(a, b) else different
        return None if encode(a) == encode(b) else different

    def _floats(self, a: float, b: float) -> bool:
        if a != a or b != b:
            return a != a and b != b
        if a == b:
            return math.copysign(1, a) == math.copysign(1, b) or self.rounds
        if not self.rounds or not (math.isfinite(a) and math.isfinite(b)):
            return False
        apart = ulps(a, b)
        fits = apart <= self._ulps if self._ulps else abs(a - b) <= self._atol + self._rtol * abs(a)
        if fits:
            self.largest = max(self.largest, apart)
        return fits

    def _arrays(self, a: Any, b: Any) -> bool:
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype.kind not in "fc":
            return bool(np.array_equal(a, b))
        flat = zip(np.ravel(a).tolist(), np.ravel(b).tolist(), strict=True)
        return all(self._inner(x, y, "") is None for x, y in flat)


_REST = {
    "args": "the arguments after the call",
    "kwargs": "the arguments by name after the call",
    "out": "printed text",
    "err": "text printed on stderr",
}


def _first(found: Any) -> Difference | None:
    return next((one for one in found if one is not None), None)


def _call(seen: Mapping[str, Any]) -> str:
    if seen["error"] is None:
        return shown(seen["value"])
    error = seen["error"]
    if not isinstance(error, Record):
        return shown(error)
    return f"{error.fields.get('type_name')} {shown(error.fields.get('parts'))}"


def _tolerances(rest: str) -> tuple[float, float]:
    found = {"rtol": 0.0, "atol": 0.0}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if name not in found or not equals:
            raise ConfigError(f"--equal close:{rest}: write close:rtol=1e-9,atol=0.")
        found[name] = _number(value, f"close:{rest}")
    if not any(found.values()):
        raise ConfigError(f"--equal close:{rest}: give rtol or atol above 0, or use exact.")
    return found["rtol"], found["atol"]


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0 or not math.isfinite(value):
        raise ConfigError(f"--equal {where}: {text!r} is no number from 0 on.")
    return value


def _function(text: str) -> Callable[[Any, Any], Any]:
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ConfigError(f"--equal mod:{text}: write mod:FILE.py:NAME.")
    if not Path(file).is_file():
        raise MissingFileError(f"there is no file {file} (--equal mod:{text}).")
    try:
        found = runpy.run_path(file).get(name)
    except Exception as error:
        raise ExecutionError(f"{file} raised {type(error).__name__}: {error}") from None
    if not callable(found):
        raise ConfigError(f"--equal mod:{text}: {file} defines no function '{name}'.")
    same: Callable[[Any, Any], Any] = found
    return same
