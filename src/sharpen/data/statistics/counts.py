"""How many characters of each kind a text has, and how its lines are: one pass over the bytes.

Characters are code points, never bytes. Lines are those of ``str.splitlines``, which parts at ten
characters, not at line feeds alone. The twin is Python's own ``str``.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.data.statistics.characters import characters, is_special
from sharpen.native.build import function, load

__all__ = ["Counts", "count_characters", "texts_of"]

Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Counts:
    """[n] integers for each text; all but the last two count code points."""

    characters: Integers
    """Length."""

    alphanumeric: Integers
    """``str.isalnum``."""

    alphabetic: Integers
    """``str.isalpha``."""

    digits: Integers
    """``str.isdigit``."""

    spaces: Integers
    """``str.isspace``."""

    upper: Integers
    """``str.isupper``."""

    special: Integers
    """Punctuation, symbols, white space, controls, digits 0 to 9."""

    lines: Integers
    """Of ``str.splitlines``."""

    longest_line: Integers
    """In code points; 0 without lines."""

    def share(self, name: str) -> npt.NDArray[np.float64]:
        """A count over the length; 0 for empty texts."""
        return getattr(self, name) / np.maximum(self.characters, 1)  # type: ignore[no-any-return]


def count_characters(offsets: Integers, data: Bytes) -> Counts:
    """Count what each text has.

    Args:
        offsets: [n + 1] into ``data``.
        data: valid UTF-8.
    """
    found = np.zeros((len(offsets) - 1, len(fields(Counts))), np.int64)
    library = load("text")
    if library is not None:
        table = characters().bits
        _native(library)(
            len(found), offsets.ctypes.data, data.ctypes.data, table.ctypes.data, found.ctypes.data
        )
    else:
        for row, text in zip(found, texts_of(offsets, data), strict=True):
            row[:] = _counted(text)
    return Counts(*np.ascontiguousarray(found.T))


def texts_of(offsets: Integers, data: Bytes) -> list[str]:
    """The texts as Python's strings."""
    whole = data.tobytes()
    return [whole[a:b].decode() for a, b in itertools.pairwise(offsets)]


def _counted(text: str) -> tuple[int, ...]:
    lines = text.splitlines()
    kinds = (str.isalnum, str.isalpha, str.isdigit, str.isspace, str.isupper, is_special)
    return (
        len(text),
        *(sum(map(kind, text)) for kind in kinds),
        len(lines),
        max(map(len, lines), default=0),
    )


@functools.cache
def _native(library: ctypes.CDLL) -> Any:
    pointer = ctypes.c_void_p
    return function(library, "text_counts", ctypes.c_int64, *[pointer] * 4)
