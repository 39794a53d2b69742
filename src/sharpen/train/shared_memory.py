"""Memory that ranks on one machine share, so that what they exchange crosses no socket.

Each rank owns two anonymous memory files that the others of its group map. In exchange n it writes
what it sends into file n mod 2 and tells the others how long that is, in one small message. They
copy from the file straight to where the tensors belong. A rank that has heard of exchange n + 1
from all others knows that these are done reading exchange n, so file n mod 2 is free at n + 2.

The files have no names: they vanish with their processes. Where one of the ranks cannot open
another's (several machines, another user, a container), all do without.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["SharedMemory"]

_PAGE = 1 << 16


class SharedMemory:
    """Two files of this rank and views of the other ranks' files; made by :meth:`open`."""

    def __init__(self, own: list[int], others: dict[int, list[int]]) -> None:
        self._own, self._others = own, others
        self._maps: dict[int, mmap.mmap] = {}
        self._turn = 0

    @classmethod
    def open(cls, group: dist.ProcessGroup) -> SharedMemory | None:
        """The group's shared memory; None where it cannot be had. Every rank must call it."""
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        own = [os.memfd_create(f"sharpen-{i}") for i in range(2)] if _can_create() else [-1, -1]
        mine = torch.tensor([_machine(), os.getpid(), *own])
        parts = [torch.empty_like(mine) for _ in range(size)]
        dist.all_gather(parts, mine, group=group)
        others: dict[int, list[int]] = {}
        fine = own[0] >= 0
        for other, (machine, process, *files) in enumerate(x.tolist() for x in parts):
            if other == rank:
                continue
            try:
                if machine != _machine() or files[0] < 0:
                    raise FileNotFoundError
                paths = [Path(f"/proc/{process}/fd/{file}") for file in files]
                others[other] = [os.open(path, os.O_RDWR) for path in paths]
            except OSError:
                fine = False
        agreed = torch.tensor([int(fine)])
        dist.all_reduce(agreed, dist.ReduceOp.MIN, group=group)
        memory = cls(own, others)
        if not int(agreed):
            memory.close()
            return None
        return memory

    def close(self) -> None:
        """Give the files back."""
        for file in (*self._own, *(x for pair in self._others.values() for x in pair)):
            if file >= 0:
                os.close(file)
        self._own, self._others = [], {}

    def __del__(self) -> None:
        self.close()

    def next_turn(self, length: int) -> None:
        """Begin an exchange in which this rank writes so many bytes."""
        self._turn ^= 1
        file = self._own[self._turn]
        if os.fstat(file).st_size < length:
            os.ftruncate(file, -(-length // _PAGE) * _PAGE)

    def room(self, start: int, like: Tensor) -> Tensor:
        """Where this rank writes a tensor of the shape and type of ``like``, from a byte on."""
        return self._view(self._own[self._turn], start, like)

    def of(self, rank: int, start: int, like: Tensor) -> Tensor:
        """What another rank wrote in this exchange, from a byte on."""
        return self._view(self._others[rank][self._turn], start, like)

    def _view(self, file: int, start: int, like: Tensor) -> Tensor:
        end = start + like.numel() * like.element_size()
        known = self._maps.get(file)
        if known is None or len(known) < end:
            known = self._maps[file] = mmap.mmap(file, os.fstat(file).st_size)
        flat = torch.frombuffer(known, dtype=like.dtype, count=like.numel(), offset=start)
        return flat.view(like.shape)


def _can_create() -> bool:
    return hasattr(os, "memfd_create")


def _machine() -> int:
    """A number that processes which see the same processes share."""
    path = Path("/proc/sys/kernel/random/boot_id")
    boot = path.read_text().replace("-", "").strip() if path.exists() else "0"
    space = Path("/proc/self/ns/pid")
    return (int(boot, 16) ^ (space.stat().st_ino if space.exists() else 0)) % (1 << 62)
