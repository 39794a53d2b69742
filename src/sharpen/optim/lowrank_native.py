"""Random bases and APOLLO's steps by native code (``native/lowrank.cpp``): float32, on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sharpen.native.build import function, load

__all__ = ["MatrixStep", "apollo_step", "available", "normal_rows"]

_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64


def available() -> bool:
    """Whether there is native code."""
    return load("lowrank") is not None


@lru_cache(maxsize=4)
def _call(library: ctypes.CDLL, name: str) -> Any:
    if name == "apollo_step":
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
    """What the kernel needs of a matrix [m, n]; tensors are float32 and contiguous."""

    weights: Tensor
    grad: Tensor
    basis: Tensor | None
    """The vector that projects; for rank 1."""
    exp_avg: Tensor
    exp_avg_sq: Tensor
    limiter: Tensor | None
    low: Tensor | None
    """R; None for rank 1, where the kernel projects."""
    shape: tuple[int, int]
    rank: int
    right: bool
    whole: bool
    """One factor for the tensor."""
    skips: bool
    """Leave a matrix with entries that are not finite as it is."""
    numbers: Sequence[float]
    """In the order of ``Numbers`` in the native code."""


def apollo_step(steps: Sequence[MatrixStep]) -> list[int]:
    """Take steps; tells how many gradient entries of each matrix are not finite."""
    library = load("lowrank")
    assert library is not None
    jobs: list[int] = []
    values: list[float] = []
    for s in steps:
        tensors = s.weights, s.grad, s.basis, s.exp_avg, s.exp_avg_sq, s.limiter, s.low
        jobs += [0 if x is None else x.data_ptr() for x in tensors]
        jobs += [*s.shape, s.rank, s.right, s.whole, s.skips, 0]
        values += s.numbers
    table = (_NUMBER * len(jobs))(*jobs)
    numbers = (ctypes.c_float * len(values))(*values)
    _call(library, "apollo_step")(table, numbers, len(steps), torch.get_num_threads())
    size = len(jobs) // len(steps)
    return [int(table[i]) for i in range(size - 1, len(jobs), size)]
