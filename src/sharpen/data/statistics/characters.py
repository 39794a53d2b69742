"""What kind each character is, as Python's own ``str`` methods say it.

A table of 0x110000 bytes, a bit for each kind, so that kernels agree with ``str.isalnum`` and the
others in every code point of this Python's Unicode version (:data:`unicodedata.unidata_version`).

Special characters are punctuation, symbols (single emoji are among them), white space, controls and
the digits 0 to 9. Data-Juicer counts much the same by a list.
"""

from __future__ import annotations

import functools
import io
import platform
import sys
import threading
import unicodedata
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import StorageError
from sharpen.core.files import atomic_write_bytes, cache_home

__all__ = ["LINE_ENDS", "Characters", "characters", "is_special", "unchanged"]

# Bits, as in native/text.cpp.
ALNUM, ALPHA, DIGIT, SPACE, UPPER, SPECIAL, LINE = (1 << i for i in range(7))
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""What ``str.splitlines`` parts at; ``\\r\\n`` is one end."""

_VERSION = 1  # raised when the tables change
_KEPT = np.dtype([("bits", np.uint8), ("lower", np.uint32)])
_lock = threading.Lock()  # of two threads that are first, one must wait
_SURROGATES = slice(0xD800, 0xE000)
_PARTS = (range(0x20000), range(0xE0000, 0xE1000))  # elsewhere nothing is special; a test looks


@dataclass(frozen=True, slots=True)
class Characters:
    """Tables by code point."""

    bits: npt.NDArray[np.uint8]
    """[0x110000] kinds, one bit each."""

    lower: npt.NDArray[np.uint32]
    """[0x110000] lower case where it is one code point (all but U+0130)."""


def is_special(character: str) -> bool:
    """Whether a character is punctuation, a symbol, white space, a control, or a digit 0 to 9."""
    category = unicodedata.category(character)
    return (
        category[0] in "PSZ" or category in ("Cc", "Cf") or ("0" <= character <= "9")
    )  # unassigned and private code points are not: nobody knows what they are


def characters() -> Characters:
    """The tables of this Python; they are made once, in 0.1 s, and kept in the user's cache.

    There is one object for all threads, and it stays: kernels are given its addresses.
    """
    with _lock:
        return _characters()


def unchanged() -> npt.NDArray[np.uint32]:
    """[0x110000] each code point itself; one array for all threads, which stays."""
    with _lock:
        return _unchanged()


@functools.cache
def _unchanged() -> npt.NDArray[np.uint32]:
    return np.arange(sys.maxunicode + 1, dtype=np.uint32)


@functools.cache
def _characters() -> Characters:
    version = f"{unicodedata.unidata_version}-{platform.python_version()}-{_VERSION}"
    path = cache_home() / "data" / f"characters-{version}.npy"
    with suppress(OSError, ValueError):
        kept = np.load(path)
        if kept.shape == (sys.maxunicode + 1,) and kept.dtype == _KEPT:
            fields = np.ascontiguousarray(kept["bits"]), np.ascontiguousarray(kept["lower"])
            return Characters(*fields)
    made = _made()
    kept = np.empty(len(made.bits), _KEPT)
    kept["bits"], kept["lower"] = made.bits, made.lower
    stream = io.BytesIO()
    np.save(stream, kept)
    with suppress(StorageError):  # they are made again then
        atomic_write_bytes(path, stream.getvalue())
    return made


def _made() -> Characters:
    points = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    each = points.view("U1")
    bits = np.zeros(len(points), np.uint8)
    for bit, kind in (
        (ALNUM, np.strings.isalnum),
        (ALPHA, np.strings.isalpha),
        (DIGIT, np.strings.isdigit),
        (SPACE, np.strings.isspace),
        (UPPER, np.strings.isupper),
    ):
        bits[kind(each)] |= bit
    for part in _PARTS:
        special = np.fromiter(map(is_special, map(chr, part)), bool, len(part))
        bits[part.start : part.stop][special] |= SPECIAL
    bits[[ord(c) for c in LINE_ENDS]] |= LINE
    bits[_SURROGATES] = 0
    lower = np.ascontiguousarray(np.strings.lower(each).astype("U1")).view(np.uint32)
    return Characters(bits, lower)
