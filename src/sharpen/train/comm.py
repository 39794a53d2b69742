"""Collectives along one axis of a device mesh, with an account of what they send.

An :class:`Axis` is the group of ranks that differ in one coordinate of the mesh. It carries its own
account, so two trainings in one process do not disturb each other. Bytes are those that the usual
algorithms send from this rank over n ranks (a rank's own part is not sent)::

    exchange     the parts for other ranks
    rotate       the tensor
    all_gather   (n - 1) times the local tensor
    all_reduce   2 (n - 1) / n times the tensor

Seconds are those the rank spent inside: a transfer that runs beside computation counts only while
it is waited for. Every collective has a number, the same on all ranks of an axis, which the error
of a failed or hanging one names.
"""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.train.shared_memory import SharedMemory

__all__ = ["Axis", "Traffic", "Transfer"]


@dataclass(slots=True)
class Traffic:
    """What one kind of collective did on this rank."""

    calls: int = 0
    """Collectives started."""

    bytes_sent: int = 0
    """Bytes sent to other ranks."""

    seconds: float = 0.0
    """Seconds spent starting and waiting."""


class Transfer:
    """Tensors under way to and from other ranks of an axis.

    Attributes:
        received: whole once waited for.
    """

    def __init__(
        self,
        axis: Axis,
        kind: str,
        number: int,
        operations: list[dist.P2POp],
        received: Sequence[Tensor],
    ) -> None:
        self.received = received
        self._axis, self._kind, self._number = axis, kind, number
        self._operations = operations  # keeps what is sent
        with axis._timed(kind, number):
            self._works = dist.batch_isend_irecv(operations) if operations else []

    def wait(self) -> None:
        """Until the tensors are here and those sent may be changed.

        Raises:
            ExecutionError: the transfer failed or timed out.
        """
        with self._axis._timed(self._kind, self._number):
            for work in self._works:
                work.wait()
        self._operations = []


_axes: weakref.WeakSet[Axis] = weakref.WeakSet()


@atexit.register
def _let_go() -> None:
    """Drop groups while Python still works: gloo's threads abort a process that ends before."""
    for axis in list(_axes):
        axis.group = None


class Axis:
    """Ranks that talk to each other along one axis of the mesh.

    Args:
        group: their process group; None for a rank alone, to which every collective is free.
        name: of the axis, for messages.
        shared_memory: exchange tensors on CPUs of one machine through memory that the ranks share.
            All ranks must say the same.

    Attributes:
        rank: this process's place in the group.
        size: ranks in the group.
        traffic: account by kind of collective.
    """

    def __init__(
        self, group: dist.ProcessGroup | None, name: str = "sp", *, shared_memory: bool = True
    ) -> None:
        self.group = group
        self.name = name
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)
        if self.rank < 0:
            raise ConfigError(
                f"this process is not in the group of axis '{name}'. Take the group that holds it: "
                f"mesh['{name}'].get_group()."
            )
        self.traffic: dict[str, Traffic] = {}
        self._number = 0
        self._opened = not shared_memory
        self._memory: SharedMemory | None = None
        _axes.add(self)

    @classmethod
    def of(cls, group: dist.ProcessGroup | Axis | None, name: str) -> Axis:
        """An axis as it is, or one for a single use of a process group."""
        return group if isinstance(group, Axis) else cls(group, name, shared_memory=False)

    def __repr__(self) -> str:
        return f"Axis({self.name!r}, rank {self.rank} of {self.size})"

    @property
    def bytes_sent(self) -> int:
        """Bytes this rank sent along the axis, by all collectives."""
        return sum(entry.bytes_sent for entry in self.traffic.values())

    @property
    def seconds(self) -> float:
        """Seconds this rank spent in collectives of the axis."""
        return sum(entry.seconds for entry in self.traffic.values())

    def reset(self) -> None:
        """Start the account anew."""
        self.traffic.clear()

    def exchange(
        self, sends: Sequence[Sequence[Tensor]], receives: Sequence[Sequence[Tensor]]
    ) -> None:
        """Send tensors to every rank and receive some from each: an all-to-all.

        On CPUs of one machine each tensor is copied once into memory that the ranks share and once
        out of it; elsewhere each is a message. Empty tensors, and what a rank would send itself,
        are left out.

        Args:
            sends: tensors for each rank, of any strides.
            receives: tensors to fill from each rank, of any strides and of the shapes it sends.

        Raises:
            ExecutionError: the exchange failed or timed out.
        """
        others = [rank for rank in range(self.size) if rank != self.rank]
        out = {rank: [x for x in sends[rank] if x.numel()] for rank in others}
        into = {rank: [x for x in receives[rank] if x.numel()] for rank in others}
        sent = sum(x.numel() * x.element_size() for parts in out.values() for x in parts)
        number = self._count("exchange", sent)
        memory = self._shared_memory(sends, receives)
        if memory is not None:
            self._exchange_in_memory(memory, number, out, into)
            return
        kept = {rank: [x.contiguous() for x in parts] for rank, parts in out.items()}
        buffers = {
            rank: [x if x.is_contiguous() else torch.empty_like(x).contiguous() for x in parts]
            for rank, parts in into.items()
        }
        self._messages("exchange", number, kept, buffers).wait()
        for rank in others:
            for x, buffer in zip(into[rank], buffers[rank], strict=True):
                if x is not buffer:
                    x.copy_(buffer)

    def _shared_memory(self, *sides: Sequence[Sequence[Tensor]]) -> SharedMemory | None:
        """Opened at the first exchange of tensors on CPUs."""
        cpu = all(x.device.type == "cpu" for side in sides for parts in side for x in parts)
        if self.group is None or not cpu:
            return None
        if not self._opened:
            self._opened, self._memory = True, SharedMemory.open(self.group)
        return self._memory

    def _exchange_in_memory(
        self,
        memory: SharedMemory,
        number: int,
        out: dict[int, list[Tensor]],
        into: dict[int, list[Tensor]],
    ) -> None:
        """Write for all others, say where each finds its part, and copy from theirs."""
        lengths = {rank: sum(_aligned(x) for x in parts) for rank, parts in out.items()}
        memory.next_turn(sum(lengths.values()))
        at, starts = 0, {}
        for rank, parts in out.items():
            starts[rank] = at
            for x in parts:
                memory.room(at, x).copy_(x)
                at += _aligned(x)
        with self._timed("exchange", number):
            memory.tell(starts)
            told = {rank: memory.hear(rank) for rank in into}
        for rank, parts in into.items():
            at = told[rank]
            for x in parts:
                x.copy_(memory.of(rank, at, x))
                at += _aligned(x)

    def _messages(
        self, kind: str, number: int, out: dict[int, list[Tensor]], into: dict[int, list[Tensor]]
    ) -> Transfer:
        # Receives first: a message flows at once where it is waited for.
        operations = [
            dist.P2POp(operation, x, group=self.group, tag=_tag(number, i), group_peer=rank)
            for operation, side in ((dist.irecv, into), (dist.isend, out))
            for rank, parts in side.items()
            for i, x in enumerate(parts)
        ]
        received = [x for parts in into.values() for x in parts]
        return Transfer(self, kind, number, operations, received)

    def rotate(self, tensor: Tensor) -> Transfer:
        """Start sending a tensor to the next rank and receiving the previous rank's.

        Args:
            tensor: contiguous, of the same shape and type on all ranks; leave it as it is until
                the transfer has been waited for.
        """
        received = torch.empty_like(tensor)
        number = self._count("rotate", tensor.numel() * tensor.element_size())
        following, previous = (self.rank + 1) % self.size, (self.rank - 1) % self.size
        return self._messages("rotate", number, {following: [tensor]}, {previous: [received]})

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor of one shape, stacked: [size, ...]."""
        if self.size == 1:
            return tensor[None]
        tensor = tensor.contiguous()
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        sent = (self.size - 1) * tensor.numel() * tensor.element_size()
        with self._timed("all_gather", self._count("all_gather", sent)):
            dist.all_gather(parts, tensor, group=self.group)
        return torch.stack(parts)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum of every rank's tensor; the argument is left as it is."""
        total = tensor.clone()
        if self.size > 1:
            sent = 2 * (self.size - 1) * tensor.numel() * tensor.element_size() // self.size
            with self._timed("all_reduce", self._count("all_reduce", sent)):
                dist.all_reduce(total, group=self.group)
        return total

    def _count(self, kind: str, sent: int) -> int:
        entry = self.traffic.setdefault(kind, Traffic())
        entry.calls += 1
        entry.bytes_sent += sent
        self._number += 1
        return self._number

    @contextmanager
    def _timed(self, kind: str, number: int) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            raise ExecutionError(
                f"collective {number} ({kind}) of axis '{self.name}' failed on rank {self.rank} of "
                f"{self.size}: {error}. Look at the other ranks' messages: one of them ended, "
                "or took another path and started no collective with this number."
            ) from error
        finally:
            self.traffic.setdefault(kind, Traffic()).seconds += time.perf_counter() - begin


def _tag(number: int, index: int) -> int:
    """Of the message ``index`` of a collective; they repeat long after a message has arrived."""
    return (number * 8 + index) % (1 << 30)


def _aligned(x: Tensor) -> int:
    """Bytes of a tensor in shared memory, up to a multiple of 64."""
    return -(-x.numel() * x.element_size() // 64) * 64
