"""Bandwidth of collectives between processes of this machine, over sizes.

For a tensor of S bytes on each of n ranks, t seconds on the slowest rank. Rates count what each
rank must send at least, so that they can be compared with the link's::

    all_reduce       2 (n - 1) / n  S / t       every rank has the sum
    reduce_scatter     (n - 1) / n  S / t       every rank has its share of the sum
    all_gather         (n - 1) / n  S / t       S is what every rank has at the end
    all_to_all         (n - 1) / n  S / t       every rank has a part from each
    exchange           (n - 1) / n  S / t       the same through memory that the ranks share

Before anything is timed, results are compared with what they must be.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sharpen.core.config import from_dict, to_dict
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.fork_server import die_with_parent
from sharpen.core.huge_pages import worker_environment
from sharpen.core.report import Chart, Section, Series, Table
from sharpen.train.comm import Axis

__all__ = ["COLLECTIVES", "CollectiveRow", "CollectiveTimes", "bench_collectives"]

COLLECTIVES = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "exchange")
"""What is measured."""

_TIMEOUT_S = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectiveRow:
    """One collective at one size."""

    kind: str
    """Of :data:`COLLECTIVES`."""

    bytes: int
    """Of the whole tensor."""

    seconds: float
    """Of the slowest rank, median over the repeats."""

    gb_s: float
    """GB/s that each rank sends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectiveTimes:
    """Rates of collectives."""

    world_size: int
    """Ranks."""

    rows: tuple[CollectiveRow, ...]
    """By collective, then size."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``sharpen bench collectives --json`` prints it."""
        plain: dict[str, Any] = to_dict(self)
        return plain

    def _sizes(self) -> list[int]:
        return sorted({row.bytes for row in self.rows})

    def table(self) -> str:
        """GB/s as text, a line a size."""
        rates = {(row.kind, row.bytes): row.gb_s for row in self.rows}
        lines = [
            f"{self.world_size} processes, GB/s that each sends",
            "",
            f"{'size':>10}" + "".join(f"{kind:>16}" for kind in COLLECTIVES),
        ]
        for size in self._sizes():
            shown = f"{size / 2**20:.3g} MiB" if size >= 1 << 20 else f"{size / 2**10:.3g} KiB"
            lines.append(
                f"{shown:>10}" + "".join(f"{rates[kind, size]:>16.3f}" for kind in COLLECTIVES)
            )
        return "\n".join(lines)

    def sections(self) -> list[Section]:
        """The same for the report writer, with a chart."""
        sizes = self._sizes()
        rates = {(row.kind, row.bytes): row.gb_s for row in self.rows}
        names = [f"{size >> 10} KiB" for size in sizes]
        series = [Series(kind, names, [rates[kind, s] for s in sizes]) for kind in COLLECTIVES]
        rows = [[row.kind, row.bytes, row.seconds, row.gb_s] for row in self.rows]
        return [
            Section(
                "Collectives",
                [
                    Chart("Rate by size", series, "bytes", "GB/s a rank", log_y=True),
                    Table(["collective", "bytes", "seconds", "GB/s"], rows),
                ],
            )
        ]


def bench_collectives(
    nproc: int = 2,
    *,
    sizes: Sequence[int] = (1 << 12, 1 << 16, 1 << 20, 1 << 24),
    repeats: int = 10,
) -> CollectiveTimes:
    """Measure collectives between processes of this machine (gloo).

    Args:
        nproc: processes.
        sizes: bytes of the whole tensor; rounded up so that every rank has an equal part.
        repeats: timed rounds of each.

    Raises:
        ConfigError: fewer than two processes, or no size above 0.
        ExecutionError: a process failed, or a collective gave a wrong result.
    """
    if nproc < 2 or repeats < 1 or not sizes or min(sizes) < 1:
        raise ConfigError(
            f"nproc={nproc} must be at least 2, repeats={repeats} at least 1 and sizes={sizes} "
            "above 0."
        )
    with tempfile.TemporaryDirectory(prefix="sharpen-bench-") as name:
        folder = Path(name)
        request = {
            "folder": name,
            "world_size": nproc,
            "sizes": list(sizes),
            "repeats": repeats,
            "parent": os.getpid(),
        }
        (folder / "request.json").write_text(json.dumps(request))
        processes = []
        for rank in range(nproc):
            environment = {**worker_environment(), "OMP_NUM_THREADS": "1"}
            words = [str(folder / "request.json"), str(rank)]
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "sharpen.train.bench.collectives", *words],
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        told = [process.communicate()[1] for process in processes]
        for rank, process in enumerate(processes):
            if process.returncode:
                raise ExecutionError(
                    f"rank {rank} failed (exit code {process.returncode}): {told[rank][-800:]}"
                )
        return from_dict(CollectiveTimes, json.loads((folder / "answer.json").read_text()))


def _works(size: int, axis: Axis) -> dict[str, tuple[Callable[[], Any], Callable[[], bool]]]:
    """Each collective on ``size`` float32 numbers, and whether its result is right."""
    n, rank = axis.size, axis.rank
    whole = torch.empty(size)
    part, received = torch.empty(size // n), torch.empty(size)
    parts = list(received.chunk(n))

    def mine() -> Tensor:
        return torch.arange(size, dtype=torch.float32).remainder_(1021).add_(rank)

    source = mine()
    summed = n * torch.arange(size, dtype=torch.float32).remainder_(1021) + n * (n - 1) / 2
    share = slice(rank * (size // n), (rank + 1) * (size // n))

    def all_reduce() -> None:
        whole.copy_(source)
        dist.all_reduce(whole)

    def reduce_scatter() -> None:
        dist.reduce_scatter_tensor(part, source)

    def all_gather() -> None:
        dist.all_gather_into_tensor(received, source[share])

    def all_to_all() -> None:
        dist.all_to_all_single(received, source)

    def exchange() -> None:
        axis.exchange([[x] for x in source.chunk(n)], [[x] for x in parts])

    def exchanged() -> bool:
        return all(torch.equal(parts[r], source[share] - rank + r) for r in range(n) if r != rank)

    def gathered() -> bool:
        starts = torch.cat([source.chunk(n)[r] - rank + r for r in range(n)])
        return torch.equal(received, starts)

    return {
        "all_reduce": (all_reduce, lambda: torch.equal(whole, summed)),
        "reduce_scatter": (reduce_scatter, lambda: torch.equal(part, summed[share])),
        "all_gather": (all_gather, gathered),
        "all_to_all": (all_to_all, exchanged),
        "exchange": (exchange, exchanged),
    }


def main(path: str, rank: int) -> int:
    """One rank."""
    request = json.loads(Path(path).read_text())
    die_with_parent(request["parent"])
    world = request["world_size"]
    dist.init_process_group(
        "gloo",
        init_method=f"file://{request['folder']}/store",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=_TIMEOUT_S),
    )
    axis = Axis(dist.group.WORLD)
    rows = []
    for size in request["sizes"]:
        numbers = -(-size // (4 * world)) * world
        for kind, (work, right) in _works(numbers, axis).items():
            work()
            if not right():
                raise ExecutionError(f"{kind} of {4 * numbers} bytes gave a wrong result.")
            samples = []
            for _ in range(request["repeats"]):
                dist.barrier()
                begin = time.perf_counter()
                work()
                slowest = torch.tensor(time.perf_counter() - begin)
                dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
                samples.append(float(slowest))
            seconds = statistics.median(samples)
            factor = (2 if kind == "all_reduce" else 1) * (world - 1) / world
            rate = factor * 4 * numbers / seconds / 1e9
            rows.append(CollectiveRow(kind=kind, bytes=4 * numbers, seconds=seconds, gb_s=rate))
    rows.sort(key=lambda row: (COLLECTIVES.index(row.kind), row.bytes))
    if rank == 0:
        times = CollectiveTimes(world_size=world, rows=tuple(rows))
        (Path(request["folder"]) / "answer.json").write_text(json.dumps(to_dict(times)))
    dist.barrier()
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
