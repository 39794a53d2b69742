"""ZeRO stages 2 and 3: gradients, optimizer states and (stage 3) weights in shares, by FSDP2.

Rajbhandari et al., ZeRO, 2019 (arXiv 1910.02054), P_os+g and P_os+g+p; Zhao et al., PyTorch FSDP,
2023 (arXiv 2304.11277). Every block is a unit whose weights are gathered before its forward pass
and, in stage 3, freed after it; the rest of the model is one more unit. Parameters are DTensors cut
along their first dimension. Gradients are summed, not averaged: the loss is already divided by the
number of labels of all ranks.

Bytes a rank, float32 parameters, N ranks: 16 Ψ / N, and what is gathered: the weights in the
compute type (stage 2, from the first forward pass to the last backward) or a unit or two (stage 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from sharpen.train.checkpoint import Checkpoint, Piece
from sharpen.train.parallel import Parallel
from sharpen.train.shared_memory import SharedMemory
from sharpen.train.zero.local_collectives import LocalGather, LocalReduceScatter
from sharpen.train.zero.states import (
    Groups,
    MakeOptimizer,
    load_model,
    load_optimizer,
    optimizer_pieces,
)

__all__ = ["ShardedStates"]


class ShardedStates:
    """Parameters cut over the ranks.

    Args:
        root: the module whose forward pass uses every parameter; sharded in place.
        model: its parameters' names are those of checkpoints.
        units: modules to gather one at a time, such as the blocks.
        make_optimizer: makes the optimizer, over the cut parameters.
        parallel: the job.
        stage: 2 or 3.
        param_dtype: of gathered weights.
        shared_memory: let ranks on CPUs of one machine exchange through memory. All ranks must say
            the same.
    """

    def __init__(
        self,
        root: nn.Module,
        model: nn.Module,
        units: list[nn.Module],
        make_optimizer: MakeOptimizer,
        parallel: Parallel,
        *,
        stage: int,
        param_dtype: torch.dtype = torch.float32,
        shared_memory: bool = True,
    ) -> None:
        assert parallel.states is not None, "a job of one process needs no sharding"
        self._parallel = parallel
        mesh = parallel.states if parallel.layout.dp_replicate > 1 else parallel.states["state"]
        policy = MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=torch.float32)
        options: dict[str, Any] = {
            "mesh": mesh,
            "mp_policy": policy,
            "reshard_after_forward": stage == 3,
        }
        for unit in units:
            fully_shard(unit, **options)
        fully_shard(root, **options)
        self._modules = [m for m in root.modules() if isinstance(m, FSDPModule)]
        for module in self._modules:
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        self._root: Any = root
        self._stage = stage
        self._memory = self._share_memory() if shared_memory else None
        self._all = dict(model.named_parameters())
        self._named = {n: p for n, p in self._all.items() if p.requires_grad}
        self.optimizer = make_optimizer(self._named.items())

    def _share_memory(self) -> SharedMemory | None:
        """Let ranks on CPUs of one machine gather and sum through memory instead of sockets."""
        group = self._parallel.group("state")
        place = dist.get_rank(group), dist.get_world_size(group)
        if place[1] == 1 or next(self._root.parameters()).device.type != "cpu":
            return None
        memory = SharedMemory.open(group)
        if memory is not None:
            for module in self._modules:
                module.set_custom_all_gather(LocalGather(memory, *place))  # type: ignore[arg-type]
                module.set_custom_reduce_scatter(LocalReduceScatter(memory, *place))  # type: ignore[arg-type]
        return memory

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[None]:
        """Gradients are summed and cut in every pass; between passes stage 2 keeps its weights."""
        if self._stage == 2:
            for module in self._modules:
                module.set_reshard_after_backward(last, recurse=False)
        self._root.set_is_last_backward(last)
        yield

    def clip_grad_norm(self, max_norm: float) -> float:
        """As :meth:`States.clip_grad_norm`."""
        grads = [_local(p.grad) for p in self._named.values() if p.grad is not None]
        grads = [grad for grad in grads if grad.numel()]
        norms = torch._foreach_norm(grads) if grads else [torch.zeros(())]
        square = torch.stack([n.double() for n in norms]).square().sum()
        with self._parallel.clock.waiting():
            dist.all_reduce(square, group=self._parallel.group("state"))
        norm = float(square.sqrt())
        if norm > max_norm and grads:
            torch._foreach_mul_(grads, max_norm / (norm + 1e-6))
        return norm

    def step(self) -> None:
        """Update this rank's shares."""
        self.optimizer.step()

    def publish(self) -> None:
        """Nothing to do: weights are gathered when they are used."""

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def groups(self) -> Groups:
        """This rank's shares, from the first replica."""
        if not self._parallel.is_first_replica:
            return {"model": {}, "optim": {}}
        pieces = self._pieces()
        optim = optimizer_pieces(self.optimizer, self._named, pieces)
        held = {n: piece for n, piece in pieces.items() if piece.tensor.numel()}
        return {"model": dict(held), "optim": optim}

    def load(self, found: Checkpoint) -> None:
        """As :meth:`States.load`."""
        pieces = self._pieces()
        load_model(found, pieces)
        load_optimizer(found, self.optimizer, self._named, pieces, _like)

    def _pieces(self) -> dict[str, Piece]:
        """This rank's rows of the trained parameters; of short ones it may have none."""
        out = {}
        for name, parameter in self._named.items():
            rows = parameter.shape[0]
            chunk = -(-rows // self._parallel.layout.state_ranks)
            start = min(chunk * self._parallel.state_rank, rows)
            out[name] = Piece(_local(parameter.detach()), start, tuple(parameter.shape))
        return out


def _local(tensor: Tensor | None) -> Tensor:
    assert isinstance(tensor, DTensor)
    return tensor.to_local()


def _like(rows: Tensor, parameter: nn.Parameter) -> Tensor:
    """A state's rows as a DTensor cut as the parameter is."""
    assert isinstance(parameter, DTensor)
    return DTensor.from_local(
        rows,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
