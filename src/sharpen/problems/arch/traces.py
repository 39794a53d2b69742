r"""Traces of memory requests: read from files, or made like a kind of program.

A file is one of::

    .stl, .txt     31:  read  0x400140          cycle: read|write address; # begins a comment
    .csv           cycle,kind,address[,source[,after]] with a header
    .trace         binary: the 8 bytes "SHDRAM1\n", then a record of 32 bytes a request, little
                   endian: int64 cycle, int64 address, int64 after, int32 source, int32 is_write

A request with ``after`` waits for the answer of that earlier one and then for ``cycle`` cycles.

Workloads are drawn by a seed and made for a channel of 12.8 GB/s and more; times are cycles.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import (
    ConfigError,
    DataError,
    FileFormatError,
    MissingFileError,
    did_you_mean,
)
from sharpen.core.files import atomic_write_bytes
from sharpen.core.space import random_stream

__all__ = ["WORKLOADS", "Trace", "read_trace", "workload"]

Ints = npt.NDArray[np.int64]
_MAGIC = b"SHDRAM1\n"
_RECORD = np.dtype(
    [("at", "<i8"), ("address", "<i8"), ("after", "<i8"), ("source", "<i4"), ("is_write", "<i4")]
)
_STL = re.compile(r"^(\d+)\s*:\s*(read|write)\s+(0[xX][0-9a-fA-F]+|\d+)$")
_KINDS = {"read": 0, "write": 1}
_LINE = 64
# A minute of a memory, which takes a second for its refreshes alone.
_MOST = {"at": 2**36, "address": 2**62, "is_write": 2, "source": 4096}
_LARGEST = 2**62


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests of one line of 64 bytes each, in the order in which their sources make them.

    Raises:
        DataError: lengths differ, numbers are negative or too large, cycles of a source go back, or
            a request waits for one that is not before it.
    """

    at: Ints
    """[n] cycle of the request; with ``after``, cycles after that answer."""

    address: Ints
    """[n] in bytes."""

    is_write: Ints
    """[n] 0 reads, 1 writes."""

    source: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """[n] who asks, from 0; default one source."""

    after: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """[n] number of the request whose answer is needed first, or -1; default none."""

    name: str = "trace"
    """For reports."""

    def __post_init__(self) -> None:
        n = len(self.at)
        for name, default in (
            ("at", 0), ("address", 0), ("is_write", 0), ("source", 0), ("after", -1)
        ):  # fmt: skip
            part = np.asarray(getattr(self, name))
            if not len(part) and n and name in ("source", "after"):
                part = np.full(n, default)
            if part.shape != (n,) or (n and part.dtype.kind not in "iub"):
                raise DataError(f"{name} must be {n} whole numbers, like at (Trace).")
            part = np.ascontiguousarray(part, dtype=np.int64)
            low, high = (-1, n) if name == "after" else (0, _MOST[name])
            if n and not (part.min() >= low and part.max() < high):
                raise DataError(f"{name} must lie from {low} to {high - 1} (Trace).")
            object.__setattr__(self, name, part)
        wrong = np.flatnonzero(self.after >= np.arange(n))
        if len(wrong):
            i = int(wrong[0])
            raise DataError(f"request {i} waits for {int(self.after[i])}, not before it (Trace).")
        for source in range(self.sources if n else 0):
            its = np.flatnonzero((self.source == source) & (self.after < 0))
            back = np.flatnonzero(np.diff(self.at[its]) < 0)
            if len(back):
                i = int(its[back[0] + 1])
                raise DataError(
                    f"request {i} of source {source} is before the one ahead of it, in cycle "
                    f"{int(self.at[i])}; sort the trace by cycle (Trace)."
                )

    def __len__(self) -> int:
        return len(self.at)

    @property
    def sources(self) -> int:
        """Number of sources."""
        return int(self.source.max()) + 1 if len(self.source) else 1

    def save(self, path: str | Path) -> None:
        """Write the binary form."""
        rows = np.zeros(len(self), dtype=_RECORD)
        for name in _RECORD.names or ():
            rows[name] = getattr(self, name)
        atomic_write_bytes(Path(path), _MAGIC + rows.tobytes())


# -- files ----------------------------------------------------------------------------------------


def read_trace(path: str | Path) -> Trace:
    """Read a trace; the form goes by the file's suffix, see the module.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: a line cannot be read, with its number, or another suffix.
        DataError: the requests contradict each other; see :class:`Trace`.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], Trace]] = {
        ".stl": _read_stl,
        ".txt": _read_stl,
        ".csv": _read_csv,
        ".trace": _read_binary,
    }
    if path.suffix not in readers:
        raise FileFormatError(
            f"{path}: a trace ends in one of {', '.join(readers)}, not in '{path.suffix}'."
        )
    if not path.is_file():
        raise MissingFileError(f"there is no trace {path}.")
    try:
        return readers[path.suffix](path)
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is no text: {error}.") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _made(rows: Sequence[tuple[int, int, int, int, int]], name: str) -> Trace:
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    at, is_write, address, source, after = table.T
    return Trace(at, address, is_write, source, after, name)


def _read_stl(path: Path) -> Trace:
    rows = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = text.partition("#")[0].strip()
        if not text:
            continue
        match = _STL.match(text)
        if match is None:
            raise FileFormatError(
                f"{path}:{number}: {text!r} is no request. Write CYCLE: read|write ADDRESS, such "
                "as '31: read 0x400140'."
            )
        address = int(match[3], 0) if match[3][:2].lower() == "0x" else int(match[3])
        where = f"{path}:{number}"
        rows.append((_small(int(match[1]), where), _KINDS[match[2]], _small(address, where), 0, -1))
    return _made(rows, path.stem)


def _small(value: int, where: str) -> int:
    if not -1 <= value < _LARGEST:
        raise FileFormatError(f"{where}: {value} is out of range.")
    return value


def _read_csv(path: Path) -> Trace:
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        lacking = [name for name in ("cycle", "kind", "address") if name not in header]
        if lacking:
            raise FileFormatError(
                f"{path}:1: the header lacks {', '.join(lacking)}. "
                "Write cycle,kind,address[,source[,after]]."
            )
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if row["kind"] not in _KINDS:
                raise FileFormatError(f"{where}: kind must be read or write, got {row['kind']!r}.")
            rows.append(
                (
                    _whole(row["cycle"], "cycle", where),
                    _KINDS[row["kind"]],
                    _whole(row["address"], "address", where),
                    _whole(row.get("source") or "0", "source", where),
                    _whole(row.get("after") or "-1", "after", where),
                )
            )
    return _made(rows, path.stem)


def _whole(text: str | None, name: str, where: str) -> int:
    try:
        return _small(int(text or "", 0), where)
    except ValueError:
        raise FileFormatError(f"{where}: {name} must be a whole number, got {text!r}.") from None


def _read_binary(path: Path) -> Trace:
    data = path.read_bytes()
    body = data[len(_MAGIC) :]
    if not data.startswith(_MAGIC):
        raise FileFormatError(f"{path} does not begin as a binary trace does.")
    if len(body) % _RECORD.itemsize:
        raise FileFormatError(
            f"{path} is cut off: {len(body)} bytes are no multiple of {_RECORD.itemsize}."
        )
    rows = np.frombuffer(body, dtype=_RECORD)
    parts = {name: rows[name].astype(np.int64) for name in _RECORD.names or ()}
    return Trace(**parts, name=path.stem)


# -- workloads ------------------------------------------------------------------------------------


def _at(rng: np.random.Generator, n: int, mean_gap: float) -> Ints:
    """Cycles with geometric gaps."""
    return np.cumsum(rng.geometric(1 / mean_gap, n)) - 1


def _stream(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """The triad a[i] = b[i] + s c[i] over three arrays: two reads, then a write."""
    i = np.arange(n)
    base = np.array([1, 2, 0]) * (64 << 20) + np.array([0, 3, 5]) * 8192
    address = base[i % 3] + i // 3 * _LINE
    return {"at": _at(rng, n, 8), "address": address, "is_write": (i % 3 == 2).astype(np.int64)}


def _random(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Lines anywhere in a gibibyte, one in three written, by four sources."""
    return {
        "at": _at(rng, n, 16),
        "address": rng.integers(0, (1 << 30) // _LINE, n) * _LINE,
        "is_write": (rng.random(n) < 1 / 3).astype(np.int64),
        "source": rng.integers(0, 4, n),
    }


def _pointer_chase(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """A list walked node by node: each read waits for the one before it."""
    return {
        "at": np.full(n, 20),
        "address": rng.integers(0, (256 << 20) // _LINE, n) * _LINE,
        "is_write": np.zeros(n, dtype=np.int64),
        "after": np.arange(n) - 1,
    }


def _strided(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """A column of a large matrix, four lines at each of its rows, one row in eight written back."""
    i = np.arange(n)
    address = i // 4 * (8192 * 3 + 512) + i % 4 * _LINE
    return {"at": _at(rng, n, 14), "address": address, "is_write": (i // 4 % 8 == 7).astype("i8")}


def _cloud(
    rng: np.random.Generator, n: int, *, sources: int, zipf: float, write: float, run: int, gap: int
) -> dict[str, Any]:
    """Services that touch popular pages more often, in bursts of a few lines, with pauses."""
    pages = 1 << 16
    share = 1 / np.arange(1, pages + 1) ** zipf
    edges = np.cumsum(share / share.sum())
    place = rng.permutation(pages)
    count = -(-n // run) + 1
    lengths = rng.integers(1, 2 * run, count)
    while lengths.sum() < n:
        lengths = np.concatenate([lengths, rng.integers(1, 2 * run, count)])
    number = np.repeat(np.arange(len(lengths)), lengths)[:n]
    within = np.concatenate([np.arange(length) for length in lengths])[:n]
    page = place[np.minimum(np.searchsorted(edges, rng.random(len(lengths))), pages - 1)]
    first = rng.integers(0, 64, len(lengths))
    line = (first[number] + within) % 64
    pause = np.cumsum(rng.geometric(1 / (gap * run), len(lengths)))
    return {
        "at": np.maximum.accumulate(pause[number] + 4 * within),
        "address": page[number] * 4096 + line * _LINE,
        "is_write": (rng.random(len(lengths)) < write)[number].astype(np.int64),
        "source": rng.integers(0, sources, len(lengths))[number],
    }


def _cloud_1(rng: np.random.Generator, n: int) -> dict[str, Any]:
    return _cloud(rng, n, sources=8, zipf=1.1, write=0.2, run=4, gap=12)


def _cloud_2(rng: np.random.Generator, n: int) -> dict[str, Any]:
    return _cloud(rng, n, sources=4, zipf=0.7, write=0.5, run=12, gap=20)


def _llm_decode(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """A language model's step: weights read in order, cached keys in blocks, a few writes."""
    weights, blocks = 0, 1 << 20
    made: list[tuple[int, int, int]] = []
    while len(made) < n:
        made += [(k * _LINE, 0, 0) for k in range(weights, weights + 96)]
        weights += 96
        for block in rng.integers(0, 1 << 12, 6):
            made += [((blocks + int(block) * 64 + k) * _LINE, 0, 1) for k in range(8)]
        made += [((blocks + int(rng.integers(1 << 18))) * _LINE, 1, 1) for _ in range(4)]
    address, is_write, source = np.array(made[:n], dtype=np.int64).reshape(-1, 3).T
    return {"at": _at(rng, n, 6), "address": address, "is_write": is_write, "source": source}


_MAKERS: dict[str, Callable[[np.random.Generator, int], dict[str, Any]]] = {
    "stream": _stream,
    "random": _random,
    "pointer-chase": _pointer_chase,
    "strided": _strided,
    "cloud-1": _cloud_1,
    "cloud-2": _cloud_2,
    "llm-decode": _llm_decode,
}

WORKLOADS: tuple[str, ...] = tuple(_MAKERS)
"""Names of the workloads that can be made."""


def workload(name: str, *, requests: int = 4000, seed: int = 0) -> Trace:
    """Make a trace.

    Args:
        name: one of :data:`WORKLOADS`.
        requests: how many.
        seed: of its random parts.

    Raises:
        ConfigError: an unknown name, or no requests.
    """
    if name not in _MAKERS:
        raise ConfigError(
            f"there is no workload '{name}'.{did_you_mean(name, _MAKERS)} Known: "
            f"{', '.join(_MAKERS)}; or give the path of a trace."
        )
    if requests < 1:
        raise ConfigError(f"requests={requests} must be at least 1.")
    return Trace(**_MAKERS[name](random_stream(seed, 0), requests), name=name)
