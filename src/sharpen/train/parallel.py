"""The processes of a training job: which rank does what, and the groups in which ranks talk.

Ranks are numbered with ``dp_replicate`` outermost and ``sp`` innermost. Groups::

    all        counts of labels, and the gradients of replicated parameters
    state      dp_shard x ring x sp: ranks that share parameters, gradients, optimizer states
    replicate  ranks with the same share in each copy of the model
    ring, sp   ranks that share a sequence
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from sharpen.core.errors import ConfigError
from sharpen.plan.parallel import ParallelConfig, ParallelLayout
from sharpen.train.ft.straggler import ComputeClock

__all__ = ["Parallel"]


@dataclass(frozen=True, slots=True)
class Parallel:
    """This rank's place in a job; made by :meth:`build`."""

    layout: ParallelLayout
    """Degrees."""

    rank: int
    """Of this process, 0 to ``layout.world_size - 1``."""

    states: DeviceMesh | None
    """[dp_replicate, state] mesh; None in a job of one process."""

    sequences: DeviceMesh | None
    """[data, ring, sp] mesh; None in a job of one process."""

    clock: ComputeClock = field(default_factory=ComputeClock, compare=False)
    """What this rank computes; collectives over all ranks count as waiting."""

    @classmethod
    def build(cls, config: ParallelConfig, device: torch.device) -> Parallel:
        """Lay out the processes of the initialized process group, or the only one.

        Args:
            config: the degrees.
            device: where tensors lie; its type decides the meshes' backend.

        Raises:
            ConfigError: the degrees do not fit the number of processes.
        """
        world = dist.get_world_size() if dist.is_initialized() else 1
        layout = config.layout(world)
        if world == 1:
            return cls(layout=layout, rank=0, states=None, sequences=None)
        states = init_device_mesh(
            device.type,
            (layout.dp_replicate, layout.state_ranks),
            mesh_dim_names=("replicate", "state"),
        )
        sequences = init_device_mesh(
            device.type,
            (layout.data_ranks, layout.ring, layout.sp),
            mesh_dim_names=("data", "ring", "sp"),
        )
        return cls(layout=layout, rank=dist.get_rank(), states=states, sequences=sequences)

    @property
    def world_size(self) -> int:
        """Processes."""
        return self.layout.world_size

    @property
    def sequence_ranks(self) -> int:
        """Ranks that share one sequence."""
        return self.layout.ring * self.layout.sp

    @property
    def data_rank(self) -> int:
        """Which of ``layout.data_ranks`` readers of sequences this is."""
        return self.rank // self.sequence_ranks

    @property
    def state_rank(self) -> int:
        """Which share of the states this rank keeps."""
        return self.rank % self.layout.state_ranks

    @property
    def is_first_replica(self) -> bool:
        """Whether this rank belongs to the first copy of the model, which writes checkpoints."""
        return self.rank < self.layout.state_ranks

    def group(self, axis: str) -> dist.ProcessGroup:
        """The group of ``replicate``, ``state``, ``data``, ``ring`` or ``sp`` that this rank is in.

        Raises:
            ConfigError: the job has one process, so there are no groups.
        """
        for mesh in (self.states, self.sequences):
            if mesh is not None and axis in (mesh.mesh_dim_names or ()):
                return mesh.get_group(axis)
        raise ConfigError(f"a job of one process has no group '{axis}'.")

    def total(self, *values: float) -> list[float]:
        """Sums over all ranks, in float64."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        with self.clock.waiting():
            dist.all_reduce(tensor)
        return [float(value) for value in tensor]

    def highest(self, value: float) -> float:
        """The largest of all ranks' values."""
        if self.world_size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        with self.clock.waiting():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return float(tensor)

    def gather(self, value: float) -> list[float]:
        """Every rank's value, by rank."""
        return self.total(*(value if r == self.rank else 0.0 for r in range(self.world_size)))

    def collect(self, value: Any) -> list[Any]:
        """Every rank's plain value, by rank."""
        found = [value] * self.world_size
        if self.world_size > 1:
            with self.clock.waiting():
                dist.all_gather_object(found, value)
        return found

    def broadcast(self, value: Any) -> Any:
        """Rank 0's plain value, on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        with self.clock.waiting():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def job_name(self) -> str:
        """A new name that all ranks share."""
        return str(self.broadcast(uuid.uuid4().hex))
