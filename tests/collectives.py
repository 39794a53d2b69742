"""What the ranks of the tests of collectives run."""

from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from sharpen.core.errors import ExecutionError
from sharpen.train.comm import Axis


def all_collectives() -> list[dict[str, Any]]:
    """With shared memory and without."""
    return [collectives(Axis(dist.group.WORLD, shared_memory=shared)) for shared in (True, False)]


def collectives(axis: Axis) -> dict[str, Any]:
    rank = axis.rank
    sends = [[torch.full((rank + 1,), 10 * rank + other), torch.empty(0)] for other in range(3)]
    receives = [[torch.zeros(other + 1).long(), torch.empty(0)] for other in range(3)]
    axis.exchange(sends, receives)
    grown = []
    for length in (5, 100_000, 3, 200_000, 7):  # the shared files grow and are used again
        parts = torch.arange(length * 3).view(length, 3) * (rank + 1)
        arrived = [torch.zeros(2, length).long() for _ in range(3)]
        axis.exchange([[parts[:, 1:]]] * 3, [[x.T] for x in arrived])
        grown.append(
            all(
                bool((arrived[r] == torch.arange(length * 3).view(-1, 3)[:, 1:].T * (r + 1)).all())
                for r in range(3)
                if r != rank
            )
        )
    rotate = axis.rotate(torch.full((4,), float(rank), dtype=torch.float64))
    rotate.wait()
    mine = torch.tensor([rank + 1.0], dtype=torch.float64)
    found: dict[str, Any] = {
        "exchange": [x.tolist() for r in range(3) if r != rank for x in receives[r]],
        "grown": grown,
        "memory": axis._memory is not None,
        "rotate": rotate.received[0].tolist(),
        "all_gather": axis.all_gather(torch.tensor([rank, 2 * rank])).tolist(),
        "all_reduce": axis.all_reduce(mine).tolist(),
        "kept": mine.tolist(),
        "traffic": {k: (entry.calls, entry.bytes_sent) for k, entry in axis.traffic.items()},
        "bytes_sent": axis.bytes_sent,
        "seconds": axis.seconds,
    }
    axis.reset()
    return {**found, "after_reset": axis.bytes_sent}


def broken() -> list[str]:
    """What rank 0 is told of a rank that sends nothing, through sockets and shared memory, and of
    one that has ended."""
    group = dist.new_group(timeout=timedelta(seconds=1))
    silent, gone = (Axis(group, name) for name in ("ring", "sp"))
    parts = [[torch.ones(2)], [torch.ones(2)]]
    for axis in (silent, gone):
        axis.exchange(parts, [[torch.empty(2)], [torch.empty(2)]])
    if dist.get_rank():
        del gone, axis
        dist.barrier()
        return []
    found = []
    for axis in (silent, gone):
        with pytest.raises(ExecutionError) as caught:
            axis.exchange(parts, [[torch.empty(2)], [torch.empty(2)]])
        found.append(str(caught.value))
    with pytest.raises(ExecutionError) as caught:
        silent.rotate(torch.zeros(4)).wait()
    dist.barrier()
    return [str(caught.value), *found]
