"""Hash tables of n-grams and words: arrays, so that a file of them is used where it lies.

Open addressing with linear probing. An n-gram's key is exact, never a hash alone: where its first
n - 1 words lie in the table before (the id of the word for n = 2), and its last word. Words are
told apart by their bytes when a model is made; when texts are scored, by a hash of 64 bits (FNV-1a,
mixed), so that one that the model does not know is taken for one of its V words with probability
V / 2^64.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.native.build import function, load

__all__ = ["NONE", "PLACE", "SLOT", "find", "index_words", "insert", "keys_of"]

Ids = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]

NONE = 0xFFFFFFFF
"""The id of nothing."""

SLOT = np.dtype([("key", "<u8"), ("probability", "<f4"), ("backoff", "<f4")])
"""An n-gram: log10 of its probability and of the weight of what backs off to shorter ones."""

PLACE = np.dtype([("hash", "<u8"), ("id", "<u4"), ("unused", "<u4")])
"""A word of the vocabulary."""

_EMPTY = (1 << 64) - 1
_MASK = (1 << 64) - 1
_BASIS, _PRIME = 0xCBF29CE484222325, 0x100000001B3
_FILLED = 0.7


def keys_of(contexts: npt.NDArray[Any], words: npt.NDArray[Any]) -> Keys:
    """[n] keys of n-grams."""
    return contexts.astype(np.uint64) << np.uint64(32) | words.astype(np.uint64)


def insert(keys: Keys, values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], Ids]:
    """A table of n-grams.

    Args:
        keys: [n] distinct.
        values: [n, 2] log10 of probability and backoff.

    Returns:
        The table, and [n] where each n-gram lies in it.
    """
    table = np.zeros(int(len(keys) / _FILLED) + 2, SLOT)
    table["key"] = _EMPTY
    slots = np.empty(len(keys), np.uint32)
    keys, values = np.ascontiguousarray(keys), np.ascontiguousarray(values)
    library = load("ngram")
    if library is not None:
        given = (table.ctypes.data, slots.ctypes.data)
        call = native(library, "ngram_insert", "nppnpp")
        call(len(keys), keys.ctypes.data, values.ctypes.data, len(table), *given)
        return table, slots
    taken = bytearray(len(table))
    for k, key in enumerate(keys.tolist()):
        i = _place(_mixed(key), len(table))
        while taken[i]:
            i = (i + 1) % len(table)
        taken[i] = 1
        table[i] = (key, *values[k])
        slots[k] = i
    return table, slots


def find(keys: Keys, table: npt.NDArray[Any]) -> Ids:
    """[n] where n-grams lie in a table; NONE for those that do not."""
    slots = np.empty(len(keys), np.uint32)
    keys = np.ascontiguousarray(keys)
    library = load("ngram")
    if library is not None:
        call = native(library, "ngram_find", "npnpp")
        call(len(keys), keys.ctypes.data, len(table), table.ctypes.data, slots.ctypes.data)
        return slots
    held = table["key"]
    for k, key in enumerate(keys.tolist()):
        i, seen = _place(_mixed(key), len(table)), 0
        while (at := int(held[i])) not in (key, _EMPTY) and seen < len(table):
            i, seen = (i + 1) % len(table), seen + 1
        slots[k] = i if at == key else NONE
    return slots


def index_words(offsets: Keys, data: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """The table of a vocabulary's words.

    Args:
        offsets: [words + 1] into ``data``.
        data: the words' UTF-8.
    """
    words = len(offsets) - 1
    table = np.zeros(int(words / _FILLED) + 2, PLACE)
    table["id"] = NONE
    library = load("ngram")
    if library is not None:
        call = native(library, "ngram_index", "nppnp")
        call(words, offsets.ctypes.data, data.ctypes.data, len(table), table.ctypes.data)
        return table
    for word in range(words):
        h = _BASIS
        for byte in data[int(offsets[word]) : int(offsets[word + 1])].tolist():
            h = ((h ^ byte) * _PRIME) & _MASK
        h = _mixed(h)
        i = _place(h, len(table))
        while table["id"][i] != NONE:
            i = (i + 1) % len(table)
        table[i] = (h, word, 0)
    return table


def _mixed(h: int) -> int:
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & _MASK
    return h ^ (h >> 31)


def _place(h: int, places: int) -> int:
    return (h >> 32) * places >> 32


@functools.cache
def native(library: ctypes.CDLL, name: str, types: str) -> Any:
    """A function that takes numbers (n) and pointers (p)."""
    kinds = {"n": ctypes.c_int64, "p": ctypes.c_void_p}
    return function(library, name, *(kinds[kind] for kind in types))
