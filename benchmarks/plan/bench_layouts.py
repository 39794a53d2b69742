"""Are steps on thousands of devices foreseen, and how fast is the search for a layout?

Published steps: table 2 of Jiang et al., *MegaScale*, 2024, arXiv 2402.15627 (175 billion
parameters, tensor and pipeline degrees 8 and 8 with six chunks a stage, 80 GB A100), and the 70B
row of torchtitan's performance notes for 64 A100 (fully sharded, full recomputation). The claims:
within 10 % of MegaScale's step time at every size, within 15 % of torchtitan's, from published
peaks and one pair of assumed shares of them for the device; 1000 candidates take under a second.

    python -m benchmarks.plan.bench_layouts [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.common import OURS, PEER, arguments, save, summarize
from benchmarks.plan.shapes import GPT_175B, LLAMA3_70B

from sharpen.plan import Candidate, ClusterJob, parse_devices, search_layouts
from sharpen.plan.layout_cost import layout_cost

# Devices, sequences a step; seconds a step and MFU in percent, of Megatron-LM and of MegaScale.
MEGASCALE = [
    (256, 768, 40.0, 53.0, 32.0, 65.3),
    (512, 768, 21.2, 49.9, 16.5, 63.5),
    (768, 768, 15.2, 46.7, 11.5, 61.3),
    (1024, 768, 11.9, 44.7, 8.9, 59.0),
    (3072, 6144, 29.02, 48.7, 23.66, 59.1),
    (6144, 6144, 14.78, 47.8, 12.21, 57.3),
    (8192, 6144, 12.24, 43.3, 9.56, 54.9),
    (12288, 6144, 8.57, 41.2, 6.34, 55.2),
]
TORCHTITAN_70B_TOKENS_PER_S = 323  # a device


def _megascale() -> list[dict[str, Any]]:
    rows = []
    for devices, batch, megatron_s, megatron_mfu, megascale_s, megascale_mfu in MEGASCALE:
        job = ClusterJob(spec=GPT_175B, seq_len=2048, global_batch=batch)
        layout = Candidate(tp=8, pp=8, chunks=6, dp_shard=devices // 64, zero_stage=1)
        cost = layout_cost(job, layout, parse_devices(f"{devices}xA100"), causal=True)
        rows.append(
            {
                "devices": devices,
                "global_batch": batch,
                "foreseen_s": cost.step_s,
                "foreseen_mfu": 100 * cost.mfu,
                "megascale_s": megascale_s,
                "megascale_mfu": megascale_mfu,
                "megatron_s": megatron_s,
                "megatron_mfu": megatron_mfu,
                "error": cost.step_s / megascale_s - 1,
            }
        )
    return rows


def _torchtitan() -> dict[str, float]:
    job = ClusterJob(spec=LLAMA3_70B, seq_len=8192, global_batch=64)
    layout = Candidate(dp_shard=64, zero_stage=3, recompute="full")
    cost = layout_cost(job, layout, parse_devices("64xA100"))
    foreseen = cost.tokens_per_s / 64
    return {
        "foreseen_tokens_per_s": foreseen,
        "published_tokens_per_s": TORCHTITAN_70B_TOKENS_PER_S,
        "error": foreseen / TORCHTITAN_70B_TOKENS_PER_S - 1,
    }


def _search(repeats: int) -> list[dict[str, Any]]:
    rows = []
    for devices, all_axes in ((64, False), (1024, False), (64, True)):
        job = ClusterJob(spec=LLAMA3_70B, seq_len=8192, global_batch=1024)
        cluster = parse_devices(f"{devices}xH100")
        samples = []
        for _ in range(repeats):
            begin = time.perf_counter()
            found = search_layouts(job, cluster, all_axes=all_axes)
            samples.append((time.perf_counter() - begin) / found.tried * 1000)
        rows.append(
            {
                "devices": devices,
                "all_axes": all_axes,
                "tried": found.tried,
                "fitting": found.fitting,
                "samples_s": samples,
                "seconds_per_1000": summarize(samples),
            }
        )
    return rows


def main() -> None:
    """Foresee, compare, and check the claims."""
    args = arguments(__doc__, "plan_layouts")
    rows, titan, searches = _megascale(), _torchtitan(), _search(1 if args.quick else 5)
    for row in rows:
        print(
            f"{row['devices']:>6} devices  foreseen {row['foreseen_s']:6.2f} s "
            f"{row['foreseen_mfu']:.1f} %  MegaScale {row['megascale_s']:6.2f} s "
            f"{row['megascale_mfu']:.1f} %  error {row['error']:+.0%}"
        )
    print(f"70B on 64 A100: {titan['error']:+.0%}")
    for search in searches:
        median = search["seconds_per_1000"]["median"]
        print(f"{search['devices']} devices, {search['tried']} tried: {median:.3f} s per 1000")
    assert all(abs(row["error"]) < 0.10 for row in rows)
    assert abs(titan["error"]) < 0.15
    assert all(search["seconds_per_1000"]["median"] < 1 for search in searches)

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        devices = [row["devices"] for row in rows]
        for key, label, colour, style in (
            ("foreseen_mfu", "foreseen", OURS, "o-"),
            ("megascale_mfu", "MegaScale, published", PEER, "s--"),
            ("megatron_mfu", "Megatron-LM, published", "#888888", "^:"),
        ):
            axes.plot(devices, [row[key] for row in rows], style, color=colour, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("A100 devices (768 sequences a step to 1024, then 6144)")
        axes.set_ylabel("MFU, % (causal FLOPs)")
        axes.set_ylim(0, 75)
        worst = max(abs(row["error"]) for row in rows)
        axes.set_title(f"175B parameters: step times foreseen within {worst:.0%} of MegaScale's")
        axes.legend()

    config = {"sequence": 2048, "tp": 8, "pp": 8, "chunks": 6, "zero_stage": 1}
    results = {"megascale": rows, "torchtitan_70b": titan, "search": searches}
    save(args, results, config=config, plot=plot)


if __name__ == "__main__":
    main()
