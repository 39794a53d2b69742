"""A utility of combinations whose best is known by counting: independent of the package."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np


class Structured:
    """relevance x position weight - pairwise redundancy - length penalty, at random.

    Chunks are named in their texts, so that a combined text tells what it is made of.
    """

    def __init__(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        self.relevance = rng.uniform(0, 1, n)
        pairs = rng.uniform(0, 0.3, (n, n))
        self.redundancy = (pairs + pairs.T) / 2
        self.decay, self.length = rng.uniform(0.6, 0.95), rng.uniform(0.02, 0.15)
        self.chunks = [f"c{i} " + "x " * int(rng.integers(2, 12)) for i in range(n)]

    def value(self, path: Sequence[int]) -> float:
        gain = sum(self.relevance[i] * self.decay**k for k, i in enumerate(path))
        same = sum(self.redundancy[a, b] for a, b in combinations(path, 2))
        return float(gain - same - self.length * len(path))

    def best(self) -> tuple[float, int]:
        """The greatest value over every order of every subset, and how many there are."""
        n = len(self.chunks)
        paths = np.arange(n)[:, None]
        values = self.relevance - self.length
        top, count = values.max(), n
        for k in range(1, n):
            longer = np.column_stack([np.repeat(paths, n, axis=0), np.tile(range(n), len(paths))])
            last = longer[:, -1:]
            same = self.redundancy[longer[:, :-1], last].sum(axis=1)
            gain = self.relevance[last[:, 0]] * self.decay**k - same - self.length
            is_new = (longer[:, :-1] != last).all(axis=1)
            paths, values = longer[is_new], (np.repeat(values, n) + gain)[is_new]
            top, count = max(top, values.max()), count + len(paths)
        return float(top), count

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        return [self.value([int(t.split()[0][1:]) for t in x.split("\n\n")]) for x in texts]

    def incremental(self, query: str, texts: Sequence[str]) -> Any:
        return _Paths(self)


class _Paths:
    def __init__(self, utility: Structured) -> None:
        self.utility = utility

    def root(self) -> tuple[int, ...]:
        return ()

    def extend(self, state: tuple[int, ...], chunk: int) -> tuple[int, ...]:
        return (*state, chunk)

    def scores(self, state: tuple[int, ...], chunks: np.ndarray) -> np.ndarray:
        u = self.utility
        value = u.value(state) if state else 0.0
        same = u.redundancy[np.ix_(chunks, list(state))].sum(axis=1) if state else 0.0
        gain: np.ndarray = value + u.relevance[chunks] * u.decay ** len(state) - same - u.length
        return gain
