"""Times of a training step by module beside torch's profiler.

SmolLM2-135M (random weights of the same shape with ``--quick``: two layers), full fine-tuning in
float32, one sequence. Rounds of three alternate: whole steps, steps cut into parts, and whole steps
under ``torch.profiler``. The profiler adds up operations by name; ours adds up parts. Compared are
what both know: attention's kernels, matrix products (ours: every part that is products, with what
little else is in it), and the sum of everything. The loss of the cut step must be that of the
whole step. The claim: the parts sum to the whole step within 5 %.

    python -m benchmarks.train.bench_modules [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any

import torch
from benchmarks.common import arguments, draw_bars, save
from torch.profiler import ProfilerActivity, profile

from sharpen.core.huge_pages import has_huge_allocator, worker_environment
from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import DecoderLM
from sharpen.models.tile_sizes import logits_tile
from sharpen.plan.device import probe
from sharpen.train.bench.module_times import ModuleBench
from sharpen.train.bench.modules import measure_modules, random_batch, whole_step

PRODUCTS = ("qkv", "output", "gate and up", "down", "head and loss")


def make_model(quick: bool) -> DecoderLM:
    """SmolLM2-135M's shape with random weights: times do not depend on their values."""
    spec = ModelSpec(
        family="llama",
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=2 if quick else 30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        max_positions=2048,
        tie_word_embeddings=True,
        eos_token_ids=(2,),
    )
    model = DecoderLM(spec)
    model.init_weights(0)
    return model.train()


def profiled(model: DecoderLM, config: ModuleBench, steps: int) -> dict[str, float]:
    """Seconds a step as the profiler sums them: products, attention, all."""
    batch = random_batch(config, model.spec.vocab_size, 0)
    tile = logits_tile(model.spec.vocab_size)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(steps):
            model.zero_grad(set_to_none=True)
            whole_step(model, batch, torch.float32, tile)
    sums = {"products": 0.0, "attention": 0.0, "all": 0.0}
    for event in found.key_averages():
        seconds = event.self_cpu_time_total / 1e6 / steps
        sums["all"] += seconds
        if event.key in ("aten::mm", "aten::addmm", "aten::bmm"):
            sums["products"] += seconds
        elif "flash_attention" in event.key:
            sums["attention"] += seconds
    return sums


def main() -> int:
    if not has_huge_allocator():  # as a training's process is started
        return subprocess.call([sys.executable, *sys.orig_argv[1:]], env=worker_environment())
    options = arguments(__doc__, "train_modules")
    rounds, repeats, seq = (1, 1, 128) if options.quick else (3, 1, 256)
    model = make_model(options.quick)
    machine = probe()
    config = ModuleBench(seq_len=seq, repeats=repeats)
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(measure_modules(model, "SmolLM2-135M", config, machine))
        theirs.append(profiled(model, config, repeats))
    if any(abs(t.loss - t.loss_of_parts) > 1e-5 * t.loss for t in ours):
        print("the cut step has another loss than the whole step")
        return 1
    print(ours[-1].table())

    def seconds(parts: tuple[str, ...]) -> float:
        return statistics.median(sum(r.seconds for r in t.rows if r.part in parts) for t in ours)

    rows = {
        "products": {"ours": seconds(PRODUCTS)},
        "attention": {"ours": seconds(("attention",))},
        "all": {"ours": statistics.median(t.parts_s for t in ours)},
    }
    for name, row in rows.items():
        row["profiler"] = statistics.median(one[name] for one in theirs)
        row["ours_over_profiler"] = row["ours"] / row["profiler"]
        print(
            f"{name:10} ours {row['ours'] * 1e3:8.1f} ms, profiler {row['profiler'] * 1e3:8.1f} ms"
        )
    claims = {
        "parts over whole step": statistics.median(t.parts_s / t.step_s for t in ours),
        "step_s": statistics.median(t.step_s for t in ours),
    }
    print(claims)
    results = {
        "rows": rows,
        "claims": claims,
        "rounds": [t.to_dict() for t in ours],
        "profiler": theirs,
    }
    save(
        options,
        results,
        config={"layers": model.spec.num_layers, "seq_len": seq, "rounds": rounds},
        plot=lambda figure: draw(figure, ours[-1], claims["parts over whole step"]),
    )
    return 0 if abs(claims["parts over whole step"] - 1) <= (0.25 if options.quick else 0.05) else 1


def draw(figure: Any, times: Any, share: float) -> None:
    axes = figure.subplots()
    draw_bars(
        axes,
        y_label="ms a step",
        groups=[r.part for r in times.rows],
        series={
            "forward": [r.forward_s * 1e3 for r in times.rows],
            "backward": [r.backward_s * 1e3 for r in times.rows],
            "roof": [r.roof_s * 1e3 for r in times.rows],
        },
    )
    axes.tick_params(axis="x", rotation=30)
    axes.set_title(
        f"A step of SmolLM2-135M by module; the parts are {share:.0%} of the step", fontsize=10
    )


if __name__ == "__main__":
    sys.exit(main())
