"""FSDP2's two collectives between ranks on CPUs of one machine, through memory they share.

To gather M bytes of weights, or to sum and cut M bytes of gradients, each of N ranks writes what it
has for the others into memory and reads M (N - 1) / N bytes of theirs where they lie; no byte
crosses a socket. That is done a block at a time, so that shared memory stays small. Sums run over
the ranks in order, so that they have the same bits on every rank and in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sharpen.train.shared_memory import SharedMemory

__all__ = ["LocalCollective", "LocalGather", "LocalReduceScatter"]

_BLOCK_BYTES = 4 << 20  # that a rank writes at a time


class LocalCollective:
    """What both have in common; the interface is that of FSDP2's custom collectives.

    Args:
        memory: of the ranks.
        rank: this one.
        world: how many.
    """

    def __init__(self, memory: SharedMemory, rank: int, world: int) -> None:
        self._memory, self._rank, self._world = memory, rank, world
        self._others = [(rank + i) % world for i in range(1, world)]

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for an input or output."""
        return torch.empty(*size, dtype=dtype, device=device)

    def _tell(self) -> None:
        self._memory.tell(dict.fromkeys(self._others, 0))


class LocalGather(LocalCollective):
    """Every rank's part, on every rank."""

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False
    ) -> None:
        """Fill the output [N T] with the inputs [T] of all ranks."""
        parts = output_tensor.view(self._world, -1)
        if parts[self._rank].data_ptr() != input_tensor.data_ptr():
            parts[self._rank].copy_(input_tensor)
        length = _BLOCK_BYTES // input_tensor.element_size()
        for start in range(0, input_tensor.numel(), length):
            block = input_tensor[start : start + length]
            self._memory.next_turn(block.nbytes)
            self._memory.room(0, block).copy_(block)
            self._tell()
            for other in self._others:
                self._memory.hear(other)
                place = parts[other, start : start + length]
                place.copy_(self._memory.of(other, 0, place))


class LocalReduceScatter(LocalCollective):
    """The sum of all ranks' inputs, of which each rank gets its part."""

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: Any,
        op: Any,
        async_op: bool = False,
    ) -> None:
        """Fill the output [T] with this rank's part of the sum of the inputs [N T]."""
        assert op == dist.ReduceOp.SUM, op
        parts = input_tensor.view(self._world, -1)
        length = max(1, _BLOCK_BYTES // (input_tensor.element_size() * (self._world - 1)))
        for start in range(0, output_tensor.numel(), length):
            mine = parts[self._rank, start : start + length]
            self._memory.next_turn(mine.nbytes * (self._world - 1))
            for place, other in enumerate(self._sorted(self._rank)):
                room = self._memory.room(place * mine.nbytes, mine)
                room.copy_(parts[other, start : start + length])
            self._tell()
            for other in self._others:
                self._memory.hear(other)
            total = output_tensor[start : start + length]
            for rank in range(self._world):
                part = mine
                if rank != self._rank:
                    place = self._sorted(rank).index(self._rank)
                    part = self._memory.of(rank, place * mine.nbytes, mine)
                if rank == 0:
                    total.copy_(part)
                else:
                    total.add_(part)

    def _sorted(self, rank: int) -> list[int]:
        """The ranks for which a rank writes, in the order of its blocks."""
        return [other for other in range(self._world) if other != rank]
