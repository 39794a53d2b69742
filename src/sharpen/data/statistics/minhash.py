"""MinHash: signatures of which the share of equal lanes estimates how alike two sets are.

Andrei Broder, "On the resemblance and containment of documents", Compression and Complexity of
Sequences, 1997. With h a hash of 32 bits of a shingle s of a text and lanes of multipliers a (odd)
and additions b::

    signature_l = min over s of (a_l h(s) + b_l mod 2^32)
    P(signature_l of A == signature_l of B) = |A and B| / |A or B| = J

so that the mean of P lanes has the standard deviation sqrt(J (1 - J) / P).

Locality-sensitive hashing (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4)
parts the lanes into b bands of r; two texts meet in some band with probability 1 - (1 - J^r)^b.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.data.statistics.characters import characters
from sharpen.data.statistics.counts import Bytes, Integers, texts_of
from sharpen.native.build import function, load

__all__ = ["choose_bands", "minhash"]

Lanes = npt.NDArray[np.uint32]

_MASK = (1 << 64) - 1
_BASIS, _PRIME, _RADIX = 0xCBF29CE484222325, 0x100000001B3, 0x9E3779B97F4A7C15
_POINTS = 1000  # of the integrals: the midpoint rule


def minhash(
    offsets: Integers,
    data: Bytes,
    *,
    window: int,
    lanes: int,
    seed: int = 0,
    tokens: str = "words",
    lowercase: bool = True,
) -> Lanes:
    """[n, lanes] signatures; of texts without tokens all ones.

    Args:
        offsets: [n + 1] into ``data``.
        data: valid UTF-8.
        window: tokens of a shingle; a text with fewer is one shingle.
        lanes: P.
        seed: of the lanes.
        tokens: ``words`` (parted by spaces, line feeds and tabs), ``space`` (by spaces alone) or
            ``characters``.
        lowercase: take upper and lower case for equal.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    a = rng.integers(0, 1 << 32, lanes, np.uint32) | np.uint32(1)
    b = rng.integers(0, 1 << 32, lanes, np.uint32)
    signature = np.empty((len(offsets) - 1, lanes), np.uint32)
    fold = characters().lower if lowercase else _same()
    library = load("text")
    if library is not None:
        first, second = tokens == "characters", tokens == "words"
        given = (array.ctypes.data for array in (offsets, data, fold))
        last = (array.ctypes.data for array in (a, b, signature))
        _native(library)(len(signature), *given, first, second, window, lanes, *last)
        return signature
    for row, text in zip(signature, texts_of(offsets, data), strict=True):
        hashes = [_hash(token, fold) for token in _tokens(text, tokens)]
        size = min(window, len(hashes))
        row[:] = 0xFFFFFFFF
        for j in range(len(hashes) - size + 1 if hashes else 0):
            h = 0
            for one in hashes[j : j + size]:
                h = (h * _RADIX + one) & _MASK
            np.minimum(row, a * np.uint32(_mixed(h) >> 32) + b, out=row)
    return signature


def _tokens(text: str, tokens: str) -> list[str]:
    if tokens == "characters":
        return list(text)
    if tokens == "words":
        text = text.replace("\n", " ").replace("\t", " ")
    return [token for token in text.split(" ") if token]


def _hash(token: str, fold: npt.NDArray[np.uint32]) -> int:
    h = _BASIS
    for character in token:
        h = ((h ^ int(fold[ord(character)])) * _PRIME) & _MASK
    return _mixed(h)


def _mixed(h: int) -> int:
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & _MASK
    return h ^ (h >> 31)


@functools.cache
def _same() -> npt.NDArray[np.uint32]:
    return np.arange(0x110000, dtype=np.uint32)


@functools.lru_cache(maxsize=64)
def choose_bands(lanes: int, threshold: float) -> tuple[int, int]:
    """Bands b and rows r with the least mean of false positives and false negatives.

    ``FP = integral from 0 to t of 1 - (1 - s^r)^b ds`` and ``FN = integral from t to 1 of
    (1 - s^r)^b ds``, over all b r <= P; the first of equal ones in order of b, then r.

    Args:
        lanes: P.
        threshold: t, in (0, 1).
    """
    low = (np.arange(_POINTS) + 0.5) / _POINTS * threshold
    high = threshold + (np.arange(_POINTS) + 0.5) / _POINTS * (1 - threshold)
    best, found = np.inf, (1, 1)
    for bands in range(1, lanes + 1):
        rows = np.arange(1, lanes // bands + 1)[:, None]
        wrong = (1 - (1 - low**rows) ** bands).mean(1) * threshold
        missed = ((1 - high**rows) ** bands).mean(1) * (1 - threshold)
        errors = wrong + missed
        r = int(errors.argmin())
        if errors[r] < best:
            best, found = float(errors[r]), (bands, r + 1)
    return found


@functools.cache
def _native(library: ctypes.CDLL) -> Any:
    whole, pointer = ctypes.c_int64, ctypes.c_void_p
    return function(library, "minhash", whole, *[pointer] * 3, *[whole] * 4, *[pointer] * 3)
