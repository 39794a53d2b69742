"""Does a small language model learn to act? By heart what succeeded, then from its own episodes.

Random agents try the tasks of a world; of what succeeded, the shortest episode of each task is
kept, and our tiny model learns its words turn by turn. Then it plays tasks itself and learns by
GRPO from the worlds' rewards, which are 1 for the right answer. Worlds: sums that need a calculator
twice (``CalculatorTask``), questions that need two look-ups (``RetrievalTask``, where random
episodes that guessed without looking are left out). Success is judged on 200 tasks that nothing was
learnt from, each time with the same seeds.

    python -m benchmarks.align.bench_agents_lm [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.align.bench_learning import align
from benchmarks.common import arguments, save

from sharpen.align.agents import TablePolicy, collect, filter_trajectories
from sharpen.align.agents.filtering import best_of, judged, succeeded
from sharpen.align.agents.playing import play_world
from sharpen.align.agents.trajectory import context_of
from sharpen.align.agents.worlds import find_world

FIRST, JUDGED, TURN = 100_000, 200, 24
WORLDS: dict[str, dict[str, Any]] = {
    "calculator": {"tasks": 4000, "draws": 1, "turns": 1, "sft": 400, "grpo": 60},
    "retrieval": {"tasks": 3000, "draws": 2, "turns": 3, "sft": 150, "grpo": 60},
}
SFT: dict[str, Any] = {"method": "sft", "batch": 32, "lr": 1.5e-3}
GRPO: dict[str, Any] = {
    "method": "grpo",
    "batch": 16,
    "generations": 8,
    "lr": 2e-4,
    "schedule": "constant",
    "sampling": {"max_tokens": TURN},
}


def episodes(world: str, own: dict[str, Any]) -> list[dict[str, Any]]:
    """Turns of random episodes that succeeded, as rows."""
    tried = collect(find_world(world), TablePolicy(), own["draws"], tasks=range(own["tasks"]))
    # Three turns that all differ: what is needed, and no guess.
    turns = judged(lambda one: float(len({step.text for step in one.steps})), own["turns"], "turns")
    kept = filter_trajectories(tried, [succeeded(), turns, best_of(1)]).kept
    return [
        {
            "prompt": context_of(one.goal, one.steps[:at], step.observation),
            "completion": f" {step.text}",
        }
        for one in kept
        for at, step in enumerate(one.steps)
    ]


def success(model: str | Path, world: str, tasks: int) -> dict[str, float]:
    """Of tasks that nothing was learnt from."""
    played = play_world(model, world, tasks=range(FIRST, FIRST + tasks), max_tokens=TURN)
    found: dict[str, float] = played["success"]
    return found


def learn(world: str, own: dict[str, Any], folder: Path, *, quick: bool) -> dict[str, Any]:
    """Success before and after each of the two."""
    if quick:
        own = {**own, "tasks": 60, "sft": 2, "grpo": 1}
    judged_on = 4 if quick else JUDGED
    rows = episodes(world, own)
    begin = time.perf_counter()
    by_heart, _ = align("tiny", rows, 0, folder / "sft", **SFT, steps=own["sft"])
    learnt_s = time.perf_counter() - begin
    found = {
        "start": success("tiny", world, judged_on),
        "by heart": success(by_heart, world, judged_on),
    }
    print(world, len(rows), found, flush=True)
    begin = time.perf_counter()
    given = {**GRPO, **({"batch": 2, "generations": 2} if quick else {})}
    acted, metrics = align(
        by_heart, [], 0, folder / "grpo", **given, world=world, steps=own["grpo"]
    )
    found["from its own episodes"] = success(acted, world, judged_on)
    print(world, found["from its own episodes"], flush=True)
    return {
        "success": found,
        "curve": metrics["success"],
        "turns": metrics["turns"],
        "rows": len(rows),
        "seconds": {"by heart": learnt_s, "episodes": time.perf_counter() - begin},
    }


def main() -> int:
    args = arguments(__doc__, "align_agents_lm")
    torch.set_num_threads(1)
    results: dict[str, Any] = {}

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        for world, one in results.items():
            curve = one["curve"]
            mean = [sum(curve[max(0, i - 4) : i + 1]) / min(i + 1, 5) for i in range(len(curve))]
            axes.plot(range(1, len(mean) + 1), mean, label=world)
        axes.set_xlabel("batches of episodes")
        axes.set_ylabel("share that succeeds, mean of five batches")
        axes.legend(frameon=False)

    config = {"worlds": WORLDS, "sft": SFT, "grpo": GRPO, "judged": JUDGED}
    with tempfile.TemporaryDirectory() as temporary:
        for world, own in WORLDS.items():
            results[world] = learn(world, own, Path(temporary) / world, quick=args.quick)
            save(args, results, config=config, plot=plot)  # what is done is kept
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
