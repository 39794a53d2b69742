"""Does the plan come true? Foreseen against measured memory and step time, over many recipes.

Each recipe (model, method, type, batch, length, checkpointing) is run for a few steps by
``sharpen.run``, in its own process, and its summary gives both numbers. The claim: peak memory
within 10 %, step time within 30 %.

    python -m benchmarks.plan.bench_plan [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, save

import sharpen as sh

SMOL = "smollm2-135m-instruct"
DATA: dict[str, Any] = {
    "source": {"asset": "python-stdlib", "view": "docstrings"},
    "format": "prompt_completion",
    "limit": 1500,
    "packing": True,
}
TEXT: dict[str, Any] = {
    "source": {"asset": "python-stdlib", "view": "text"},
    "format": "text",
    "limit": 100,
    "packing": True,
}
# name, model, data, length, train
RECIPES: list[tuple[str, str, dict[str, Any], int, dict[str, Any]]] = [
    ("lora bf16 512", SMOL, DATA, 512, {"method": "lora", "dtype": "bfloat16", "global_batch": 2}),
    (
        "lora bf16 512 x4",
        SMOL,
        DATA,
        512,
        {"method": "lora", "dtype": "bfloat16", "global_batch": 4, "micro_batch": 4},
    ),
    (
        "lora bf16 1024 ckpt",
        SMOL,
        DATA,
        1024,
        {"method": "lora", "dtype": "bfloat16", "global_batch": 1, "act": {"mode": "full"}},
    ),
    ("lora fp32 512", SMOL, DATA, 512, {"method": "lora", "global_batch": 1, "rank": 64}),
    ("lora bf16 text 512", SMOL, TEXT, 512, {"method": "lora", "dtype": "bfloat16"}),
    ("full fp32 256", SMOL, DATA, 256, {"global_batch": 2}),
    ("full bf16 512", SMOL, DATA, 512, {"dtype": "bfloat16", "global_batch": 1}),
    (
        "full bf16 1024 ckpt",
        SMOL,
        DATA,
        1024,
        {"dtype": "bfloat16", "global_batch": 1, "act": {"mode": "full"}},
    ),
    ("tiny full fp32 512 x8", "tiny", TEXT, 512, {"global_batch": 8, "micro_batch": 8}),
    (
        "tiny full bf16 512 x16",
        "tiny",
        TEXT,
        512,
        {"global_batch": 16, "micro_batch": 16, "dtype": "bfloat16"},
    ),
]
QUICK = {"tiny full fp32 512 x8", "tiny full bf16 512 x16"}


def measure(case: tuple[Any, ...], folder: Path, steps: int) -> dict[str, Any]:
    """Run one recipe and read what was foreseen and what was measured."""
    name, model, data, length, train = case
    recipe = {
        "sharpen": 1,
        "name": "plan",
        "model": model,
        "data": {**data, "max_tokens": length, "split": {"valid": 0}},
        "train": {"steps": steps, "global_batch": 1, **train},
    }
    slug = "".join(c if c.isalnum() else "-" for c in name)
    summary = sh.run(recipe, output=folder / slug, store=folder / "store").summary
    return {
        "name": name,
        "recipe": recipe,
        "memory_bytes": {
            "predicted": summary["plan.train.peak_bytes"],
            "measured": summary["train.peak_bytes"],
        },
        "step_s": {
            "predicted": summary["plan.train.step_s"],
            "measured": summary["train.step_s"],
        },
        "memory_error": summary["plan.train.memory_error"],
        "time_error": summary["plan.train.time_error"],
    }


def main() -> None:
    args = arguments(__doc__, "plan")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for case in RECIPES:
            if args.quick and case[0] not in QUICK:
                continue
            row = measure(case, Path(temporary), 4 if args.quick else 6)
            rows.append(row)
            memory, step = row["memory_bytes"], row["step_s"]
            print(
                f"{row['name']:<24} memory {memory['predicted'] / 2**30:.2f} of "
                f"{memory['measured'] / 2**30:.2f} GiB ({row['memory_error']:+.0%})   step "
                f"{step['predicted']:.2f} of {step['measured']:.2f} s ({row['time_error']:+.0%})",
                flush=True,
            )
    summary = {
        "worst_memory_error": max(r["memory_error"] for r in rows),
        "worst_time_error": max(r["time_error"] for r in rows),
    }
    print(summary)
    save(args, {"rows": rows, "summary": summary}, plot=lambda figure: _plot(figure, rows, summary))


def _plot(figure: Any, rows: list[dict[str, Any]], summary: dict[str, float]) -> None:
    left, right = figure.subplots(1, 2)
    for axis, key, unit, scale, band in (
        (left, "memory_bytes", "GiB", 2**30, 0.10),
        (right, "step_s", "s", 1.0, 0.30),
    ):
        x = [r[key]["measured"] / scale for r in rows]
        y = [r[key]["predicted"] / scale for r in rows]
        ends = [min(x) * 0.8, max(x) * 1.2]
        axis.fill_between(
            ends,
            [e * (1 - band) for e in ends],
            [e * (1 + band) for e in ends],
            color="0.85",
            label=f"± {band:.0%}",
        )
        axis.loglog(x, y, "ko")
        axis.set_xlabel(f"measured, {unit}")
        axis.set_ylabel(f"predicted, {unit}")
        axis.legend()
    left.set_title(f"Peak memory: worst error {summary['worst_memory_error']:.0%}")
    right.set_title(f"Step time: worst error {summary['worst_time_error']:.0%}")


if __name__ == "__main__":
    main()
