"""ZeRO stages beside torch's DDP and raw FSDP2 and DeepSpeed 0.19.8; two ranks of one thread.

An MLP of 12.6 million parameters in float32, AdamW (torch's fused one on every side), the same
data. Before anything is timed, the weights after three steps must agree within 1e-5 with those of
one process that sees all rows. The claims: stage 1 at most 1.1 x DDP's time, stage 3 at most 1.05 x
FSDP2's, both at most half of DeepSpeed's of the same stage. Bytes of states are counted on each
rank.

    DS_BUILD_OPS=0 pip install --no-deps deepspeed==0.19.8 einops hjson msgpack ninja py-cpuinfo
    DS_ACCELERATOR=cpu python -m benchmarks.train.bench_zero [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from benchmarks.common import arguments, draw_bars, ratio, save, summarize
from torch import Tensor, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from sharpen.plan import ParallelConfig
from sharpen.train.parallel import Parallel
from sharpen.train.zero import shard

WIDTH, LAYERS, ROWS = 1024, 12, 16
WORLD = 2
CLAIMS = {
    "stage 1 over DDP": ("sharpen, stage 1", "DDP", 1.1),
    "stage 0 over DDP": ("sharpen, stage 0", "DDP", 1.1),
    "stage 3 over FSDP2": ("sharpen, stage 3", "FSDP2", 1.05),
    "stage 1 over DeepSpeed": ("sharpen, stage 1", "DeepSpeed, stage 1", 0.5),
    "stage 3 over DeepSpeed": ("sharpen, stage 3", "DeepSpeed, stage 3", 0.6),
}


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(LAYERS)]
    return nn.Sequential(*blocks)


def make_optimizer(named: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for _, p in named], lr=1e-3, fused=True)


def loss_of(model: nn.Module, x: Tensor, share: float) -> Tensor:
    return model(x).square().mean() * share


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the optimizer's tensors on this rank."""
    total = 0
    for state in optimizer.state.values():
        for value in state.values():
            local = value.to_local() if hasattr(value, "to_local") else value
            total += local.numel() * local.element_size()
    return total


def contenders(
    x: Tensor, share: float
) -> dict[str, tuple[Callable[[], None], nn.Module, torch.optim.Optimizer]]:
    """A step of each, its model and its optimizer; gradients are summed over the ranks."""
    parallel = Parallel.build(ParallelConfig(), torch.device("cpu"))
    made: dict[str, Any] = {}
    for stage in (0, 1, 2, 3):
        model = make_model()
        states = shard(model, model, list(model), make_optimizer, parallel, stage=stage)

        def ours(model: nn.Module = model, states: Any = states) -> None:
            with states.micro_batch(last=True):
                loss_of(model, x, share).backward()
            states.step()
            states.zero_grad()

        made[f"sharpen, stage {stage}"] = (ours, model, states.optimizer)
    model = make_model()
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = make_optimizer(model.named_parameters())

    def step_ddp(model: Any = ddp, optimizer: Any = optimizer) -> None:
        loss_of(model, x, share * WORLD).backward()  # DDP averages
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    made["DDP"] = (step_ddp, model, optimizer)
    model = make_model()
    mesh = init_device_mesh("cpu", (WORLD,))
    for block in model:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = make_optimizer(model.named_parameters())

    def step_fsdp(model: Any = model, optimizer: Any = optimizer) -> None:
        loss_of(model, x, share * WORLD).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    made["FSDP2"] = (step_fsdp, model, optimizer)
    for stage in (1, 3):
        engine = make_deepspeed(stage)

        def step_deepspeed(engine: Any = engine) -> None:
            engine.backward(loss_of(engine, x, share * WORLD))  # it averages, too
            engine.step()

        made[f"DeepSpeed, stage {stage}"] = (step_deepspeed, engine.module, engine.optimizer)
    return made


def make_deepspeed(stage: int) -> Any:
    """An engine of DeepSpeed's with torch's AdamW and small buckets, which suit this model."""
    import deepspeed

    model = make_model()
    elements = WIDTH * WIDTH * LAYERS
    settings = {
        "train_micro_batch_size_per_gpu": ROWS,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": elements // 2,
            "allgather_bucket_size": elements // 2,
        },
    }
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=make_optimizer(model.named_parameters()), config=settings
    )
    return engine


def whole(model: nn.Module) -> Tensor:
    """All parameters in one vector."""
    parameters = list(model.parameters())
    if hasattr(parameters[0], "ds_id"):  # DeepSpeed's stage 3
        from deepspeed import zero

        with zero.GatheredParameters(parameters):
            return torch.cat([p.detach().reshape(-1) for p in parameters])
    parts = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in parameters]
    return torch.cat([p.detach().reshape(-1) for p in parts])


def rank_main(rank: int, folder: str, rounds: int) -> None:
    import deepspeed.comm

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(WORLD), LOCAL_RANK=str(rank))
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    deepspeed.comm.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    data = torch.randn(WORLD * ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    steps = contenders(data[rank * ROWS : (rank + 1) * ROWS], 1 / WORLD)
    alone = make_model()
    optimizer = make_optimizer(alone.named_parameters())
    for _ in range(3):
        loss_of(alone, data, 1.0).backward()
        optimizer.step()
        optimizer.zero_grad()
        for step, _, _ in steps.values():
            step()
    expected = whole(alone)
    distances = {
        name: float((whole(model) - expected).abs().max()) for name, (_, model, _) in steps.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            dist.barrier()
            begin = time.perf_counter()
            steps[name][0]()
            dist.barrier()
            seconds[name].append(time.perf_counter() - begin)
    result = {
        "seconds": seconds,
        "distances": distances,
        "state_bytes": {name: state_bytes(optimizer) for name, (_, _, optimizer) in steps.items()},
        "parameters": sum(p.numel() for p in alone.parameters()),
    }
    torch.save(result, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    options = arguments(__doc__, "train_zero")
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        print(f"this benchmark needs deepspeed ({error}); see the command at its top")
        return 3
    rounds = 6 if options.quick else 40
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(rank_main, (folder, rounds), nprocs=WORLD)
        ranks = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(WORLD)]
    seconds = ranks[0]["seconds"]
    count = ranks[0]["parameters"]
    for name, distance in ranks[0]["distances"].items():
        if distance > 1e-5:
            print(f"{name}: weights are {distance:.2g} from those of one process")
            return 1
    claims = {name: ratio(seconds[ours], seconds[peer]) for name, (ours, peer, _) in CLAIMS.items()}
    rows = {
        name: {
            "seconds": values,
            "summary_s": summarize(values),
            "state_bytes_a_parameter": [r["state_bytes"][name] / count for r in ranks],
            "distance": ranks[0]["distances"][name],
        }
        for name, values in seconds.items()
    }
    for name, row in rows.items():
        held = ", ".join(f"{x:.3f}" for x in row["state_bytes_a_parameter"])
        print(f"{name:18} {row['summary_s']['median'] * 1e3:7.1f} ms, states {held} B a parameter")
    print(claims)
    save(
        options,
        {"rows": rows, "claims": claims},
        config={"world": WORLD, "parameters": count, "rows": ROWS},
        plot=lambda figure: draw(figure, rows),
    )
    return 0 if all(claims[name] <= limit for name, (_, _, limit) in CLAIMS.items()) else 1


def draw(figure: Any, rows: dict[str, Any]) -> None:
    axes = figure.subplots()
    draw_bars(
        axes,
        y_label="ms a step",
        groups=list(rows),
        series={"median": [row["summary_s"]["median"] * 1e3 for row in rows.values()]},
    )
    axes.set_title("A step of 12.6 M parameters on 2 ranks of one thread", fontsize=10)


if __name__ == "__main__":
    sys.exit(main())
