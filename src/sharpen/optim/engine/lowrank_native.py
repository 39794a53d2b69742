"""Random bases, and steps of APOLLO and FRUGAL, by native code (``native/lowrank.cpp``).

Of float32 matrices on the CPU. Steps of other rules that need whole matrices, too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sharpen.native.build import function, load
from sharpen.optim.engine.rule import Entry

__all__ = ["MatrixStep", "available", "normal_rows", "take"]

_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64


def available(subject: str = "lowrank") -> bool:
    """Whether there is native code."""
    return load(subject) is not None


@lru_cache(maxsize=4)
def _call(library: ctypes.CDLL, name: str) -> Any:
    if name != "normal_rows":
        return function(library, name, _POINTER, _POINTER, _NUMBER, ctypes.c_int)
    word = ctypes.c_uint32
    types = _POINTER, _NUMBER, _NUMBER, word, word, ctypes.c_float, ctypes.c_int
    return function(library, name, *types)


def normal_rows(rank: int, width: int, key: tuple[int, int], root: float) -> Tensor | None:
    """Normal numbers, divided by ``root``, as ``projector.py`` counts them.

    Args:
        rank: vectors.
        width: of each.
        key: Philox's.
        root: of the rank.

    Returns:
        Float32 [rank, width], or None where there is no native code.
    """
    library = load("lowrank")
    if library is None:
        return None
    out = torch.empty(rank, width)
    threads = torch.get_num_threads()
    _call(library, "normal_rows")(out.data_ptr(), rank, width, *key, root, threads)
    return out


@dataclass(slots=True)
class MatrixStep:
    """What a kernel needs of a matrix [m, n]."""

    tensors: Sequence[Tensor | None]
    """Contiguous, in the order of ``Job`` or ``Split`` in the native code."""

    sizes: Sequence[int]
    """Sizes and flags, in that order; the last tells whether to leave a matrix with entries that
    are not finite as it is."""

    numbers: Sequence[float]
    """In the order of ``Numbers`` or ``SplitNumbers``."""


def take(kernel: str, batch: Sequence[tuple[Entry, MatrixStep]], subject: str = "lowrank") -> int:
    """Take steps; matrices that are left as they were get their clock set back.

    Args:
        kernel: name of the native function.
        batch: parameters, with what it needs of them.
        subject: file that the function is in.

    Returns:
        How many gradient entries are not finite.
    """
    library = load(subject)
    assert library is not None
    jobs: list[int] = []
    values: list[float] = []
    for _, step in batch:
        jobs += [0 if x is None else x.data_ptr() for x in step.tensors]
        jobs += [*step.sizes, 0]
        values += step.numbers
    table = (_NUMBER * len(jobs))(*jobs)
    numbers = (ctypes.c_float * len(values))(*values)
    _call(library, kernel)(table, numbers, len(batch), torch.get_num_threads())
    size, total = len(jobs) // len(batch), 0
    for i, (entry, step) in enumerate(batch, 1):
        bad = int(table[i * size - 1])
        total += bad
        if bad and step.sizes[-1]:
            entry.clock.fill_(entry.t - 1)
    return total
