"""Tensors that the ranks of one machine read from each other where they lie.

A rank's tensor lies in an anonymous file in memory, which the others open. They read its bytes
straight into their own tensors: nothing crosses a socket and nothing is staged. To sum or to send
Ψ parameters of e bytes between N ranks, each rank reads e Ψ (N-1)/N bytes, once.

Ranks must agree on when a tensor may be read and when it may change again; for that they
:meth:`~SharedTensor.meet`.
"""

from __future__ import annotations

import ctypes
import mmap
import os

import torch
import torch.distributed as dist
from torch import Tensor

from sharpen.core.huge_pages import collapse
from sharpen.train.shared_memory import create_file, open_files

__all__ = ["SharedTensor"]

_HUGE_PAGE = 2 << 20
_MAP_FIXED = 0x10
_BLOCK_BYTES = 1 << 20  # read and added while it lies in the processor's cache


class SharedTensor:
    """A flat tensor of this rank, and the way to those of the others; made by :meth:`open`.

    Attributes:
        tensor: [length], zeros at first.
        rank: this process's place in the group.
    """

    def __init__(self, tensor: Tensor, others: dict[int, int], group: dist.ProcessGroup) -> None:
        self.tensor = tensor
        self.rank = dist.get_rank(group)
        self._others, self._group = others, group

    @classmethod
    def open(cls, length: int, dtype: torch.dtype, group: dist.ProcessGroup) -> SharedTensor | None:
        """Make one on every rank of a group.

        Args:
            length: elements, at least one, the same on all ranks.
            dtype: the same on all ranks.
            group: the ranks; every one must call this.

        Returns:
            None, on all ranks alike, where they do not share a machine or memory is short.
        """
        num_bytes = length * dtype.itemsize
        own = create_file("sharpen-tensor", num_bytes)
        others = open_files([own], group)
        try:
            if others is None:
                return None
            tensor = _map(own, length, dtype)
        finally:
            if own >= 0:
                os.close(own)  # what is mapped, and open elsewhere, stays
        return cls(tensor, {rank: file for rank, (file,) in others.items()}, group)

    def __del__(self) -> None:
        for file in self._others.values():
            os.close(file)

    def meet(self) -> None:
        """Wait for all ranks: what they wrote may be read, and what they read may change."""
        dist.barrier(self._group)

    def add(self, start: int, stop: int) -> None:
        """Add the other ranks' elements ``start`` to ``stop`` to this rank's."""
        size = self.tensor.element_size()
        block = torch.empty(_BLOCK_BYTES // size, dtype=self.tensor.dtype)
        # Every rank begins with the one after it, so that no two read the same memory at once.
        ranks = len(self._others) + 1
        following = [self._others[(self.rank + i) % ranks] for i in range(1, ranks)]
        for first in range(start, stop, len(block)):
            part = self.tensor[first : min(first + len(block), stop)]
            other = block[: len(part)]
            for file in following:
                _read(file, first * size, other)
                part.add_(other)

    def read(self, rank: int, start: int, stop: int) -> None:
        """Copy elements ``start`` to ``stop`` of another rank's tensor into this rank's."""
        part = self.tensor[start:stop]
        _read(self._others[rank], start * part.element_size(), part)


def _map(file: int, length: int, dtype: torch.dtype) -> Tensor:
    """The tensor that a file in memory is, in huge pages where the kernel has them.

    These must begin at multiples of their size, in the file and in memory. So a larger region is
    set aside, and the file takes the place of its middle; it goes with the region.
    """
    num_bytes = length * dtype.itemsize
    region = mmap.mmap(-1, num_bytes + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(region))
    offset = -address % _HUGE_PAGE
    place = ctypes.CDLL(None, use_errno=True).mmap
    place.restype = ctypes.c_void_p
    place.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    writable = mmap.PROT_READ | mmap.PROT_WRITE
    placed = place(address + offset, num_bytes, writable, mmap.MAP_SHARED | _MAP_FIXED, file, 0)
    if placed != address + offset:
        raise OSError(ctypes.get_errno(), "cannot map memory that ranks share")
    collapse([(placed, num_bytes - num_bytes % _HUGE_PAGE)])
    return torch.frombuffer(region, dtype=dtype, count=length, offset=offset)


def _read(file: int, at: int, into: Tensor) -> None:
    """Fill a contiguous tensor with a file's bytes from ``at`` on."""
    data = into.view(torch.uint8).numpy().data
    while data:
        count = os.preadv(file, [data], at)
        data, at = data[count:], at + count
