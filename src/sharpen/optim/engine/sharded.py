"""Parameters whose rows lie on several ranks (DTensors, as FSDP2 makes them).

A rule that works element by element takes the rows that are here, and its states are DTensors cut
as the parameter is. A rule that needs a whole matrix has it on one rank: ranks own parameters in
turn, by size; the owner gathers weights and gradient, takes the step, and scatters the rows. Its
states lie on the owner alone, so that N ranks hold 1/N of them each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from sharpen.core.errors import ConfigError

if TYPE_CHECKING:
    from sharpen.optim.engine.base import Optimizer

__all__ = ["is_sharded", "local", "local_rank", "owner_of", "shard_like", "step_whole"]


def is_sharded(p: Tensor) -> bool:
    """Whether a parameter is a DTensor."""
    return hasattr(p, "device_mesh")


def local(x: Tensor) -> Tensor:
    """The rows that are here."""
    to_local = getattr(x, "to_local", None)
    found: Tensor = to_local() if to_local is not None else x
    return found


def shard_like(rows: Tensor, p: Any) -> Tensor:
    """A state's rows as a DTensor cut as the parameter is, along the first dimension."""
    from torch.distributed.tensor import DTensor

    shape = torch.Size((p.shape[0], *rows.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        rows, p.device_mesh, p.placements, run_check=False, shape=shape, stride=stride
    )


def _group_of(p: Any) -> dist.ProcessGroup:
    """The ranks over which the rows of a parameter are cut."""
    cut = [i for i, placement in enumerate(p.placements) if placement.is_shard()]
    if len(cut) != 1 or p.placements[cut[0]].dim != 0:
        raise ConfigError(
            f"a parameter of shape {tuple(p.shape)} is placed as {p.placements}; optimizers serve "
            "parameters cut along their first dimension over one axis of ranks."
        )
    group: dist.ProcessGroup = p.device_mesh.get_group(cut[0])
    return group


def local_rank(p: Tensor) -> int:
    """This rank's place among those that share a parameter's rows."""
    return dist.get_rank(_group_of(p))


def owner_of(optimizer: Optimizer, p: Tensor) -> int:
    """The rank, within the parameter's group, that has it whole; by size, largest first."""
    owners = optimizer.owners
    if p not in owners:
        mixing = [
            q
            for group in optimizer.param_groups
            for q in group["params"]
            if is_sharded(q) and optimizer.rules[group["rule"]].mixes
        ]
        loads: dict[dist.ProcessGroup, list[int]] = {}
        for q in sorted(mixing, key=lambda q: -q.numel()):
            ranks = _group_of(q)
            load = loads.setdefault(ranks, [0] * dist.get_world_size(ranks))
            owner = load.index(min(load))
            load[owner] += q.numel()
            owners[q] = owner
    return owners[p]


def step_whole(
    optimizer: Optimizer, items: list[tuple[Tensor, dict[str, Any]]], scale: float
) -> None:
    """Steps of sharded parameters whose rules need them whole."""
    for p, group in items:
        owner = owner_of(optimizer, p)
        assert p.grad is not None
        rows = local(p)
        exchange = _Exchange(p, owner)
        grad = exchange.gather(local(p.grad))
        whole = exchange.gather(rows)
        if whole is not None and grad is not None:
            optimizer.step_parameter(p, group, whole, grad, scale)
        exchange.scatter(whole, rows)


class _Exchange:
    """A parameter's rows to its owner and back, filled up to equal numbers of rows."""

    def __init__(self, p: Tensor, owner: int) -> None:
        self._ranks, self._owner, self._shape = _group_of(p), owner, tuple(p.shape)
        self._world = dist.get_world_size(self._ranks)
        self._here = dist.get_rank(self._ranks) == owner
        self._chunk = -(-self._shape[0] // self._world)

    def _buffer(self, like: Tensor) -> Tensor:
        return like.new_zeros((self._chunk, *self._shape[1:]))

    def gather(self, rows: Tensor) -> Tensor | None:
        """The whole tensor on the owner, None elsewhere."""
        padded = self._buffer(rows)
        padded[: rows.shape[0]] = rows
        parts = [self._buffer(rows) for _ in range(self._world)] if self._here else None
        dist.gather(padded, parts, group=self._ranks, group_dst=self._owner)
        return torch.cat(parts)[: self._shape[0]] if parts is not None else None

    def scatter(self, whole: Tensor | None, rows: Tensor) -> None:
        """The owner's tensor into everybody's rows."""
        parts = None
        if whole is not None:
            padded = whole.new_zeros((self._chunk * self._world, *self._shape[1:]))
            padded[: self._shape[0]] = whole
            parts = list(padded.chunk(self._world))
        mine = self._buffer(rows)
        dist.scatter(mine, parts, group=self._ranks, group_src=self._owner)
        rows.copy_(mine[: rows.shape[0]])
