"""Values as bytes and back, between processes of which one trusts the other with nothing.

A value is one byte that tells its type and what follows::

    N T F            None, True, False
    i len bytes      int, two's complement, little-endian      f 8     float     c 16   complex
    s len utf8       str                                       b len   bytes
    l t S z count    list, tuple, set, frozenset and their values
    d count          dict: key, value, key, value, ...
    A g              numpy array (dtype, shape, raw) and numpy scalar (dtype, raw)
    X name value     a type of the standard library, made from a plain value
    R kind name      a named tuple or dataclass: its fields by name
    O name repr      anything else, in what comes out of a sandbox; refused in what goes in

Types stay apart: ``1``, ``True`` and ``1.0`` are three values, a list is no tuple. An instance of a
subclass of a built-in type crosses as the built-in value it holds, so that no method of the program
comes along. Ints are binary and not decimal digits, because digits cost the square of their number,
which would let a program keep its reader busy.

Reading never runs code of the writer's, makes nothing before it has seen its bytes, and refuses
what is too deep, too many, or made so that a dict gets slow.
"""

from __future__ import annotations

import struct
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUES",
    "CodecError",
    "Opaque",
    "Raised",
    "Record",
    "SizeError",
    "decode",
    "encode",
]

MAX_DEPTH = 200
MAX_VALUES = 4_000_000
_MAX_SAME_HASH = 64
_MAX_TEXT = 200  # of a name or a repr
_ARRAY_KINDS = "biufcSUMm"
_COUNT = struct.Struct("<I")
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")


class CodecError(ValueError):
    """A value that cannot cross, with its path, or bytes that are no value."""


class SizeError(CodecError):
    """A value of more bytes than may cross."""


class Opaque:
    """Stands for a value of a type that does not cross; equal to nothing, itself included.

    Attributes:
        type_name: of the value.
        text: its ``repr``, cut.
    """

    __slots__ = ("text", "type_name")

    def __init__(self, type_name: str, text: str) -> None:
        self.type_name = type_name
        self.text = text

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Opaque({self.type_name}: {self.text})"


class Record:
    """A named tuple or dataclass of the program: its type's name and its fields, as attributes.

    Attributes:
        kind: ``namedtuple`` or ``dataclass``.
        type_name: of the value.
        fields: by name, in order.
    """

    __slots__ = ("fields", "kind", "type_name")

    def __init__(self, kind: str, type_name: str, fields: dict[str, Any]) -> None:
        self.kind = kind
        self.type_name = type_name
        self.fields = fields

    def __getattr__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, "fields")[name]
        except KeyError:
            raise AttributeError(f"{self.type_name!r} has no field {name!r}") from None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Record):
            mine, its = (self.kind, self.type_name), (other.kind, other.type_name)
            return mine == its and self.fields == other.fields
        if self.kind == "namedtuple" and isinstance(other, tuple):
            return tuple(self.fields.values()) == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.fields.values()))

    def __iter__(self) -> Any:
        if self.kind != "namedtuple":
            raise TypeError(f"{self.type_name!r} cannot be iterated")
        return iter(self.fields.values())

    def __repr__(self) -> str:
        return f"{self.type_name}({', '.join(f'{k}={v!r}' for k, v in self.fields.items())})"


class Raised:
    """Stands for what a call raised, where a job goes on after errors.

    Attributes:
        type_name: of the exception.
        message: its text, cut.
    """

    __slots__ = ("message", "type_name")

    def __init__(self, type_name: str, message: str) -> None:
        self.type_name = type_name
        self.message = message

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Raised):
            return NotImplemented
        return (self.type_name, self.message) == (other.type_name, other.message)

    def __hash__(self) -> int:
        return hash((self.type_name, self.message))

    def __repr__(self) -> str:
        return f"Raised({self.type_name}: {self.message})"


def _plain_types() -> dict[type, tuple[str, Callable[[Any], Any]]]:
    """Types of the standard library that cross, each with how a plain value is made of it.

    Modules that are not loaded have no values: nothing is imported to look for them.
    """
    found: dict[type, tuple[str, Callable[[Any], Any]]] = {
        bytearray: ("bytearray", bytes),
        range: ("range", lambda v: (v.start, v.stop, v.step)),
        deque: ("deque", lambda v: (list(v), v.maxlen)),
        Counter: ("Counter", dict),
        OrderedDict: ("OrderedDict", dict),
        Raised: ("Raised", lambda v: (v.type_name, v.message)),
    }
    for module, name, plain in _LATER:
        if module in sys.modules:
            kind = getattr(sys.modules[module], name, None)
            if isinstance(kind, type):
                found[kind] = (name, plain)
    return found


_LATER: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("decimal", "Decimal", str),
    ("fractions", "Fraction", lambda v: (v.numerator, v.denominator)),
    ("datetime", "datetime", lambda v: v.isoformat()),
    ("datetime", "date", lambda v: v.isoformat()),
    ("datetime", "time", lambda v: v.isoformat()),
    ("datetime", "timedelta", lambda v: (v.days, v.seconds, v.microseconds)),
)


def _ints(value: Any, count: int) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) != count or any(type(v) is not int for v in value):
        raise CodecError("a damaged value")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise CodecError("a damaged value")
    return value


def _make(name: str, value: Any) -> Any:
    """A value of one of the types of :func:`_plain_types`."""
    if name == "bytearray" and type(value) is bytes:
        return bytearray(value)
    if name == "range":
        return range(*_ints(value, 3))
    if name == "deque" and type(value) is tuple and len(value) == 2 and type(value[0]) is list:
        return deque(value[0], value[1])
    if name in ("Counter", "OrderedDict") and type(value) is dict:
        return Counter(value) if name == "Counter" else OrderedDict(value)
    if name == "Raised" and type(value) is tuple and len(value) == 2:
        return Raised(*map(str, value))
    if name == "Decimal":
        from decimal import Decimal

        return Decimal(_text(value))
    if name == "Fraction":
        from fractions import Fraction

        return Fraction(*_ints(value, 2))
    if name in ("datetime", "date", "time"):
        import datetime

        return getattr(datetime, name).fromisoformat(_text(value))
    if name == "timedelta":
        import datetime

        return datetime.timedelta(*_ints(value, 3))
    raise CodecError("a damaged value")


class _Writer:
    def __init__(self, max_bytes: int, strict: bool) -> None:
        self.parts: list[bytes] = []
        self.left = max_bytes
        self.max_bytes = max_bytes
        self.strict = strict
        self.plain_types = _plain_types()
        self.numpy = sys.modules.get("numpy")

    def put(self, *parts: bytes) -> None:
        for part in parts:
            self.left -= len(part)
            self.parts.append(part)
        if self.left < 0:
            raise SizeError(f"more than {self.max_bytes:,} bytes")

    def sized(self, tag: bytes, data: bytes) -> None:
        self.put(tag, _COUNT.pack(len(data)), data)

    def text(self, value: str) -> None:
        self.sized(b"s", value.encode("utf-8", "surrogatepass"))

    def value(self, value: Any, depth: int) -> None:
        kind = type(value)
        if value is None:
            self.put(b"N")
        elif kind is bool:
            self.put(b"T" if value else b"F")
        elif kind is int:
            self.sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        elif kind is float:
            self.put(b"f", _FLOAT.pack(value))
        elif kind is str:
            self.text(value)
        elif kind is bytes:
            self.sized(b"b", value)
        elif kind is complex:
            self.put(b"c", _COMPLEX.pack(value.real, value.imag))
        elif depth >= MAX_DEPTH:
            raise CodecError(f": more than {MAX_DEPTH} deep, or within itself")
        elif kind is list or kind is tuple:
            self.items(b"l" if kind is list else b"t", value, len(value), depth)
        elif kind is dict:
            self.pairs(value.items(), len(value), depth)
        elif kind is set or kind is frozenset:
            self.elements(b"S" if kind is set else b"z", value, len(value), depth)
        elif kind in self.plain_types:
            name, plain = self.plain_types[kind]
            self.sized(b"X", name.encode())
            self.value(plain(value), depth + 1)
        else:
            self.other(value, kind, depth)

    def items(self, tag: bytes, values: Iterable[Any], count: int, depth: int) -> None:
        self.put(tag, _COUNT.pack(count))
        index = 0
        try:
            for item in values:
                self.value(item, depth + 1)
                index += 1
        except CodecError as error:
            raise _within(f"[{index}]", error) from None

    def elements(self, tag: bytes, values: Iterable[Any], count: int, depth: int) -> None:
        """Values of a set, in the order of their bytes, so that equal sets have equal bytes."""
        self.put(tag, _COUNT.pack(count))
        first, pieces = len(self.parts), []
        for item in values:
            start = len(self.parts)
            try:
                self.value(item, depth + 1)
            except CodecError as error:
                raise _within("{}", error) from None
            pieces.append(b"".join(self.parts[start:]))
        self.parts[first:] = sorted(pieces)

    def pairs(self, pairs: Iterable[tuple[Any, Any]], count: int, depth: int) -> None:
        self.put(b"d", _COUNT.pack(count))
        key: Any = None
        try:
            for key, item in pairs:
                self.value(key, depth + 1)
                self.value(item, depth + 1)
        except CodecError as error:
            raise _within(f"[{_shown(key)[:60]}]", error) from None

    def other(self, value: Any, kind: type, depth: int) -> None:
        """Arrays, records, subclasses of built-in types, and what is none of them."""
        if self.numpy is not None and isinstance(value, (self.numpy.ndarray, self.numpy.generic)):
            if value.dtype.kind in _ARRAY_KINDS and value.dtype.itemsize:
                self.array(value)
                return
        elif issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
            names = tuple(map(str.__str__, kind._fields))  # type: ignore[attr-defined]
            self.record(b"n", kind, names, tuple(tuple.__iter__(value)), depth)
            return
        elif isinstance(getattr(kind, "__dataclass_fields__", None), dict):
            names = tuple(kind.__dataclass_fields__)  # type: ignore[attr-defined]
            held = [name for name in names if hasattr(value, name)]
            self.record(b"c", kind, held, [getattr(value, name) for name in held], depth)
            return
        elif kind is Record:
            tag = b"n" if value.kind == "namedtuple" else b"c"
            self.named(tag, value.type_name, value.fields, value.fields.values(), depth)
            return
        else:
            for base, plain in _BASES:
                if issubclass(kind, base):
                    self.value(plain(value), depth)
                    return
        if self.strict:
            raise CodecError(f": {kind!r}")
        self.put(b"O")
        self.text(_name(kind))
        self.text(_shown(value))

    def array(self, value: Any) -> None:
        raw = value.tobytes()
        if value.ndim == 0 and not isinstance(value, self.numpy.ndarray):  # type: ignore[union-attr]
            self.sized(b"g", value.dtype.str.encode())
        else:
            self.sized(b"A", value.dtype.str.encode())
            self.put(_COUNT.pack(value.ndim), *(n.to_bytes(8, "little") for n in value.shape))
        self.put(_COUNT.pack(len(raw)), raw)

    def record(
        self, tag: bytes, kind: type, names: Iterable[str], values: Iterable[Any], depth: int
    ) -> None:
        self.named(tag, _name(kind), names, values, depth)

    def named(
        self, tag: bytes, name: str, names: Iterable[str], values: Iterable[Any], depth: int
    ) -> None:
        names = list(names)
        self.put(b"R", tag)
        self.text(name)
        self.put(_COUNT.pack(len(names)))
        for field, item in zip(names, values, strict=True):
            self.text(field)
            try:
                self.value(item, depth + 1)
            except CodecError as error:
                raise _within(f".{field}", error) from None


def _within(where: str, error: CodecError) -> CodecError:
    return error if isinstance(error, SizeError) else CodecError(f"{where}{error}")


def _name(kind: type) -> str:
    name = type.__dict__["__qualname__"].__get__(kind)
    return str.__str__(name).rsplit(".", 1)[-1][:_MAX_TEXT]


def _shown(value: Any) -> str:
    try:
        return str.__str__(repr(value))[:_MAX_TEXT]
    except Exception as error:
        return f"<repr raised {_name(type(error))}>"


_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (bytes, lambda v: bytes.__getitem__(v, slice(None))),
    (list, lambda v: list(list.__iter__(v))),
    (tuple, lambda v: tuple(tuple.__iter__(v))),
    (dict, lambda v: dict(dict.items(v))),
    (set, lambda v: set(set.__iter__(v))),
    (frozenset, lambda v: frozenset(frozenset.__iter__(v))),
)


def encode(
    value: Any, *, strict: bool = False, max_bytes: int = 64 << 20, where: str = "value"
) -> bytes:
    """The bytes of a value.

    Args:
        value: see the module.
        strict: refuse what would cross as :class:`Opaque`.
        max_bytes: how long the result may be.
        where: how messages call the value.

    Raises:
        SizeError: it is longer.
        CodecError: a type that does not cross, with its path, as in ``args[0]['x']: <class ...>``;
            or it is too deep.
    """
    writer = _Writer(max_bytes, strict)
    try:
        writer.value(value, 0)
    except SizeError as error:
        raise SizeError(f"{where}: {error}") from None
    except CodecError as error:
        raise CodecError(f"{where}{error}") from None
    return b"".join(writer.parts)


class _Reader:
    def __init__(self, data: bytes, max_values: int) -> None:
        self.data = data
        self.at = 0
        self.left = max_values

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise CodecError("the bytes end within a value")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def count(self) -> int:
        return int(_COUNT.unpack(self.take(4))[0])

    def many(self) -> int:
        """A number of values to come, each of which takes a byte at least."""
        count = self.count()
        if count > len(self.data) - self.at:
            raise CodecError("the bytes end within a value")
        return count

    def text(self) -> str:
        if self.take(1) != b"s":
            raise CodecError("a damaged value")
        return self.take(self.count()).decode("utf-8", "surrogatepass")

    def value(self, depth: int) -> Any:
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH + 1:
            raise CodecError("too many values, or too deep")
        tag = self.take(1)
        match tag:
            case b"N":
                return None
            case b"T":
                return True
            case b"F":
                return False
            case b"i":
                return int.from_bytes(self.take(self.count()), "little", signed=True)
            case b"f":
                return _FLOAT.unpack(self.take(8))[0]
            case b"s":
                return self.take(self.count()).decode("utf-8", "surrogatepass")
            case b"b":
                return self.take(self.count())
            case b"l":
                return [self.value(depth + 1) for _ in range(self.many())]
            case b"t":
                return tuple([self.value(depth + 1) for _ in range(self.many())])
            case b"d":
                return self.pairs(depth)
            case b"S":
                return set(self.keys(self.many(), depth))
            case b"z":
                return frozenset(self.keys(self.many(), depth))
            case b"c":
                return complex(*_COMPLEX.unpack(self.take(16)))
            case b"A" | b"g":
                return self.array(scalar=tag == b"g")
            case b"X":
                return _make(self.take(self.count()).decode(), self.value(depth + 1))
            case b"R":
                return self.record(depth)
            case b"O":
                return Opaque(self.text(), self.text())
        raise CodecError(f"no value begins with {tag!r}")

    def pairs(self, depth: int) -> dict[Any, Any]:
        keys, values = [], []
        for _ in range(self.many()):
            keys.append(self.value(depth + 1))
            values.append(self.value(depth + 1))
        _check_hashes(keys)
        return dict(zip(keys, values, strict=True))

    def keys(self, count: int, depth: int) -> list[Any]:
        keys = [self.value(depth + 1) for _ in range(count)]
        _check_hashes(keys)
        return keys

    def array(self, *, scalar: bool) -> Any:
        import numpy as np

        dtype = np.dtype(self.take(self.count()).decode())
        if dtype.kind not in _ARRAY_KINDS or dtype.itemsize == 0:
            raise CodecError("an array of another type than numbers, texts and dates")
        shape: tuple[int, ...] = ()
        if not scalar:
            dims = self.count()
            if dims > 64:
                raise CodecError("an array of more than 64 dimensions")
            shape = tuple(int.from_bytes(self.take(8), "little") for _ in range(dims))
        flat = np.frombuffer(self.take(self.count()), dtype)
        array = flat.reshape(shape).copy()
        return array[()] if scalar else array

    def record(self, depth: int) -> Record:
        tag = self.take(1)
        if tag not in (b"n", b"c"):
            raise CodecError("a damaged value")
        name = self.text()
        fields = {self.text(): self.value(depth + 1) for _ in range(self.many())}
        return Record("namedtuple" if tag == b"n" else "dataclass", name, fields)


def _check_hashes(keys: list[Any]) -> None:
    """Refuse keys made to collide, with which a dict takes the square of their number."""
    if len(keys) <= _MAX_SAME_HASH:
        for key in keys:
            hash(key)
        return
    seen: dict[int, int] = {}
    for key in keys:
        value = hash(key)
        seen[value] = times = seen.get(value, 0) + 1
        if times > _MAX_SAME_HASH:
            raise CodecError("keys whose hashes collide")


def decode(data: bytes, *, max_values: int = MAX_VALUES) -> Any:
    """The value that some bytes are.

    Args:
        data: from :func:`encode`, or from whoever wants this process to fail.
        max_values: how many values they may be, each within a container counted.

    Raises:
        CodecError: they are none.
    """
    reader = _Reader(data, max_values)
    try:
        value = reader.value(0)
    except CodecError:
        raise
    except _DAMAGE as error:
        raise CodecError(f"a damaged value: {_shown(error)}") from None
    if reader.at != len(data):
        raise CodecError("bytes after the value")
    return value


_DAMAGE = (TypeError, ValueError, ArithmeticError, RecursionError, ImportError, MemoryError)
