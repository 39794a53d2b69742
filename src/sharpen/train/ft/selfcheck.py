"""What a rank checks of itself before it trains: memory, disk, arithmetic, connections.

Jiang et al., MegaScale, 2024 (arXiv 2402.15627), section 4.3. After a failure the question is
whether starting again can help. Each rank compares a matrix product with its float64 reference and
with itself, asks for the memory and the disk space that the job needs, and then exchanges known
values with all others: a sum, and a part from each to each, so that a bad connection is known by
its two ends. It takes milliseconds, in the processes that will train. A rank that fails ends the
job and is named: a machine that computes wrongly does not get better by starting again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sharpen.core.errors import ExecutionError

__all__ = ["Needs", "SelfCheckError", "check_connections", "check_process", "check_product"]

_SIZE = 384  # of the matrices: all threads take part
_REPEATS = 3
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # relative, Frobenius
_NUMBERS = 4096  # sent to each rank


class SelfCheckError(ExecutionError):
    """A rank is not fit to train."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a job needs of the machine."""

    disk_bytes: int = 0
    """Free space for one checkpoint."""

    memory_bytes: int = 0
    """Available memory for the model's weights in all ranks."""

    @classmethod
    def of(cls, model: nn.Module, ranks: int) -> Needs:
        """A checkpoint's parameters and moments in float32, and the weights in every rank."""
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        held = sum(p.numel() * p.element_size() for p in model.parameters())
        return cls(disk_bytes=12 * trained, memory_bytes=held * ranks)


def check_process(folder: Path, needs: Needs) -> None:
    """Check this process: disk, memory, arithmetic.

    Args:
        folder: where checkpoints go.
        needs: of the job.

    Raises:
        SelfCheckError: what is wrong, and what to do.
    """
    free = shutil.disk_usage(folder).free
    if free < needs.disk_bytes:
        raise SelfCheckError(
            f"a checkpoint takes {_gib(needs.disk_bytes)} and {folder} has {_gib(free)} free. "
            "Free space, or choose another folder with --output, and run the same command again."
        )
    available = psutil.virtual_memory().available
    if available < needs.memory_bytes:
        raise SelfCheckError(
            f"the weights take {_gib(needs.memory_bytes)} in all ranks and {_gib(available)} of "
            "memory is available. End other processes, or train on fewer with --nproc."
        )
    for dtype in _TOLERANCE:
        check_product(dtype)


def check_product(
    dtype: torch.dtype, product: Callable[[Tensor, Tensor], Tensor] = torch.mm
) -> None:
    """Compare a matrix product with its float64 reference and with its own repetition.

    Args:
        dtype: float32 or bfloat16.
        product: what is checked.

    Raises:
        SelfCheckError: it is off by more than rounding, or not the same twice.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(_SIZE, _SIZE, generator=generator).to(dtype) for _ in range(2))
    exact = a.double() @ b.double()
    first = product(a, b)
    error = float((first.double() - exact).norm() / exact.norm())
    if not error <= _TOLERANCE[dtype]:
        raise SelfCheckError(
            f"a {dtype} matrix product is off by {error:.1g} of its size (rounding explains "
            f"{_TOLERANCE[dtype]:g}): this processor computes wrongly. Leave it out."
        )
    if any(not torch.equal(product(a, b), first) for _ in range(_REPEATS)):
        raise SelfCheckError(
            f"the same {dtype} matrix product gave two results: this processor or its memory is "
            "faulty. Leave it out."
        )


def check_connections() -> None:
    """Exchange known values with every rank of the initialized process group.

    Raises:
        SelfCheckError: something arrived damaged; names the rank that sent it.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    sent = torch.cat([_known(rank, to) for to in range(world)])
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent)
    wrong = [
        source
        for source, part in enumerate(received.chunk(world))
        if not torch.equal(part, _known(source, rank))
    ]
    if wrong:
        raise SelfCheckError(
            f"what rank {', '.join(map(str, wrong))} sent to rank {rank} arrived damaged. Check "
            "the memory of both and what connects them."
        )
    total = _known(rank, rank)
    dist.all_reduce(total)
    expected = torch.stack([_known(r, r) for r in range(world)]).sum(0)
    if not torch.equal(total, expected):
        raise SelfCheckError(
            f"a sum over all ranks is wrong on rank {rank}, though single messages arrive whole. "
            "Check the memory of its machine."
        )


def _known(source: int, target: int) -> Tensor:
    """Integers below 2^17, which float32 holds and sums without rounding: [4096]."""
    return torch.arange(_NUMBERS, dtype=torch.float32) * (source + 1) % 8191 + 16 * target


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
