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
    send_counts = [0 if other == rank else rank + 1 for other in range(3)]
    parts = [torch.full((n,), 10 * rank + other) for other, n in enumerate(send_counts)]
    receive_counts = [0 if other == rank else other + 1 for other in range(3)]
    mine = torch.tensor([rank + 1.0], dtype=torch.float64)
    found: dict[str, Any] = {
        "all_to_all": axis.all_to_all(torch.cat(parts), send_counts, receive_counts).tolist(),
        "rotate": axis.rotate(torch.full((4,), float(rank), dtype=torch.float64)).wait().tolist(),
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
