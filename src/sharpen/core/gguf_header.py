"""The header of a GGUF file, read without trusting it and without reading weights.

Every count and length is checked against the file's size before it is used, so that a truncated or
lying file gives a :class:`FileFormatError` and never a huge allocation. Format: versions 2 and 3 of
the GGUF specification (ggml), little endian.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.core.errors import FileFormatError, MissingFileError

__all__ = ["GgufHeader", "GgufTensor", "read_gguf_header"]

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_MAX_DEPTH = 4

# Quantization types: name, elements a block, bytes a block.
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    28: ("F64", 1, 8),
    30: ("BF16", 1, 2),
}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies."""

    name: str
    shape: tuple[int, ...]
    """Row-major shape: the reverse of the file's order."""
    type: str
    """Such as ``F32`` or ``Q4_1``."""
    offset: int
    """Bytes from the start of the file."""
    num_bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself."""

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf_header(path: str | Path) -> GgufHeader:
    """Read metadata and tensor places.

    Raises:
        MissingFileError: no such file.
        FileFormatError: not GGUF, an unknown version or type, truncated, or lengths that lie.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 24:
                raise FileFormatError(f"{path} has {size} bytes: too short for a GGUF file.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data, size).read()
    except FileNotFoundError:
        raise MissingFileError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise FileFormatError(f"{path} is a folder, not a GGUF file.") from None


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size = path, data, size
        self.at = 0

    def fail(self, what: str) -> FileFormatError:
        return FileFormatError(
            f"{self.path} is damaged at byte {self.at}: {what}. Get the file again."
        )

    def scalar(self, code: str) -> Any:
        width = struct.calcsize("<" + code)
        if self.at + width > self.size:
            raise self.fail("it ends in the middle of the header")
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += width
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        if length > self.size - self.at:
            raise self.fail(f"a text claims {length} bytes")
        raw = self.data[self.at : self.at + length]
        self.at += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("a text is not UTF-8") from None

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY or depth >= _MAX_DEPTH:
            raise self.fail(f"unknown value type {kind}")
        inner, count = self.scalar("I"), self.scalar("Q")
        if inner in _SCALARS:
            width = struct.calcsize("<" + _SCALARS[inner])
            if count > (self.size - self.at) // width:
                raise self.fail(f"a list claims {count} items")
            values = struct.unpack_from(f"<{count}{_SCALARS[inner]}", self.data, self.at)
            self.at += count * width
            return list(values)
        if count > (self.size - self.at) // 8:
            raise self.fail(f"a list claims {count} items")
        return [self.value(inner, depth + 1) for _ in range(count)]

    def read(self) -> GgufHeader:
        if self.data[:4] != _MAGIC:
            raise FileFormatError(f"{self.path} is not a GGUF file: it does not start with 'GGUF'.")
        self.at = 4
        version = self.scalar("I")
        if version not in (2, 3):
            raise FileFormatError(f"{self.path} has GGUF version {version}; 2 and 3 are read.")
        num_tensors, num_values = self.scalar("Q"), self.scalar("Q")
        # A tensor entry takes at least 24 bytes and a metadata entry 13.
        if num_tensors > self.size // 24 or num_values > self.size // 13:
            raise self.fail(f"it claims {num_tensors} tensors and {num_values} values")
        metadata: dict[str, Any] = {}
        for _ in range(num_values):
            key = self.string()
            metadata[key] = self.value(self.scalar("I"))
        entries = [self.entry() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment > 1 << 20:
            raise self.fail(f"general.alignment is {alignment!r}")
        start = -(-self.at // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for name, shape, kind, offset in entries:
            tensors[name] = self.place(name, shape, kind, start + offset)
        if len(tensors) != num_tensors:
            raise self.fail("two tensors have the same name")
        return GgufHeader(self.path, version, metadata, tensors)

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string()
        rank = self.scalar("I")
        if not 1 <= rank <= 8:
            raise self.fail(f"tensor {name!r} claims {rank} dimensions")
        shape = tuple(self.scalar("Q") for _ in range(rank))
        return name, shape[::-1], self.scalar("I"), self.scalar("Q")

    def place(self, name: str, shape: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
        if kind not in TYPES:
            known = ", ".join(sorted(t[0] for t in TYPES.values()))
            raise FileFormatError(
                f"{self.path}: tensor {name!r} has the unsupported type number {kind}; "
                f"supported: {known}."
            )
        type_name, block, block_bytes = TYPES[kind]
        count = math.prod(shape)
        if count == 0 or shape[-1] % block:
            raise self.fail(f"tensor {name!r} of type {type_name} has shape {shape}")
        num_bytes = count // block * block_bytes
        if offset + num_bytes > self.size:
            raise FileFormatError(
                f"{self.path} is truncated: tensor {name!r} ends at byte {offset + num_bytes} and "
                f"the file has {self.size}. Get the file again."
            )
        return GgufTensor(name, shape, type_name, offset, num_bytes)
