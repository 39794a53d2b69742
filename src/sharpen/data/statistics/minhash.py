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

from sharpen.data.statistics.column import Texts
from sharpen.data.statistics.counts import texts_of
from sharpen.data.statistics.shingles import Shingling
from sharpen.native.build import function, load

__all__ = ["choose_bands", "minhash"]

Lanes = npt.NDArray[np.uint32]

_POINTS = 1000  # of the integrals: the midpoint rule


def minhash(texts: Texts, shingling: Shingling, lanes: int, seed: int = 0) -> Lanes:
    """[n, lanes] signatures; of texts without tokens all ones.

    Args:
        texts: a column.
        shingling: what a shingle is.
        lanes: P.
        seed: of the lanes.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    a = rng.integers(0, 1 << 32, lanes, np.uint32) | np.uint32(1)
    b = rng.integers(0, 1 << 32, lanes, np.uint32)
    signature = np.empty((len(texts), lanes), np.uint32)
    library = load("shingles")
    if library is not None:
        given = (texts.offsets.ctypes.data, texts.data.ctypes.data, *shingling.native())
        last = (array.ctypes.data for array in (a, b, signature))
        _native(library)(len(texts), *given, lanes, *last)
        return signature
    for row, text in zip(signature, texts_of(texts.offsets, texts.data), strict=True):
        row[:] = 0xFFFFFFFF
        for h in shingling.hashes(text):
            np.minimum(row, a * np.uint32(h >> 32) + b, out=row)
    return signature


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
