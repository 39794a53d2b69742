"""What the ranks of the tests of collectives run."""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from sharpen.core.errors import ExecutionError
from sharpen.train.comm import Axis


def all_collectives() -> dict[str, Any]:
    axis = Axis(dist.group.WORLD)
    rank = axis.rank
    sends = [[torch.full((rank + 1,), 10 * rank + other), torch.empty(0)] for other in range(3)]
    receives = [[torch.zeros(other + 1).long(), torch.empty(0)] for other in range(3)]
    exchange = axis.exchange(sends, receives)
    exchange.wait()
    rotate = axis.rotate(torch.full((4,), float(rank), dtype=torch.float64))
    rotate.wait()
    mine = torch.tensor([rank + 1.0], dtype=torch.float64)
    found: dict[str, Any] = {
        "exchange": [x.tolist() for x in exchange.received],
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


def broken() -> str | None:
    """Rank 0 waits for a rank that never sends; its message."""
    group = dist.new_group(timeout=timedelta(seconds=1))
    message = None
    if dist.get_rank() == 0:
        try:
            Axis(group, "ring").rotate(torch.zeros(4)).wait()
        except ExecutionError as error:
            message = str(error)
    return message
