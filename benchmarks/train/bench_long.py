"""Memory of long sequences: the tiled loss, and the longest sequence that trains in so much memory.

Part 1: cross entropy of 8192 tokens over 32,000 words, forward and backward, tiled and by torch
from whole logits, in float32. Loss and gradients must agree first. The claims: at most a quarter of
torch's extra memory (peak resident size in a fresh process each), at most 1.15 x its time (both in
one process, in turn).

Part 2: the longest sequence that a model trains on, on two ranks of one thread, within a limit of
resident memory a rank. Plain: FSDP2 as torch has it (stage 3), a sequence a rank, whole logits.
Sharpen: the trainer with ``zero_stage=3``, both ranks on one sequence, blocks computed again, their
inputs in a file, MLP and loss in tiles. Plain's lengths double until the limit is passed; ours are
four and eight times its longest. Then both train on as many tokens a step, at the longest length
that plain reaches, for their speed; ours a second time with the fewest savings that fit there,
which is what a user would take.

    python -m benchmarks.train.bench_long [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from benchmarks.common import arguments, draw_bars, interleave, ratio, save, summarize
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from sharpen.core.metrics import peak_rss_bytes
from sharpen.data import TokenDataset
from sharpen.data.formats import Document
from sharpen.data.shards import write_dataset
from sharpen.models import load_model
from sharpen.train import ActConfig, ParallelConfig, TrainConfig, Trainer, linear_cross_entropy

WORLD = 2
# Limit of resident memory, first length, rounds of the comparison of speed. The states of the large
# model and what loading it leaves take 3 GB of its limit.
MODELS = {"tiny": (768 << 20, 512, 5), "smollm2-135m-instruct": (4 << 30, 256, 1)}
SAVING = ActConfig(mode="full", offload="nvme", tiled_mlp="auto")
# From the cheapest on.
LADDER = {
    "tiled loss": ActConfig(),
    "tiled MLP": ActConfig(tiled_mlp="auto"),
    "selective": ActConfig(mode="selective"),
    "full": ActConfig(mode="full"),
}


def loss_case(tokens: int, vocabulary: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, 576, generator=generator).requires_grad_()
    weight = torch.randn(vocabulary, 576, generator=generator).mul_(0.05).requires_grad_()
    return hidden, weight, torch.randint(0, vocabulary, (tokens,), generator=generator)


def loss_gradients(kind: str, case: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    hidden, weight, labels = case
    if kind == "tiled":
        loss = linear_cross_entropy(hidden, weight, labels, scale=1 / len(labels))
    else:
        loss = F.cross_entropy(hidden @ weight.T, labels)
    return [loss.detach(), *torch.autograd.grad(loss, (hidden, weight))]


def loss_memory(kind: str, tokens: int, vocabulary: int) -> int:
    """Peak over what was resident before, in this process."""
    case = loss_case(tokens, vocabulary)
    loss_gradients(kind, tuple(x[:64] if i != 1 else x for i, x in enumerate(case)))
    before = peak_rss_bytes()
    loss_gradients(kind, case)
    return peak_rss_bytes() - before


def bench_loss(tokens: int, vocabulary: int, repeats: int) -> dict[str, Any]:
    case = loss_case(tokens, vocabulary)
    ours, plain = (loss_gradients(kind, case) for kind in ("tiled", "torch"))
    distances = [float((a - b).norm() / b.norm()) for a, b in zip(ours, plain, strict=True)]
    assert max(distances) < 1e-5, distances
    del ours, plain
    times = interleave(
        {kind: lambda kind=kind: loss_gradients(kind, case) for kind in ("tiled", "torch")},
        repeats=repeats,
    )
    extra = {kind: probe({"loss": kind, "shape": [tokens, vocabulary]}) for kind in times}
    return {
        "extra_bytes": extra,
        "seconds": times,
        "summary": {kind: summarize(samples) for kind, samples in times.items()},
        "memory_ratio": extra["tiled"] / extra["torch"],
        "time_ratio": 1 / ratio(times["torch"], times["tiled"]),
        "distances": distances,
    }


def plain_steps(model: Any, length: int, steps: int) -> list[float]:
    """Seconds of each step of FSDP2 alone, a sequence a rank."""
    mesh = init_device_mesh("cpu", (WORLD,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(dist.get_rank())
    seconds = []
    for _ in range(steps):
        ids = torch.randint(3, 4000, (1, length + 1), generator=generator)
        dist.barrier()
        begin = time.perf_counter()
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[0, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        dist.barrier()
        seconds.append(time.perf_counter() - begin)
    return seconds


class Clock:
    """Seconds of each step of the trainer."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_start(self, trainer: Trainer) -> None:
        """Nothing to do."""

    def on_step(self, trainer: Trainer, report: Any) -> None:
        """Keep the seconds."""
        self.seconds.append(report.seconds)


def sharpen_steps(
    model: Any, length: int, steps: int, rows: int, act: ActConfig, folder: Path
) -> list[float]:
    """Seconds of each step of the trainer, ``rows`` sequences on both ranks."""
    if dist.get_rank() == 0:
        ids = torch.randint(3, 4000, (rows, length + 1)).tolist()
        write_dataset(
            folder,
            {"train": [Document(row, [True] * len(row)) for row in ids]},
            max_tokens=length,
            packing=True,
            tokenizer_fingerprint="random",
            vocab_size=4096,
        )
    dist.barrier()
    config = TrainConfig(
        steps=steps,
        micro_batch=rows,
        global_batch=rows,
        act=act,
        parallel=ParallelConfig(sp=WORLD, zero_stage=3),
        lr=1e-4,
    )
    clock = Clock()
    trainer = Trainer(
        model, TokenDataset(folder, "train", tokenizer_fingerprint="random"), config,
        callbacks=[clock],
    )  # fmt: skip
    result = trainer.fit()
    assert result.skipped_steps == 0
    return clock.seconds


def rank_main(job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    rank, folder = int(sys.argv[3]), Path(job["folder"])
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    model = load_model(job["model"], dtype=torch.float32)
    model.requires_grad_(True)
    length, steps = job["length"], job["steps"]
    if job["act"] is None:
        seconds = plain_steps(model, length, steps)
    else:
        (folder / "data").mkdir(exist_ok=True)
        act = ActConfig(**job["act"])
        seconds = sharpen_steps(model, length, steps, job["rows"], act, folder / "data")
    found = {"seconds": seconds, "peak_bytes": peak_rss_bytes()}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def probe(job: dict[str, Any]) -> Any:
    """What fresh processes measure."""
    command = [sys.executable, "-m", "benchmarks.train.bench_long", "--probe", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def train(model: str, length: int, act: ActConfig | None, *, steps: int = 2, rows: int = 1) -> Any:
    """Highest resident memory of two ranks, and seconds of their slowest in each step."""
    with tempfile.TemporaryDirectory() as folder:
        options = None if act is None else {k: getattr(act, k) for k in act.__slots__}
        job = {"model": model, "length": length, "act": options, "steps": steps, "rows": rows}
        payload = json.dumps({**job, "folder": folder})
        command = [sys.executable, "-m", "benchmarks.train.bench_long", "--rank", payload]
        ranks = [
            subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True)
            for rank in range(WORLD)
        ]
        errors = [rank.communicate()[1] for rank in ranks]
        assert not any(rank.returncode for rank in ranks), errors[0]
        found = [json.loads((Path(folder) / f"{r}.json").read_text()) for r in range(WORLD)]
    return {
        "length": length,
        "peak_bytes": max(f["peak_bytes"] for f in found),
        "seconds": [max(pair) for pair in zip(*(f["seconds"] for f in found), strict=True)],
    }


def longest(model: str, act: ActConfig | None, limit: int, lengths: list[int]) -> list[Any]:
    """Measurements at growing lengths, until the limit is passed."""
    found = []
    for length in lengths:
        found.append(train(model, length, act))
        if found[-1]["peak_bytes"] > limit:
            break
    return found


def fitting(found: list[Any], limit: int) -> int:
    return max((f["length"] for f in found if f["peak_bytes"] <= limit), default=0)


def fewest(model: str, length: int, limit: int) -> tuple[str, ActConfig]:
    """The cheapest savings with which a model trains within the limit."""
    for name, act in LADDER.items():
        if train(model, length, act, rows=WORLD)["peak_bytes"] <= limit:
            return name, act
    return "all savings", SAVING


def bench_model(model: str, *, quick: bool) -> dict[str, Any]:
    limit, first, rounds = MODELS[model]
    rungs = [first * 2**i for i in range(2 if quick else 8)]
    plain = longest(model, None, limit, rungs)
    reached = fitting(plain, limit)
    assert reached, f"{model} does not train at all within {limit} bytes"
    factors = (2,) if quick else (4, 8)
    ours = longest(model, SAVING, limit, [reached * factor for factor in factors])
    speeds: dict[str, list[float]] = {}
    contenders = {"plain": None, "all savings": SAVING}
    contenders |= dict([fewest(model, reached, limit)])
    for _ in range(1 if quick else rounds):
        for name, act in contenders.items():
            done = train(model, reached, act, steps=2 if quick else 3, rows=WORLD)
            step = statistics.median(done["seconds"][1:])
            speeds.setdefault(name, []).append(WORLD * reached / step)
    base = statistics.median(speeds["plain"])
    return {
        "limit_bytes": limit,
        "plain": plain,
        "ours": ours,
        "longest": {"plain": reached, "ours": fitting(ours, limit)},
        "tokens_per_s": speeds,
        "speed_ratio": {n: statistics.median(v) / base for n, v in speeds.items() if n != "plain"},
    }


def plot(results: dict[str, Any]) -> Any:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        models = results["models"]
        draw_bars(
            left,
            y_label="longest sequence (tokens)",
            groups=[f"{n}\n{m['limit_bytes'] / 2**30:.2f} GiB a rank" for n, m in models.items()],
            series={
                "Sharpen": [m["longest"]["ours"] for m in models.values()],
                "FSDP2 alone": [m["longest"]["plain"] for m in models.values()],
            },
        )
        left.set_title("two ranks, stage 3", fontsize=9)
        loss = results["loss"]
        draw_bars(
            right,
            y_label="of torch's whole logits",
            groups=["extra memory", "time"],
            series={"tiled loss": [loss["memory_ratio"], loss["time_ratio"]], "torch": [1.0, 1.0]},
        )
        right.set_title("cross entropy, 8192 x 32,000", fontsize=9)

    return draw


def main() -> None:
    if sys.argv[1:2] == ["--rank"]:
        rank_main(json.loads(sys.argv[2]))
        return
    if sys.argv[1:2] == ["--probe"]:
        job = json.loads(sys.argv[2])
        print(loss_memory(job["loss"], *job["shape"]))
        return
    args = arguments(__doc__, "train_long")
    shape = (1024, 8000) if args.quick else (8192, 32_000)
    results: dict[str, Any] = {"loss": bench_loss(*shape, repeats=2 if args.quick else 5)}
    loss = results["loss"]
    print(f"tiled loss: {loss['memory_ratio']:.3f} x memory, {loss['time_ratio']:.2f} x time")
    results["models"] = {}
    for model in ["tiny"] if args.quick else list(MODELS):
        found = results["models"][model] = bench_model(model, quick=args.quick)
        print(f"{model}: {found['longest']}, speed {found['speed_ratio']}")
    config = {"shape": shape, "world": WORLD, "threads": 1, "models": MODELS}
    save(args, results, config=config, plot=plot(results))


if __name__ == "__main__":
    main()
