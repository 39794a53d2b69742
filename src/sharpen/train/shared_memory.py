"""Memory that ranks on one machine share, so that what they exchange crosses no socket.

Each rank owns two anonymous memory files that the others of its group map. In exchange n it writes
what it sends into file n mod 2 and tells each other rank where its part begins, in eight bytes
through a pipe. They copy from the file straight to where the tensors belong. A rank that has heard
of exchange n + 1 from all others knows that these are done reading exchange n, so file n mod 2 is
free at n + 2.

Files and pipes have no names: they vanish with their processes, and the pipe of a rank that has
ended says so at once. Where one of the ranks cannot open another's (several machines, another user,
a container), all do without.
"""

from __future__ import annotations

import mmap
import os
import select
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["SharedMemory", "create_file", "open_files"]

_PAGE = 1 << 16


class SharedMemory:
    """Two files of this rank and views of the other ranks' files; made by :meth:`open`."""

    def __init__(
        self,
        own: list[int],
        others: dict[int, list[int]],
        hearing: dict[int, int],
        telling: dict[int, int],
        timeout: timedelta,
    ) -> None:
        self._own, self._others = own, others
        self._hearing, self._telling = hearing, telling
        self._timeout = timeout
        self._maps: dict[int, mmap.mmap] = {}
        self._turn = 0

    @classmethod
    def open(cls, group: dist.ProcessGroup) -> SharedMemory | None:
        """The group's shared memory; None where it cannot be had. Every rank must call it."""
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        own = [create_file("sharpen-0"), create_file("sharpen-1")]
        pipes = [os.pipe() for _ in range(size)]
        opened = open_files([*own, *(end for _, end in pipes)], group)
        for _, end in pipes:
            os.close(end)  # a pipe ends with the rank that says something through it
        others = {other: files[:2] for other, files in (opened or {}).items()}
        telling = {other: files.pop(2 + rank) for other, files in (opened or {}).items()}
        for files in (opened or {}).values():
            for file in files[2:]:
                os.close(file)
        hearing = {other: end for other, (end, _) in enumerate(pipes)}
        memory = cls(own, others, hearing, telling, _timeout(group))
        if opened is None:
            memory.close()
            return None
        return memory

    def close(self) -> None:
        """Give the files and pipes back."""
        files = [*self._own, *(x for pair in self._others.values() for x in pair)]
        for file in (*files, *self._hearing.values(), *self._telling.values()):
            if file >= 0:
                os.close(file)
        self._own, self._others, self._hearing, self._telling = [], {}, {}, {}

    def __del__(self) -> None:
        self.close()

    def tell(self, numbers: Mapping[int, int]) -> None:
        """Say a number to other ranks, by rank.

        Raises:
            RuntimeError: one of them has ended.
        """
        for rank, number in numbers.items():
            try:
                os.write(self._telling[rank], number.to_bytes(8, "little"))
            except BrokenPipeError:
                raise RuntimeError(f"rank {rank} of the group has ended") from None

    def hear(self, rank: int) -> int:
        """The next number that another rank says.

        Raises:
            RuntimeError: it has ended, or says nothing within the group's time limit.
        """
        heard = select.poll()
        heard.register(self._hearing[rank], select.POLLIN)
        if not heard.poll(self._timeout / timedelta(milliseconds=1)):
            raise RuntimeError(f"rank {rank} of the group said nothing for {self._timeout}")
        number = os.read(self._hearing[rank], 8)
        if not number:
            raise RuntimeError(f"rank {rank} of the group has ended")
        return int.from_bytes(number, "little")

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


def create_file(name: str, length: int = 0) -> int:
    """An anonymous file in memory, of zeros; -1 where there are none or memory is short."""
    if not hasattr(os, "memfd_create"):
        return -1
    file = os.memfd_create(name)
    try:
        if length:
            os.posix_fallocate(file, 0, length)
    except OSError:
        os.close(file)
        return -1
    return file


def open_files(own: Sequence[int], group: dist.ProcessGroup) -> dict[int, list[int]] | None:
    """Open the files in memory of the other ranks.

    Args:
        own: this rank's, as many as the others have; -1 for one that it could not create.
        group: the ranks; every one must call this.

    Returns:
        The other ranks' files in their order, to be closed by the caller; None, on all ranks alike,
        where one cannot open another's.
    """
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    mine = torch.tensor([_machine(), os.getpid(), *own])
    parts = [torch.empty_like(mine) for _ in range(size)]
    dist.all_gather(parts, mine, group=group)
    opened: dict[int, list[int]] = {}
    fine = min(own) >= 0
    for other, (machine, process, *files) in enumerate(x.tolist() for x in parts):
        if other == rank:
            continue
        opened[other] = []
        try:
            if machine != _machine() or min(files) < 0:
                raise FileNotFoundError
            for file in files:
                opened[other].append(os.open(f"/proc/{process}/fd/{file}", os.O_RDWR))
        except OSError:
            fine = False
    agreed = torch.tensor([int(fine)])
    dist.all_reduce(agreed, dist.ReduceOp.MIN, group=group)
    if int(agreed):
        return opened
    for files in opened.values():
        for file in files:
            os.close(file)
    return None


def _timeout(group: dist.ProcessGroup) -> timedelta:
    backend = group._get_backend(torch.device("cpu"))
    limit: timedelta = backend.options._timeout
    return limit


def _machine() -> int:
    """A number that processes which see the same processes share."""
    path = Path("/proc/sys/kernel/random/boot_id")
    boot = path.read_text().replace("-", "").strip() if path.exists() else "0"
    space = Path("/proc/self/ns/pid")
    return (int(boot, 16) ^ (space.stat().st_ino if space.exists() else 0)) % (1 << 62)
