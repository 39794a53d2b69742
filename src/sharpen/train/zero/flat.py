"""ZeRO stages 0 and 1: whole weights on every rank, gradients summed from one flat buffer.

Rajbhandari et al., ZeRO, 2019 (arXiv 1910.02054), P_os. Gradients are views of one buffer, laid
in the order in which the backward pass makes them. With N ranks and Ψ parameters of e bytes, in
bytes a rank::

    stage    weights   gradients   optimizer         sent a step
    0        e Ψ       e Ψ         8 Ψ               2 e Ψ (N-1)/N     all-reduce
    1        e Ψ       e Ψ         8 Ψ / N           2 e Ψ (N-1)/N     reduce to owners, broadcast
    1, e=2   2 Ψ       2 Ψ         12 Ψ / N          4 Ψ (N-1)/N       with float32 masters

In stage 1 a rank owns a contiguous part of the buffer, cut between rows of a parameter, so that
each owned piece is a matrix as the optimizer and the checkpoint know it.

Ranks on CPUs of one machine keep the buffers where the others can read them: after the backward
pass each adds the others' gradients of its part to its own, and in stage 1, after the update, it
copies the other parts' weights; stage 0 copies their gradients. Other ranks send messages: the
gradients are cut into buckets, and a bucket is summed while the backward pass goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.train.checkpoint import Checkpoint, Piece
from sharpen.train.parallel import Parallel
from sharpen.train.zero.shared import SharedTensor
from sharpen.train.zero.states import (
    Groups,
    MakeOptimizer,
    load_model,
    load_optimizer,
    optimizer_pieces,
)

__all__ = ["FlatStates", "cut_rows"]


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a parameter lies in the buffers."""

    name: str
    parameter: nn.Parameter
    start: int

    @property
    def stop(self) -> int:
        return self.start + self.parameter.numel()

    @property
    def row(self) -> int:
        """Elements of one row."""
        return self.parameter.numel() // max(1, self.parameter.shape[0]) if self.shape else 1

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.parameter.shape)


def cut_rows(sizes: list[tuple[int, int]], parts: int) -> list[int]:
    """Cut a buffer into parts of nearly equal length, only between rows.

    Args:
        sizes: (rows, elements a row) of each tensor, in the buffer's order.
        parts: how many.

    Returns:
        ``parts + 1`` offsets, from 0 to the buffer's length; parts may be empty.
    """
    total = sum(rows * width for rows, width in sizes)
    cuts, start, at = [0], 0, 0
    for part in range(1, parts):
        wanted = total * part / parts
        while at < len(sizes) and start + sizes[at][0] * sizes[at][1] < wanted:
            start += sizes[at][0] * sizes[at][1]
            at += 1
        width = sizes[at][1] if at < len(sizes) else 1
        cut = start + round((wanted - start) / max(1, width)) * width
        cuts.append(max(cuts[-1], min(cut, total)))
    return [*cuts, total]


class FlatStates:
    """Replicated weights; optimizer states replicated (stage 0) or owned by one rank (stage 1).

    Args:
        model: its trainable parameters, all of one type, move into the flat buffers.
        make_optimizer: makes the optimizer.
        parallel: the job.
        stage: 0 or 1.
        param_dtype: stage 1: of weights and gradients; the owners keep float32 masters when it is
            another.
        bucket_bytes: gradients summed at once, where ranks send messages.
        shared_memory: let ranks on CPUs of one machine read each other's buffers. All ranks must
            say the same.

    Raises:
        ConfigError: nothing is trainable, or trainable parameters differ in type.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        parallel: Parallel,
        *,
        stage: int,
        param_dtype: torch.dtype = torch.float32,
        bucket_bytes: int = 25 << 20,
        shared_memory: bool = True,
    ) -> None:
        self._parallel, self._stage = parallel, stage
        group = parallel.group("state") if stage == 1 else dist.group.WORLD
        assert group is not None, "a job of one process has nothing to share"
        self._group = group
        self._ranks = dist.get_world_size(self._group)
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        kinds = {p.dtype for _, p in named}
        if len(kinds) != 1:
            raise ConfigError(
                f"zero_stage={stage} needs trainable parameters of one type, not "
                f"{sorted(map(str, kinds)) or 'none'}."
            )
        (exact,) = kinds
        dtype = param_dtype if stage == 1 else exact
        self._slots: list[_Slot] = []
        total = 0
        for name, parameter in reversed(named):
            self._slots.append(_Slot(name, parameter, total))
            total += parameter.numel()
        device = named[0][1].device
        share = shared_memory and device.type == "cpu"
        self._shared_grads = SharedTensor.open(total, dtype, self._group) if share else None
        self._grads = (
            self._shared_grads.tensor
            if self._shared_grads
            else torch.zeros(total, dtype=dtype, device=device)
        )
        masters = self._move(dtype, share) if stage == 1 else None
        for slot in self._slots:
            slot.parameter.grad = self._grads[slot.start : slot.stop].view(slot.shape)
            if self._shared_grads is None:
                slot.parameter.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]
        whole: frozenset[str] = getattr(make_optimizer, "whole", frozenset())
        sizes = [
            (1, s.parameter.numel()) if s.name in whole else (s.shape[0] if s.shape else 1, s.row)
            for s in self._slots
        ]
        self._cuts = cut_rows(sizes, self._ranks)
        self._named = dict(named)
        self._pieces = {n: Piece(p.detach(), 0, tuple(p.shape)) for n, p in named}
        if masters is not None:
            self._own(masters, dtype == exact)
        self.optimizer = make_optimizer((n, self._named[n]) for n, _ in named if n in self._named)
        self._buckets = self._make_buckets(bucket_bytes)
        self._home = {id(s.parameter): i for i, b in enumerate(self._buckets) for s in b}
        self._missing: list[int] = []
        self._works: list[Any] = []
        self._next = 0
        self._last = False

    def _move(self, dtype: torch.dtype, share: bool) -> Tensor:
        """Weights into one buffer; returns their exact values."""
        exact = torch.cat([slot.parameter.detach().reshape(-1) for slot in self._slots])
        self._shared_weights = SharedTensor.open(len(exact), dtype, self._group) if share else None
        if self._shared_weights:
            self._weights = self._shared_weights.tensor.copy_(exact)
        else:
            self._weights = exact.to(dtype)  # the same tensor when the type is
        for slot in self._slots:
            slot.parameter.data = self._weights[slot.start : slot.stop].view(slot.shape)
        return exact

    def _own(self, exact: Tensor, in_place: bool) -> None:
        """The pieces this rank owns, as the optimizer's parameters."""
        start, stop = self._range(self._parallel.state_rank)
        self._master = self._weights[start:stop] if in_place else exact[start:stop].clone()
        self._master_grad = self._grads[start:stop] if in_place else torch.zeros_like(self._master)
        self._named, self._pieces = {}, {}
        for slot in self._slots:
            first, end = max(start, slot.start), min(stop, slot.stop)
            if first >= end:
                continue
            shape = ((end - first) // slot.row, *slot.shape[1:]) if slot.shape else ()
            span = slice(first - start, end - start)
            rows = nn.Parameter(self._master[span].view(shape))
            rows.grad = self._master_grad[span].view(shape)
            self._named[slot.name] = rows
            begin = (first - slot.start) // slot.row
            self._pieces[slot.name] = Piece(rows.detach(), begin, slot.shape)

    def _range(self, rank: int) -> tuple[int, int]:
        return self._cuts[rank], self._cuts[rank + 1]

    def _make_buckets(self, bucket_bytes: int) -> list[list[_Slot]]:
        buckets: list[list[_Slot]] = [[]]
        size = 0
        for slot in self._slots:
            if buckets[-1] and size >= bucket_bytes:
                buckets.append([])
                size = 0
            buckets[-1].append(slot)
            size += slot.parameter.numel() * self._grads.element_size()
        return buckets

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[None]:
        """Sum gradients over the ranks during and after the last backward pass."""
        self._last = last
        self._missing = [len(bucket) for bucket in self._buckets]
        self._next = 0
        yield
        if last:
            with self._parallel.clock.waiting():
                if self._shared_grads:
                    self._sum_shared(self._shared_grads)
                else:
                    self._launch(len(self._buckets))
                    for work in self._works:
                        work.wait()
            self._works.clear()
            self._last = False
            self._finish()

    def _sum_shared(self, grads: SharedTensor) -> None:
        grads.meet()
        grads.add(*self._range(grads.rank))
        if self._stage == 0:
            grads.meet()
            self._read_parts(grads)
        grads.meet()

    def _read_parts(self, buffer: SharedTensor) -> None:
        """Take the other ranks' parts of a buffer from them."""
        for rank in range(self._ranks):
            if rank != buffer.rank:
                buffer.read(rank, *self._range(rank))

    def _arrived(self, parameter: Tensor) -> None:
        if not self._last:
            return
        self._missing[self._home[id(parameter)]] -= 1
        ready = self._next
        while ready < len(self._buckets) and self._missing[ready] <= 0:
            ready += 1
        self._launch(ready)

    def _launch(self, stop: int) -> None:
        """Start summing the buckets up to ``stop``; in order, so that all ranks agree."""
        for bucket in self._buckets[self._next : stop]:
            start, end = bucket[0].start, bucket[-1].stop
            if self._stage == 0:
                self._works.append(dist.all_reduce(self._grads[start:end], async_op=True))
                continue
            for rank in range(self._ranks):
                first, last = self._range(rank)
                part = self._grads[max(start, first) : min(end, last)]
                if part.numel():
                    self._works.append(
                        dist.reduce(part, group=self._group, group_dst=rank, async_op=True)
                    )
        self._next = max(self._next, stop)

    def _finish(self) -> None:
        if self._stage == 0:
            return
        start, stop = self._range(self._parallel.state_rank)
        if self._master_grad.data_ptr() != self._grads[start:stop].data_ptr():
            self._master_grad.copy_(self._grads[start:stop])
        if self._parallel.layout.dp_replicate > 1:
            with self._parallel.clock.waiting():
                dist.all_reduce(self._master_grad, group=self._parallel.group("replicate"))

    def clip_grad_norm(self, max_norm: float) -> float:
        """As :meth:`States.clip_grad_norm`."""
        grads = self._grads if self._stage == 0 else self._master_grad
        square = torch.linalg.vector_norm(grads, dtype=torch.float32).square().double()
        if self._stage == 1:
            with self._parallel.clock.waiting():
                dist.all_reduce(square, group=self._group)
        norm = float(square.sqrt())
        if norm > max_norm:
            grads.mul_(max_norm / (norm + 1e-6))
        return norm

    def step(self) -> None:
        """Update the owned pieces and send them to all."""
        self.optimizer.step()
        self.publish()

    def publish(self) -> None:
        """Send the owned pieces to all; in stage 0 every rank has its own."""
        if self._stage == 1:
            self._send()

    def _send(self) -> None:
        start, stop = self._range(self._parallel.state_rank)
        mine = self._weights[start:stop]
        if mine.data_ptr() != self._master.data_ptr():
            mine.copy_(self._master)
        with self._parallel.clock.waiting():
            if self._shared_weights:
                self._shared_weights.meet()
                self._read_parts(self._shared_weights)
                self._shared_weights.meet()
                return
            works = []
            for rank in range(self._ranks):
                first, last = self._range(rank)
                if last > first:
                    part = self._weights[first:last]
                    works.append(
                        dist.broadcast(part, group=self._group, group_src=rank, async_op=True)
                    )
            for work in works:
                work.wait()

    def zero_grad(self) -> None:
        """Gradients stay in place, as zeros."""
        self._grads.zero_()

    def groups(self) -> Groups:
        """Stage 0: all, from the first rank. Stage 1: the owned pieces, from the first replica."""
        writes = self._parallel.is_first_replica
        if self._stage == 0:
            writes = self._parallel.rank == 0
        if not writes:
            return {"model": {}, "optim": {}}
        optim = optimizer_pieces(self.optimizer, self._named, self._pieces)
        return {"model": dict(self._pieces), "optim": optim}

    def load(self, found: Checkpoint) -> None:
        """As :meth:`States.load`."""
        everything = {s.name: Piece(s.parameter.detach(), 0, s.shape) for s in self._slots}
        load_model(found, self._pieces, everything)
        load_optimizer(found, self.optimizer, self._named, self._pieces)
        self.publish()
