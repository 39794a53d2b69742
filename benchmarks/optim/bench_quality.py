"""Loss, states and step time of every optimizer on one task, tuned the same way for all.

A small Llama (hidden 128, 3 layers, 0.66 M parameters) on bytes of the Python standard library: 16
sequences of 64 bytes a step, warm-up over a tenth, cosine to a tenth, no decay, no clipping. Each
method gets the same budget: five learning rates, a factor of two and a half apart around what its
authors advise, 150 steps and one seed each; the best then runs 300 steps with three seeds. Low-rank
methods have rank 32, a quarter of the hidden size, and refresh every 50 steps.

What is tested: APOLLO within 2 % of AdamW at a quarter of its states, and the other orders in
``CLAIMS``. They are printed as found, reproduced or not. A short run favours fast starters.

    python -m benchmarks.optim.bench_quality [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import concurrent.futures
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib
import torch
from benchmarks.common import RESULTS, arguments, save
from torch import Tensor

from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import DecoderLM
from sharpen.optim import create
from sharpen.optim.bench.workloads.text import load_bytes
from sharpen.optim.schedules import Schedule

LENGTH, BATCH, SCREEN, STEPS, SEEDS, EVERY = 64, 16, 150, 300, 3, 50
FACTORS = (0.16, 0.4, 1.0, 2.5, 6.25)
RANK, GAP = 32, 50
LOW = {"rank": RANK, "update_proj_gap": GAP}
# Name: optimizer, the learning rate in the middle, options.
METHODS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "adamw": ("adamw", 3e-3, {"betas": (0.9, 0.95)}),
    "adamw 8-bit": ("adamw_8bit", 3e-3, {"betas": (0.9, 0.95)}),
    "lion": ("lion", 4e-4, {}),
    "lion 8-bit": ("lion_8bit", 4e-4, {}),
    "adafactor": ("adafactor", 1e-2, {}),
    "lamb": ("lamb", 1e-2, {}),
    "schedule-free": ("schedule_free_adamw", 6e-3, {}),
    "muon": ("muon", 3e-3, {"adjust": "match_rms_adamw"}),
    "soap": ("soap", 3e-3, {}),
    "cosmos": ("cosmos", 3e-3, {"rank": RANK}),
    "apollo": ("apollo", 1e-2, LOW),
    "apollo-mini": ("apollo_mini", 1e-2, {"update_proj_gap": GAP}),
    "galore": ("galore", 1e-2, LOW),
    "fira": ("fira", 1e-2, LOW),
    "frugal 0.25": ("frugal", 3e-3, {"update_gap": GAP, "density": 0.25}),
    "frugal 0": ("frugal", 3e-3, {"update_gap": GAP, "density": 0.0}),
    "badam": ("badam", 3e-3, {"update_gap": GAP}),
}
# Claim: method, factor, methods whose least loss times the factor it is at most.
CLAIMS: dict[str, tuple[str, float, tuple[str, ...]]] = {
    "APOLLO within 2 % of AdamW": ("apollo", 1.02, ("adamw",)),
    "APOLLO-Mini within 4 % of AdamW": ("apollo-mini", 1.04, ("adamw",)),
    "8-bit AdamW within 0.5 % of AdamW": ("adamw 8-bit", 1.005, ("adamw",)),
    "8-bit Lion within 0.5 % of Lion": ("lion 8-bit", 1.005, ("lion",)),
    "Lion within 2 % of AdamW": ("lion", 1.02, ("adamw",)),
    "COSMOS within 0.5 % of Muon and SOAP": ("cosmos", 1.005, ("muon", "soap")),
    "FRUGAL 0.25 below GaLore": ("frugal 0.25", 1.0, ("galore",)),
    "FRUGAL 0.25 below BAdam": ("frugal 0.25", 1.0, ("badam",)),
    "FRUGAL 0 below BAdam": ("frugal 0", 1.0, ("badam",)),
}


def make_model(seed: int) -> DecoderLM:
    spec = ModelSpec(
        family="llama",
        vocab_size=128,
        hidden_size=128,
        intermediate_size=344,
        num_layers=3,
        num_heads=4,
        num_kv_heads=4,
        head_dim=32,
        max_positions=LENGTH,
    )
    model = DecoderLM(spec)
    model.init_weights(seed)
    return model.train().requires_grad_(True)


def loss_of(model: DecoderLM, rows: Tensor) -> Tensor:
    logits = model(rows[:, :-1])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def run(name: str, lr: float, seed: int, steps: int) -> dict[str, Any]:
    """One training: its validation losses, bytes of states, and seconds in the optimizer."""
    torch.set_num_threads(1)
    kind, _, options = METHODS[name]
    data = load_bytes()
    train, held = data["train"][0], data["validation"][0][:256]
    model = make_model(seed)
    optimizer = create(kind, model, lr=lr, weight_decay=0.0, **options)
    constant = kind == "schedule_free_adamw"
    schedule = Schedule(steps=steps, kind="constant" if constant else "cosine", warmup=0.1)
    generator = torch.Generator().manual_seed(seed)
    curve, spent = [], 0.0
    for step in range(steps):
        rows = train[torch.randint(0, len(train), (BATCH,), generator=generator)]
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("peak", group["lr"]) * schedule.factor(step)
        loss = loss_of(model, rows)
        loss.backward()
        begin = time.thread_time()
        optimizer.step()
        spent += time.thread_time() - begin
        optimizer.zero_grad()
        if not math.isfinite(loss.item()):
            return {"loss": math.inf, "curve": curve, "state_bytes": 0, "step_s": math.nan}
        if (step + 1) % min(EVERY, steps) == 0:
            swap = getattr(optimizer, "eval", None)
            if swap is not None:
                swap()
            with torch.no_grad():
                curve.append(float(loss_of(model, held)))
            if swap is not None:
                optimizer.train()
    count = sum(p.numel() for p in model.parameters())
    return {
        "loss": curve[-1],
        "curve": curve,
        "state_bytes": optimizer.state_bytes() / count,
        "step_s": spent / steps,
    }


def key_of(name: str, lr: float, seed: int, steps: int) -> str:
    return f"{name}/{lr:.6g}/{seed}/{steps}"


def run_all(
    jobs: list[tuple[str, float, int, int]], journal: Path, processes: int
) -> dict[str, dict[str, Any]]:
    """All trainings; those in the journal are not run again."""
    done: dict[str, dict[str, Any]] = {}
    if journal.exists():
        for line in journal.read_text().splitlines():
            row = json.loads(line)
            done[row["key"]] = row
    left = [job for job in jobs if key_of(*job) not in done]
    context = multiprocessing.get_context("forkserver")
    with concurrent.futures.ProcessPoolExecutor(processes, context) as pool:
        running = {pool.submit(run, *job): job for job in left}
        for future in concurrent.futures.as_completed(running):
            row = {"key": key_of(*running[future]), **future.result()}
            done[row["key"]] = row
            with journal.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row["key"], round(row["loss"], 4), flush=True)
    return {key_of(*job): done[key_of(*job)] for job in jobs}


def main() -> int:
    options = arguments(__doc__, "optim_quality")
    screen, steps = (20, 20) if options.quick else (SCREEN, STEPS)
    names = ["adamw", "apollo-mini"] if options.quick else list(METHODS)
    journal = Path(os.environ.get("BENCH_JOURNAL", RESULTS / "optim_quality.jsonl"))
    processes = len(os.sched_getaffinity(0))
    grid = {name: [METHODS[name][1] * f for f in FACTORS] for name in names}
    screened = run_all(
        [(name, lr, 0, screen) for name in names for lr in grid[name]], journal, processes
    )
    best = {
        name: min(grid[name], key=lambda lr: screened[key_of(name, lr, 0, screen)]["loss"])
        for name in names
    }
    finals = run_all(
        [(name, best[name], seed, steps) for name in names for seed in range(1, SEEDS + 1)],
        journal,
        processes,
    )
    rows = {}
    for name in names:
        runs = [finals[key_of(name, best[name], seed, steps)] for seed in range(1, SEEDS + 1)]
        losses = [one["loss"] for one in runs]
        rows[name] = {
            "lr": best[name],
            "at_the_edge": best[name] in (grid[name][0], grid[name][-1]),
            "screen": {
                f"{lr:.3g}": screened[key_of(name, lr, 0, screen)]["loss"] for lr in grid[name]
            },
            "losses": losses,
            "mean": statistics.mean(losses),
            "std": statistics.stdev(losses),
            "curves": [one["curve"] for one in runs],
            "state_bytes_per_param": runs[0]["state_bytes"],
            "step_ms": min(one["step_s"] for one in runs) * 1e3,
        }
        r = rows[name]
        print(f"{name:14} lr {r['lr']:.2g} loss {r['mean']:.4f} +- {r['std']:.4f}")
    claims = {}
    if not options.quick:
        for claim, (ours, factor, others) in CLAIMS.items():
            least = min(rows[other]["mean"] for other in others)
            claims[claim] = {
                "ratio": rows[ours]["mean"] / least,
                "reproduced": rows[ours]["mean"] <= factor * least,
            }
            print(claim, claims[claim])
    save(
        options,
        {"rows": rows, "claims": claims},
        config={"steps": steps, "screen": screen, "batch": BATCH, "length": LENGTH, "rank": RANK},
        plot=lambda figure: draw(figure, rows),
    )
    return 0


def draw(figure: Any, rows: dict[str, Any]) -> None:
    figure.set_size_inches(11, 5)
    left, right = figure.subplots(1, 2)
    colours = matplotlib.colormaps["tab20"]
    for number, (name, row) in enumerate(rows.items()):
        colour = colours(number % 20)
        curves = list(zip(*row["curves"], strict=True))
        steps = [EVERY * (i + 1) for i in range(len(curves))]
        means = [statistics.mean(values) for values in curves]
        spread = [statistics.stdev(values) for values in curves]
        left.plot(steps, means, color=colour, label=name, lw=1)
        low = [m - s for m, s in zip(means, spread, strict=True)]
        high = [m + s for m, s in zip(means, spread, strict=True)]
        left.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
        right.errorbar(
            row["state_bytes_per_param"], row["mean"], yerr=row["std"], fmt="o", color=colour, ms=4
        )
        at = row["state_bytes_per_param"], row["mean"]
        right.annotate(name, at, xytext=(4, 2), textcoords="offset points", fontsize=7)
    left.set_xlabel("steps")
    left.set_ylabel("validation loss, nats a byte")
    left.set_title("Mean and standard deviation of three seeds", fontsize=10)
    left.legend(fontsize=6, ncols=2)
    right.set_xscale("log")
    right.set_xlabel("bytes of state a parameter")
    right.set_title("At the end, each at its best learning rate of five", fontsize=10)


if __name__ == "__main__":
    sys.exit(main())
