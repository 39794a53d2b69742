"""Do the methods that generate learn? Every one, from the same start, on a task with exact rewards.

The task: two examples of a change of digits are shown, a program that makes it is asked for
(``sharpen.align.domains``: leave out the last digit, reverse, double). A model of two layers first
learns right but slow programs; then each method is given a stated number of batches to raise the
reward, which is -1 for no program, -0.6 for one that fails, -0.3 for a wrong one, and grows with
speed from 0 to 0.5, that of the best programs there are. It has learnt when the mean of its last
ten batches is at least 0.45. Each seed has its own start, rows and draws. The best completion of
each of 200 held-out prompts is scored too: share of right programs, and share of best ones.

    python -m benchmarks.align.bench_learning [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import arguments, save

from sharpen.align.config import AlignConfig
from sharpen.align.domains import ProgramReward, program_rows, write_program_model
from sharpen.align.engines import PlainEngine
from sharpen.align.methods import find_method
from sharpen.align.run import run_align
from sharpen.core.config import from_dict
from sharpen.core.stage import StageContext
from sharpen.models import load_model, load_tokenizer
from sharpen.serve import SamplingParams

LETTERS, TARGET, LAST, NEW = "dlr", 0.45, 10, 8
START = {"method": "sft", "steps": 250, "batch": 64, "lr": 3e-3}
METHODS: dict[str, dict[str, Any]] = {
    "ReMax": {"method": "remax", "steps": 60, "lr": 1e-3, "batch": 64},
    "RLOO": {"method": "rloo", "steps": 60, "lr": 1e-3, "generations": 4},
    "GRPO": {"method": "grpo", "steps": 80, "lr": 5e-4, "generations": 8},
    "PPO": {
        "method": "ppo",
        "steps": 80,
        "lr": 3e-4,
        "batch": 256,
        "epochs_per_batch": 1,
        "options": {"beta": 0, "entropy_coef": 0.03},
    },
    "rejection sampling": {
        "method": "rft",
        "steps": 60,
        "lr": 1e-3,
        "options": {"threshold": TARGET},
    },
    "REINFORCE, no baseline": {
        "method": "remax",
        "steps": 60,
        "lr": 1e-3,
        "batch": 64,
        "options": {"baseline": "none", "beta": 0},
    },
}
ONLINE = {
    "batch": 32,
    "schedule": "constant",
    "reward": {"uses": "programs", "options": {"kind": "speed"}, "workers": 0},
    "sampling": {"max_tokens": NEW},
}


def align(
    model: str | Path, rows: Sequence[Mapping[str, Any]], seed: int, folder: Path, **own: Any
) -> Any:
    """One alignment in this process: the folder of its model, and its metrics by name."""
    for name in ("out", "work", "run"):
        (folder / name).mkdir(parents=True)
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found: dict[str, list[float]] = {}
    context = StageContext(
        stage="align",
        seed=seed,
        model=str(model),
        inputs={},
        output=folder / "out",
        work=folder / "work",
        run_folder=folder / "run",
        on_metric=lambda name, value, step: found.setdefault(name, []).append(value),
    )
    given = {"data": str(data)} if rows else {}
    run_align(from_dict(AlignConfig, {**given, **own}), context)
    return folder / "out", found


def tasks(count: int, **how: Any) -> list[dict[str, Any]]:
    """Rows whose solution is one of the letters."""
    rows = program_rows(6 * count, **how)
    return [row for row in rows if row["solution"] in LETTERS][:count]


def held_out(model: Path, seed: int) -> dict[str, float]:
    """Greedy programs of prompts that no training saw."""
    rows = tasks(200, kind="prompt", split="test", seed=seed)
    tokenizer = load_tokenizer(model)
    engine = PlainEngine(tokenizer, max_batch=len(rows))
    engine.update_weights(load_model(model), 0)
    params = [SamplingParams(temperature=0, max_tokens=NEW)] * len(rows)
    made = engine.generate([tokenizer.encode(row["prompt"]) for row in rows], params)
    prompts = [row["prompt"] for row in rows]
    rewards = ProgramReward(kind="speed")(prompts, [one.text for one in made], rows)
    right = [value is not None and value >= 0 for value in rewards]
    best = [value is not None and value >= 0.5 for value in rewards]
    return {"right": sum(right) / len(rows), "best": sum(best) / len(rows)}


def _generations(own: Mapping[str, Any]) -> int:
    found: int = own.get("generations") or find_method(own["method"]).generations
    return found


def main() -> int:
    args = arguments(__doc__, "align_learning")
    torch.set_num_threads(1)
    seeds = range(1 if args.quick else 5)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in METHODS}
    starts: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeds:
            folder = Path(temporary) / str(seed)
            model = write_program_model(folder / "model", seed=seed)
            slow = tasks(2000, kind="completion", slow=True, seed=seed)
            settings = {**START, "steps": 20} if args.quick else START
            start, _ = align(model, slow, seed, folder / "start", **settings)
            starts.append(held_out(start, seed))
            prompts = tasks(1500, kind="prompt", seed=seed + 100)
            for name, own in METHODS.items():
                settings = {**ONLINE, **own, **({"steps": 2} if args.quick else {})}
                if own["method"] != "rft":
                    settings.setdefault("options", {"beta": 0})
                begin = time.perf_counter()
                made, metrics = align(start, prompts, seed, folder / name, **settings)
                seconds = time.perf_counter() - begin
                rewards = metrics["reward"]
                last = sum(rewards[-LAST:]) / len(rewards[-LAST:])
                reached = next(
                    (
                        at + 1
                        for at in range(LAST - 1, len(rewards))
                        if sum(rewards[at + 1 - LAST : at + 1]) / LAST >= TARGET
                    ),
                    None,
                )
                runs[name].append(
                    {
                        "rewards": rewards,
                        "last": last,
                        "learnt": last >= TARGET,
                        "reached_after": reached,
                        "seconds": seconds,
                        "held_out": held_out(made, seed),
                    }
                )
                told = runs[name][-1]
                print(seed, name, round(last, 3), reached, told["held_out"], flush=True)
    results = {
        "start": starts,
        "methods": {
            name: {
                "runs": own,
                "learnt": sum(one["learnt"] for one in own),
                "of": len(own),
                "budget": METHODS[name]["steps"],
                "completions_a_batch": METHODS[name].get("batch", ONLINE["batch"])
                * _generations(METHODS[name]),
            }
            for name, own in runs.items()
        },
    }

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        for name, own in runs.items():
            shortest = min(len(one["rewards"]) for one in own)
            mean = [sum(one["rewards"][at] for one in own) / len(own) for at in range(shortest)]
            smooth = [sum(mean[max(0, i - 4) : i + 1]) / min(i + 1, 5) for i in range(shortest)]
            axes.plot(range(1, shortest + 1), smooth, label=name)
        axes.axhline(TARGET, color="grey", linewidth=0.8)
        axes.set_xlabel("batches")
        axes.set_ylabel("reward, mean over seeds")
        axes.legend(frameon=False)

    config = {"letters": LETTERS, "target": TARGET, "start": START, "methods": METHODS}
    save(args, results, config=config, plot=plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
