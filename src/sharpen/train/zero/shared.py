"""Tensors that the ranks of one machine read from each other where they lie.

A rank's tensor lies in an anonymous file in memory, which the others open. They read its bytes
straight into their own tensors: nothing crosses a socket and nothing is staged. To sum or to send
Ψ parameters of e bytes between N ranks, each rank reads e Ψ (N-1)/N bytes, once.

Ranks must agree on when a tensor may be read and when it may change again; for that they
:meth:`~SharedTensor.meet`.
"""

from __future__ import annotations

import mmap
import os

import torch
import torch.distributed as dist
from torch import Tensor

from sharpen.train.shared_memory import create_file, open_files

__all__ = ["SharedTensor"]

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
            tensor = torch.frombuffer(mmap.mmap(own, num_bytes), dtype=dtype)
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


def _read(file: int, at: int, into: Tensor) -> None:
    """Fill a contiguous tensor with a file's bytes from ``at`` on."""
    data = into.view(torch.uint8).numpy().data
    while data:
        count = os.preadv(file, [data], at)
        data, at = data[count:], at + count
