"""Processes that start with torch loaded, alone or as the ranks of a gloo group."""

import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

TIMEOUT_S = 240
# Loaded once by a server that processes are forked from: each would take seconds to do so.
PRELOADED = [
    "torch._dynamo",
    "torch.distributed.fsdp",
    "sharpen.models.load",
    "sharpen.train.trainer",
]


def process(target: Callable[..., Any], *args: Any) -> Any:
    """A process, not started, that will call ``target(*args)`` with torch loaded.

    Args:
        target: a function of a module of tests.
        args: what it is given; must survive pickling.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context.Process(target=target, args=args)


def run(target: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
    """Call ``target(*args)`` on every rank of a gloo group; returns what each rank returned.

    Args:
        target: a function of a test module; its result must survive ``torch.save``.
        world_size: processes.
        args: for every rank alike.

    Raises:
        AssertionError: a rank failed, or the ranks hang; with the traceback of
            the first that did.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = folder, dict(os.environ), target, args
        ranks = [process(_rank, rank, world_size, *given) for rank in range(world_size)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(TIMEOUT_S)
        late = [number for number, rank in enumerate(ranks) if rank.is_alive()]
        for rank in ranks:
            rank.kill()
            rank.join()
        failures = sorted(folder.glob("*.error"), key=lambda path: path.stat().st_mtime_ns)
        assert not failures, f"rank {failures[0].stem} failed:\n{failures[0].read_text()}"
        assert not late, f"ranks {late} were not done after {TIMEOUT_S} s"
        codes = [rank.exitcode for rank in ranks]
        assert codes == [0] * world_size, f"exit codes {codes}"
        paths = [folder / f"{number}.result" for number in range(world_size)]
        return [torch.load(path, weights_only=False) for path in paths]


def _rank(
    rank: int,
    world_size: int,
    folder: Path,
    environment: dict[str, str],
    target: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    os.environ.clear()
    os.environ.update(environment)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=TIMEOUT_S),
        )
        torch.save(target(*args), folder / f"{rank}.result")
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
        raise
