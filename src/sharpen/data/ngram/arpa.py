r"""ARPA files: a language model as text, as SRILM, KenLM and others read and write it.

A line of an n-gram is log10 of its probability, its words, and log10 of its backoff weight unless
that is 0::

    \data\
    ngram 1=4
    ngram 2=3

    \2-grams:
    -0.3010300	<s> a	-0.1760913

    \end\
"""

from __future__ import annotations

import ctypes
import functools
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import FileFormatError, MissingFileError, storage_errors
from sharpen.core.files import atomic_write_bytes
from sharpen.data.ngram.model import NgramModel, build_model
from sharpen.data.ngram.tables import NONE, find, insert, keys_of
from sharpen.native.build import load

__all__ = ["read_arpa", "write_arpa"]

_RESERVED = (b"<unk>", b"<s>", b"</s>")
_UNKNOWN = -100.0  # log10 p(<unk>) where the file has none, as KenLM takes it
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


def write_arpa(model: NgramModel, path: str | Path) -> None:
    """Write a model as text, packed if the name ends in ``.gz``; numbers come back as they were.

    Raises:
        StorageError: the disk is full, or may not be written.
        FileFormatError: the model came from a damaged file.
    """
    path = Path(path)
    text = io.BytesIO()
    text.write(b"\\data\\\n")
    for n, count in enumerate(model.ngrams, start=1):
        text.write(b"ngram %d=%d\n" % (n, count))
    words = np.arange(len(model.unigrams), dtype=np.uint32)[
        :, None
    ]  # [m, n] of the n-grams of each order
    values = model.unigrams
    number = np.arange(len(model.unigrams))  # by place in the table
    for n in range(1, model.order + 1):
        if n > 1:
            table = model.tables[n - 2]
            held = np.nonzero(table["key"] != _EMPTY)[0]
            keys = table["key"][held]
            context = keys >> np.uint64(32)
            last = (keys & np.uint64(NONE)).astype(np.uint32)
            if (context >= len(number)).any() or (last >= len(model.unigrams)).any():
                raise FileFormatError(f"the n-grams of {n} words are damaged.")
            context = number[context]
            if (context < 0).any():
                raise FileFormatError(f"n-grams of {n} words lack their first {n - 1}.")
            order = np.lexsort((last, context))
            words = np.concatenate([words[context[order]], last[order, None]], 1)
            values = np.stack([table["probability"], table["backoff"]], 1)[held[order]]
            number = np.full(len(table), -1)
            number[held[order]] = np.arange(len(held))
        text.write(b"\n\\%d-grams:\n" % n)
        text.write(_lines(model, words, values))
    text.write(b"\n\\end\\\n")
    packed = path.name.lower().endswith(".gz")
    data = gzip.compress(text.getvalue(), 6, mtime=0) if packed else text.getvalue()
    with storage_errors(path):
        atomic_write_bytes(path, data)


def _lines(
    model: NgramModel, words: npt.NDArray[np.uint32], values: npt.NDArray[np.float32]
) -> bytes:
    """The lines of m n-grams.

    Args:
        model: whose words they are.
        words: [m, n] ids.
        values: [m, 2] log10 of probability and backoff.
    """
    library = load("ngram")
    if library is None:
        names = sorted(model.ids, key=model.ids.__getitem__)
        lines = []
        for ids, (probability, backoff) in zip(words.tolist(), values.tolist(), strict=True):
            line = b"%.9g\t%s" % (probability, b" ".join([names[i] for i in ids]))
            lines.append(line + (b"\t%.9g\n" % backoff if backoff else b"\n"))
        return b"".join(lines)
    count, n = words.shape
    lengths = np.diff(model.offsets).astype(np.int64)
    text = np.empty(count * (40 + n) + int(lengths[words].sum()), np.uint8)
    words, values = np.ascontiguousarray(words), np.ascontiguousarray(values)
    given = (words, values, model.offsets, model.data, text)
    size = _native(library)(count, n, *(array.ctypes.data for array in given))
    return text[:size].tobytes()


@functools.cache
def _native(library: ctypes.CDLL) -> Any:
    found = library["ngram_lines"]
    found.argtypes = [*[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 5]
    found.restype = ctypes.c_int64
    return found


def read_arpa(path: str | Path) -> NgramModel:
    """A model of an ARPA file, packed if the name ends in ``.gz``.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: it is no ARPA file, or a damaged one; the message has the line.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no such language model: {path}")
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            return _Reader(path, file).model()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileFormatError(f"{path} is damaged: {error}.") from error


class _Reader:
    def __init__(self, path: Path, file: Any) -> None:
        self.path, self.file, self.line = path, file, 0
        self.ids: dict[bytes, int] = {name: i for i, name in enumerate(_RESERVED)}
        self.tables: list[npt.NDArray[Any]] = []

    def fail(self, what: str) -> FileFormatError:
        return FileFormatError(f"{self.path}:{self.line}: {what}")

    def lines(self) -> Iterator[bytes]:
        """Those that are not empty."""
        for line in self.file:
            self.line += 1
            if line.strip():
                yield line.strip()

    def model(self) -> NgramModel:
        lines = self.lines()
        if next(lines, b"") != b"\\data\\":
            raise self.fail("an ARPA file begins with \\data\\.")
        counts: list[int] = []
        head = b""
        for head in lines:
            found = re.fullmatch(rb"ngram (\d+)\s*=\s*(\d+)", head)
            if found is None:
                break
            if int(found[1]) != len(counts) + 1:
                raise self.fail(f"ngram {len(counts) + 1}=... is missing.")
            counts.append(int(found[2]))
        if not counts or len(counts) > 8:
            raise self.fail(f"the file has n-grams up to {len(counts)}; 1 to 8 can be read.")
        unigrams = np.zeros((0, 2), np.float32)
        closed = True
        for n, count in enumerate(counts, start=1):
            if head != b"\\%d-grams:" % n:
                raise self.fail(f"\\{n}-grams: is missing.")
            ids, values = self.section(lines, n, count)
            if n == 1:
                unigrams = self.unigrams(ids, values)
            else:
                closed &= self.add(ids, values)
            head = next(lines, b"")
        if head != b"\\end\\":
            raise self.fail("\\end\\ is missing: the file is cut short, or a count is wrong.")
        data = b"".join(self.ids)
        ends = np.cumsum([0, *map(len, self.ids)]).astype(np.uint64)
        text = np.frombuffer(data, np.uint8)
        about = {"read": self.path.name}
        return build_model(ends, text, unigrams, self.tables, closed=closed, about=about)

    def section(self, lines: Iterator[bytes], n: int, count: int) -> tuple[Any, Any]:
        """[count, n] ids and [count, 2] values."""
        ids: list[int] = []
        values: list[float] = []
        known = self.ids
        for _ in range(count):
            parts = next(lines, b"").split()
            if not n < len(parts) <= n + 2:
                raise self.fail(f"a line of {n}-grams has {len(parts)} parts; or a count is wrong.")
            try:
                values.append(float(parts[0]))
                values.append(float(parts[n + 1]) if len(parts) == n + 2 else 0.0)
            except ValueError:
                raise self.fail("a probability or backoff is no number.") from None
            if n == 1:
                ids.append(known.setdefault(parts[1], len(known)))
            else:
                try:
                    ids += [known[word] for word in parts[1 : n + 1]]
                except KeyError as error:
                    raise self.fail(f"{error} is none of the 1-grams.") from None
        shaped = np.array(ids, np.uint32).reshape(count, n)
        return shaped, np.array(values, np.float32).reshape(count, 2)

    def unigrams(self, ids: Any, values: Any) -> Any:
        """[words, 2] by id."""
        found = np.full((len(self.ids), 2), [np.nan, 0.0], np.float32)
        found[ids[:, 0]] = values
        if np.isnan(found[0, 0]):
            found[0] = _UNKNOWN, 0.0
        for i in (1, 2):
            if np.isnan(found[i, 0]):
                raise self.fail(f"the 1-gram {_RESERVED[i].decode()} is missing.")
        return found

    def slots(self, ids: Any) -> Any:
        """[m] where n-grams lie in the table of their order; NONE for those that do not."""
        found = ids[:, 0]
        for n in range(1, ids.shape[1]):
            known = found != NONE
            slots = np.full(len(ids), NONE, np.uint32)
            slots[known] = find(keys_of(found[known], ids[known, n]), self.tables[n - 1])
            found = slots
        return found

    def add(self, ids: Any, values: Any) -> bool:
        """A table of n-grams; returns whether the last words of each are an n-gram, too."""
        context = self.slots(ids[:, :-1])
        if (context == NONE).any():
            names = list(self.ids)
            row = ids[np.nonzero(context == NONE)[0][0]]
            words = b" ".join(names[i] for i in row).decode(errors="replace")
            raise self.fail(f"'{words}' has no n-gram of its first {len(row) - 1} words.")
        keys = keys_of(context, ids[:, -1])
        if len(np.unique(keys)) < len(keys):
            raise self.fail(f"an n-gram of {ids.shape[1]} words is there twice.")
        closed = bool((self.slots(ids[:, 1:]) != NONE).all())
        table, _ = insert(keys, values)
        self.tables.append(table)
        return closed
