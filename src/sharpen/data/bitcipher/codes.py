"""Codes of words: distinct sets of b bits, fewer of them the more frequent a word is.

Haoran Zhao, Jake Ryland Williams, "Bit Cipher: A Simple yet Powerful Word Representation System
that Integrates Efficiently with Language Models", 2023. The b most frequent words have one bit
each, the next b (b - 1) / 2 two, and so on; 2^b - 1 words at most. A word's vector is a
distribution over bits::

    u = code / |code|,   v = (1 - q) u + q (1 - code) / (b - |code|)

with noise q; the code of all bits, which has no others, stays u.

Differs from the paper, whose body was not at hand: the order of codes of equally many bits and the
noise are our reading. ``colex`` gives the codes of the first bits first, ``lex`` those with bit 0,
``balanced`` the code of the bits that bear least, counted in occurrences of their words. The noise
is 0, q for all, or larger for rarer words: ``q (1 - log f / log f_1)``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError

__all__ = ["Codes", "least_bits", "make_codes", "noise"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Codes:
    """A code for each word, by rank."""

    first: npt.NDArray[np.int64]
    """[words + 1] where each word's bits begin in ``active``."""

    active: npt.NDArray[np.int32]
    """Bits that are set, rising within a word."""

    bits: int
    """b"""

    @property
    def weights(self) -> npt.NDArray[np.int64]:
        """[words] bits that are set."""
        return np.diff(self.first)

    def dense(self) -> npt.NDArray[np.uint8]:
        """[words, b] of 0 and 1."""
        found = np.zeros((len(self.first) - 1, self.bits), np.uint8)
        found[np.repeat(np.arange(len(found)), self.weights), self.active] = 1
        return found


def least_bits(words: int) -> int:
    """The least b with codes for so many words."""
    return max(1, words.bit_length())


def make_codes(frequencies: npt.NDArray[Any], bits: int, order: str = "colex") -> Codes:
    """Codes for words.

    Args:
        frequencies: [words] not rising: how often each occurs.
        bits: b.
        order: ``colex``, ``lex`` or ``balanced``.

    Raises:
        ConfigError: too few bits, or an unknown order.
    """
    words = len(frequencies)
    if bits < 1 or words >= 1 << bits:
        raise ConfigError(
            f"bits={bits} have no code for each of {words} words; the least is "
            f"bits={least_bits(words)}. Or raise min_count, or set max_vocab."
        )
    if order == "balanced":
        sets = _balanced(np.asarray(frequencies, np.float64), bits)
    elif order in ("colex", "lex"):
        make = _colex if order == "colex" else itertools.combinations
        every = (make(range(bits), size) for size in range(1, bits + 1))
        sets = list(itertools.islice(itertools.chain.from_iterable(every), words))
    else:
        raise ConfigError(f"order={order!r} must be one of colex, lex, balanced.")
    first = np.concatenate([[0], np.cumsum([len(one) for one in sets])]).astype(np.int64)
    active = np.fromiter(itertools.chain.from_iterable(sets), np.int32, int(first[-1]))
    return Codes(first, active, bits)


def _colex(bits: range, size: int) -> Iterator[tuple[int, ...]]:
    """Sets of so many bits, by their largest, then by their second largest."""
    if size == 0:
        yield ()
        return
    for last in range(size - 1, len(bits)):
        for rest in _colex(range(last), size - 1):
            yield (*rest, last)


def _balanced(frequencies: Floats, bits: int) -> list[tuple[int, ...]]:
    """For each word, the first unused set of bits, those that bear least first."""
    load = np.zeros(bits)
    sets: list[tuple[int, ...]] = []
    size, left, used = 0, 0, set[tuple[int, ...]]()
    for frequency in frequencies:
        if left == 0:
            size += 1
            left, used = math.comb(bits, size), set()
        ranked = np.argsort(load, kind="stable").tolist()
        every = itertools.combinations(ranked, size)
        code = next(c for c in (tuple(sorted(one)) for one in every) if c not in used)
        used.add(code)
        sets.append(code)
        load[list(code)] += frequency
        left -= 1
    return sets


def noise(
    frequencies: npt.NDArray[Any], codes: Codes, kind: str, q: float
) -> tuple[Floats, Floats]:
    """The words' vectors as ``v = base + scale * code``.

    Args:
        frequencies: [words] not rising.
        codes: of the words.
        kind: ``none``, ``uniform`` or ``frequency``.
        q: in [0, 1).

    Returns:
        [words] base and [words] scale.

    Raises:
        ConfigError: an unknown kind, or q out of range.
    """
    if not 0 <= q < 1:
        raise ConfigError(f"q={q:g} must be at least 0 and below 1.")
    f = np.maximum(np.asarray(frequencies, np.float64), 1.0)
    if kind == "none":
        share = np.zeros(len(f))
    elif kind == "uniform":
        share = np.full(len(f), q)
    elif kind == "frequency":
        share = q * (1 - np.log(f) / max(math.log(f[0]) if len(f) else 0.0, 1e-9))
    else:
        raise ConfigError(f"noise={kind!r} must be one of none, uniform, frequency.")
    weights = codes.weights
    share = np.where(weights < codes.bits, share, 0.0)
    base = share / np.maximum(codes.bits - weights, 1)
    return base, (1 - share) / weights - base
