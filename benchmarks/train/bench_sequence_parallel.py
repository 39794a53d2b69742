"""Attention over two ranks beside ``deepspeed`` 0.19.8: Ulysses forward and backward.

Two processes of one thread each share a sequence over gloo. In turn, each round, all run

    sharpen     ulysses_attention
    deepspeed   deepspeed.sequence.layer.DistributedAttention around torch's attention
    floor       torch's attention of the rank's heads over the whole sequence, without any exchange

from the same q, k and v, from one barrier to the next. The overhead of a side is its time less the
floor's. Outputs and gradients of both sides must agree to 1e-5 before anything is timed. Heads that
do not divide by the ranks (9 over 3 on two) have no peer: gloo refuses deepspeed's exchange.

    DS_BUILD_OPS=0 pip install --no-deps deepspeed==0.19.8 einops hjson msgpack ninja py-cpuinfo
    DS_ACCELERATOR=cpu python -m benchmarks.train.bench_sequence_parallel [--json OUT] [--quick]
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, draw_bars, ratio, save, summarize

RANKS = 2
HEAD_DIM = 64
WANTED_OVERHEAD = 0.5
CASES = [
    {"name": "8/8, 4096", "heads": 8, "kv_heads": 8, "tokens": 4096, "causal": True},
    {"name": "8/2, 4096", "heads": 8, "kv_heads": 2, "tokens": 4096, "causal": True},
    {"name": "9/3, 4096", "heads": 9, "kv_heads": 3, "tokens": 4096, "causal": True},
    {"name": "8/8, 1024", "heads": 8, "kv_heads": 8, "tokens": 1024, "causal": True},
    {"name": "8/2, 1024", "heads": 8, "kv_heads": 2, "tokens": 1024, "causal": True},
    {"name": "8/2, 512", "heads": 8, "kv_heads": 2, "tokens": 512, "causal": True},
    {"name": "9/3, 512", "heads": 9, "kv_heads": 3, "tokens": 512, "causal": True},
]


def rank_main(rank: int, folder: str, cases: list[dict[str, Any]], rounds: int) -> None:
    """Time every case on one rank; rank 0 writes what it saw."""
    import deepspeed.comm
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(RANKS), LOCAL_RANK=str(rank))
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    deepspeed.comm.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    results = [measure(case, rounds) for case in cases]
    if rank == 0:
        (Path(folder) / "results.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


def measure(case: dict[str, Any], rounds: int) -> dict[str, Any]:
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    from deepspeed.sequence.layer import DistributedAttention

    from sharpen.train.comm import Axis
    from sharpen.train.sp import ulysses_attention
    from sharpen.train.sp.heads import share_heads

    heads, kv_heads, causal = case["heads"], case["kv_heads"], case["causal"]
    local = case["tokens"] // RANKS
    torch.manual_seed(dist.get_rank())
    q, k, v, grad = (torch.randn(1, local, n, HEAD_DIM) for n in (heads, kv_heads, kv_heads, heads))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    axis = Axis(dist.group.WORLD)

    def torch_attention(q: Any, k: Any, v: Any, *args: Any) -> Any:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        return out.transpose(1, 2)

    distributed = DistributedAttention(torch_attention, dist.group.WORLD)

    def ours() -> Any:
        return ulysses_attention(q, k, v, group=axis, causal=causal)

    def peer() -> Any:
        return distributed(q, k, v, 0)

    share = share_heads(heads, kv_heads, RANKS)[axis.rank]
    own_keys = share.num_keys if share.kv_index(q.device) is None else share.num_queries
    shapes = [(1, case["tokens"], n, HEAD_DIM) for n in (share.num_queries, own_keys, own_keys)]
    whole = [torch.randn(shape, requires_grad=True) for shape in shapes]
    whole_grad = torch.randn(shapes[0])

    def run(work: Callable[[], Any], weight: Any, inputs: list[Any]) -> Any:
        out = work()
        return out, torch.autograd.grad(out, inputs, weight)

    contenders: dict[str, Callable[[], Any]] = {
        "sharpen": lambda: run(ours, grad, leaves),
        "deepspeed": lambda: run(peer, grad, leaves),
        "floor": lambda: run(lambda: torch_attention(*whole), whole_grad, whole),
    }
    difference = None
    if heads % RANKS:
        del contenders["deepspeed"]
    else:
        (out, grads), (peer_out, peer_grads) = contenders["sharpen"](), contenders["deepspeed"]()
        pairs = [(out, peer_out), *zip(grads, peer_grads, strict=True)]
        difference = max(float((a - b).detach().abs().max()) for a, b in pairs)
        assert difference < 1e-5, f"{case['name']}: results differ by {difference}"
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    axis.reset()
    for number in range(rounds + 1):
        for name, work in contenders.items():
            dist.barrier()
            begin = time.perf_counter()
            work()
            dist.barrier()
            if number:
                samples[name].append(time.perf_counter() - begin)
    return {
        **case,
        "seconds": samples,
        "difference": difference,
        "bytes_sent": axis.bytes_sent // (rounds + 1),
    }


def summary_of(found: dict[str, Any]) -> dict[str, Any]:
    """Overheads over the floor, paired by round."""
    seconds = found["seconds"]
    overheads = {
        name: statistics.median(a - b for a, b in zip(samples, seconds["floor"], strict=True))
        for name, samples in seconds.items()
        if name != "floor"
    }
    summary: dict[str, Any] = {
        "summary_s": {name: summarize(samples) for name, samples in seconds.items()},
        "overhead_s": overheads,
    }
    if "deepspeed" in seconds:
        summary["speed_ratio"] = ratio(seconds["deepspeed"], seconds["sharpen"])
        summary["overhead_ratio"] = overheads["sharpen"] / overheads["deepspeed"]
    return summary


def main() -> int:
    args = arguments(__doc__, "train_sequence_parallel")
    try:
        import deepspeed.sequence.layer  # noqa: F401
    except ImportError as error:
        print(f"this benchmark needs deepspeed ({error}); see the command at its top")
        return 3
    from torch import multiprocessing

    rounds = 2 if args.quick else 7
    cases = [case for case in CASES if not args.quick or case["tokens"] == 1024]
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(rank_main, (folder, cases, rounds), nprocs=RANKS)
        results = json.loads((Path(folder) / "results.json").read_text())
    for found in results:
        found.update(summary_of(found))
        totals = {n: round(v["median"] * 1e3, 1) for n, v in found["summary_s"].items()}
        overheads = {n: round(v * 1e3, 1) for n, v in found["overhead_s"].items()}
        print(found["name"], "total ms", totals, "overhead ms", overheads, flush=True)
        if "speed_ratio" in found:
            print(f"  overhead {found['overhead_ratio']:.2f} x, speed {found['speed_ratio']:.2f} x")

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        draw_bars(
            axes,
            y_label="overhead over local attention, ms",
            groups=[found["name"] for found in results],
            series={
                name: [found["overhead_s"].get(name, 0.0) * 1e3 for found in results]
                for name in ("sharpen", "deepspeed")
            },
        )
        axes.set_xlabel("query/key heads, tokens")
        axes.set_title(f"{results[0]['overhead_ratio']:.2f} x the overhead at {CASES[0]['name']}")

    config = {
        "ranks": RANKS,
        "threads": 1,
        "head_dim": HEAD_DIM,
        "dtype": "float32",
        "wanted": {"overhead_ratio": WANTED_OVERHEAD, "speed_ratio": 1.0},
    }
    save(args, results, config=config, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
