"""Does SmolLM2 learn to write small functions from the sandbox's verdicts alone?

Prompts in the style of HumanEval: a signature, a sentence, an example. A reply earns 1 if its
function gives what is expected for eight inputs, -0.3 if it does not, -0.6 if it raises or is late,
-1 if there is no function. GRPO with adapters of rank 16 sees 54 prompts; judged are the 31 of
other kinds of tasks, with four draws of each, before and after, by the same seeds.

    python -m benchmarks.align.bench_functions [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from benchmarks.align.bench_learning import align
from benchmarks.align.small_functions import rows
from benchmarks.common import OURS, arguments, save

from sharpen.align.engines import ServedEngine
from sharpen.align.rewards.code import CodeReward
from sharpen.align.rows.parse import parse_row
from sharpen.align.rows.tokens import tokenize_rows
from sharpen.serve import SamplingParams

MODEL, NEW, DRAWS = "smollm2-135m-instruct", 64, 4
TRAINING: dict[str, Any] = {
    "method": "grpo",
    "tune": "lora",
    "rank": 16,
    "merge": True,
    "steps": 40,
    "batch": 4,
    "generations": 8,
    "lr": 1e-4,
    "schedule": "constant",
    "reward": {"uses": "code", "options": {"clock": "none"}, "workers": 1, "deadline_s": 60},
    "sampling": {"max_tokens": NEW},
}
OUTCOMES = {1.0: "right", -0.3: "wrong", -0.6: "raises or late", -1.0: "no function"}


def judged(model: str | Path, draws: int, constants: int) -> dict[str, Any]:
    """Shares of what comes of replies to the prompts that are held out."""
    held_out = rows(held_out=True, constants=constants)
    engine = ServedEngine(model, dtype=torch.float32, max_batch=64, max_context=512)
    tokenizer = engine.llm.tokenizer
    prompts = tokenize_rows([parse_row(row, "held out") for row in held_out], tokenizer).rows
    params = [SamplingParams(max_tokens=NEW, seed=i) for i in range(draws * len(prompts))]
    made = engine.generate([one.prompt for one in prompts for _ in range(draws)], params)
    about = [
        {key: value for key, value in row.items() if key != "prompt"}
        for row in held_out
        for _ in range(draws)
    ]
    reward = CodeReward(clock="none")
    try:
        values = reward([""] * len(made), [one.text for one in made], about)
    finally:
        reward.close()
    found = Counter(OUTCOMES[value] for value in values if value is not None)
    at_all = sum(
        any(value == 1 for value in values[at : at + draws]) for at in range(0, len(values), draws)
    )
    return {
        "outcomes": {name: found[name] / len(values) for name in OUTCOMES.values()},
        "right_in_any_draw": at_all / len(held_out),
        "replies": len(values),
    }


def main() -> int:
    args = arguments(__doc__, "align_functions")
    torch.set_num_threads(1)
    model, draws, constants = ("tiny", 1, 1) if args.quick else (MODEL, DRAWS, 4)
    training = {**TRAINING, **({"steps": 1, "batch": 1, "generations": 2} if args.quick else {})}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        before = judged(model, draws, constants)
        print("before", before, flush=True)
        begin = time.perf_counter()
        prompts = rows(held_out=False, constants=constants)
        made, metrics = align(model, prompts, 0, folder / "run", **training)
        seconds = time.perf_counter() - begin
        after = judged(made, draws, constants)
        print("after", after, flush=True)
    results = {
        "before": before,
        "after": after,
        "rewards": metrics["reward"],
        "seconds": seconds,
        "prompts": len(prompts),
    }

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        rewards = metrics["reward"]
        smooth = [sum(rewards[max(0, i - 4) : i + 1]) / min(i + 1, 5) for i in range(len(rewards))]
        axes.plot(range(1, len(rewards) + 1), rewards, color=OURS, alpha=0.3)
        axes.plot(range(1, len(rewards) + 1), smooth, color=OURS)
        axes.set_xlabel("batches")
        axes.set_ylabel("reward; the mean of five in full colour")

    save(args, results, config={"model": model, "training": training, "draws": draws}, plot=plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
