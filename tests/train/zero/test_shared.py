"""Tensors that ranks read from each other, and the same training with and without them."""

import itertools
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from distributed import run
from sharpen.plan import ParallelConfig
from sharpen.train.parallel import Parallel
from sharpen.train.shared_memory import SharedMemory
from sharpen.train.zero.flat import FlatStates
from sharpen.train.zero.local_collectives import LocalGather, LocalReduceScatter
from sharpen.train.zero.sharded import ShardedStates
from sharpen.train.zero.shared import SharedTensor

LENGTH = 700_001  # several blocks of a megabyte, and a part of one
PARTS = [(0, 300_000), (300_000, 300_000), (300_000, LENGTH)]  # rank 1 adds nothing


def share(dtype: torch.dtype) -> Tensor:
    """Each rank's tensor once it has added the others' to its part and read theirs."""
    shared = SharedTensor.open(LENGTH, dtype, dist.group.WORLD)
    assert shared is not None and not shared.tensor.any()
    assert shared.tensor.data_ptr() % (2 << 20) == 0  # where huge pages can begin
    shared.tensor.copy_(torch.arange(LENGTH) % 64 * 10**shared.rank)
    shared.meet()
    shared.add(*PARTS[shared.rank])
    shared.meet()
    for other in {0, 1, 2} - {shared.rank}:
        shared.read(other, *PARTS[other])
    shared.meet()
    return shared.tensor.clone()


def num_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def share_all() -> dict[str, Any]:
    found: dict[str, Any] = {"sums": [share(dtype) for dtype in (torch.float32, torch.float64)]}
    before = num_files()
    share(torch.float32)
    poor = mock.patch("os.posix_fallocate", side_effect=OSError)
    with poor if dist.get_rank() == 1 else nullcontext():
        found["opened"] = SharedTensor.open(5, torch.float32, dist.group.WORLD) is not None
    found["files"] = num_files() - before
    return found


def test_ranks_add_and_read_each_others_tensors() -> None:
    expected = torch.arange(LENGTH) % 64 * 111
    for rank in run(share_all, 3):
        for found in rank["sums"]:
            assert torch.equal(found, expected.to(found.dtype))
        assert not rank["opened"]  # one rank has no memory to share: none does
        assert rank["files"] == 0


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 33), nn.Tanh(), nn.Linear(33, 5), nn.LayerNorm(5))


def make_optimizer(named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for _, p in named], lr=0.1)


def train(stage: int, dtype: torch.dtype, shared_memory: bool) -> dict[str, Any]:
    parallel = Parallel.build(ParallelConfig(), torch.device("cpu"))
    model = make_model()
    options: dict[str, Any] = {"param_dtype": dtype, "shared_memory": shared_memory}
    states: FlatStates | ShardedStates
    if stage < 2:
        states = FlatStates(
            model, make_optimizer, parallel, stage=stage, bucket_bytes=256, **options
        )
        shared = states._shared_grads is not None
    else:
        units = [model[0], model[2]]
        states = ShardedStates(
            model, model, units, make_optimizer, parallel, stage=stage, **options
        )
        shared = states._memory is not None
    kind = torch.float32 if stage > 1 else next(model.parameters()).dtype
    generator = torch.Generator().manual_seed(parallel.rank)
    norms = []
    for _ in range(3):
        for last in (False, True):
            x = torch.randn(4, 7, generator=generator, dtype=torch.float32).to(kind)
            with states.micro_batch(last=last):
                model(x).float().pow(3).sum().backward()
        norms.append(states.clip_grad_norm(1.0))
        states.step()
        states.zero_grad()
    whole = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    weights = torch.cat([p.detach().reshape(-1) for p in whole])
    return {"norms": norms, "weights": weights, "shared": shared}


CASES = [
    *((0, torch.float32), (1, torch.float32), (1, torch.bfloat16)),
    *((2, torch.float32), (3, torch.float32), (3, torch.bfloat16)),
]


def train_both() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(train(*case, True), train(*case, False)) for case in CASES]


def test_two_ranks_that_share_memory_train_to_the_bit_as_with_messages() -> None:
    ranks = run(train_both, 2)
    for case, (read, sent) in itertools.chain(*(zip(CASES, rank, strict=True) for rank in ranks)):
        assert read["shared"] and not sent["shared"]
        assert read["norms"] == sent["norms"] and min(read["norms"]) > 1, case
        assert torch.equal(read["weights"], sent["weights"]), case
    for mine, other in zip(*ranks, strict=True):
        assert torch.equal(mine[0]["weights"], other[0]["weights"])
    start = torch.cat([p.detach().reshape(-1) for p in make_model().parameters()])
    assert (ranks[0][0][0]["weights"] - start).abs().mean() > 0.01


SIZES = (1, 1000, 1_100_001)  # of a rank's part: within a block, and over some


def collect() -> list[dict[str, Any]]:
    """What gathering and summing through memory give, and what the group's own do."""
    rank, world = dist.get_rank(), dist.get_world_size()
    memory = SharedMemory.open(dist.group.WORLD)
    assert memory is not None
    gather, reduce = (kind(memory, rank, world) for kind in (LocalGather, LocalReduceScatter))
    out = []
    for size in SIZES:
        generator = torch.Generator().manual_seed(rank)
        parts = torch.randint(-50, 50, (world, size), generator=generator).float()
        gathered, mine = torch.empty(world * size), torch.empty(size)
        gather(gathered, parts[0].contiguous(), dist.group.WORLD)
        reduce(mine, parts.view(-1), dist.group.WORLD, dist.ReduceOp.SUM)
        everybody = [torch.empty_like(parts) for _ in range(world)]
        dist.all_gather(everybody, parts)
        out.append(
            {
                "gathered": torch.equal(gathered, torch.cat([p[0] for p in everybody])),
                "summed": torch.equal(mine, torch.stack([p[rank] for p in everybody]).sum(0)),
            }
        )
    return out


def test_parts_are_gathered_and_summed_through_memory() -> None:
    for rank in run(collect, 3):
        assert rank == [{"gathered": True, "summed": True}] * len(SIZES)
