"""Prompts for SmolLM2-135M on 120 restaurant reviews: accuracy before and after, with intervals.

    python -m benchmarks.text.bench_smollm2

The task is ``examples/text/sentiment.yaml``: 18 reviews to take exemplars from, 48 to compare
prompts on, 54 to test the chosen one, parted anew for each seed. Each way of searching gets 14 full
evaluations. Accuracies are over the test examples of all seeds together; the difference to the
prompt that was given is paired, its interval is a bootstrap of 95 %. The model labels by calibrated
probabilities, and by its replies (``replies``), as a server without probabilities would let it.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import OURS, PEER, arguments, save

from sharpen.core.lm import LM
from sharpen.text.prompts.confidence import mcnemar, mean_interval, paired_difference
from sharpen.text.prompts.optimize import optimize_prompt
from sharpen.text.prompts.task_file import load_task

TASK = Path(__file__).resolve().parents[2] / "examples" / "text" / "sentiment.yaml"
WAYS = (
    ("select", "none"),
    ("none", "random"),
    ("none", "random_search"),
    ("none", "mutation"),
    ("select", "random"),
    ("select", "mutation"),
)
SHARES = (18, 48, 54)


def searched(lm: LM, decision: str, io: str, eo: str, seeds: int, budget: int) -> dict[str, Any]:
    """A way of searching over all seeds."""
    import random

    task = load_task(TASK)
    program = dataclasses.replace(task.program, decision=decision)
    rows = [*task.train, *task.val, *(task.test or ())]
    before: list[float] = []
    after: list[float] = []
    chosen: list[dict[str, Any]] = []
    judgements, begin = 0, time.process_time()
    for seed in range(seeds):
        order = random.Random(seed).sample(rows, len(rows))
        train, val = order[: SHARES[0]], order[SHARES[0] : SHARES[0] + SHARES[1]]
        found = optimize_prompt(
            program,
            task.config.instruction,
            val,
            task.metric,
            lm=lm,
            train=train,
            test=order[SHARES[0] + SHARES[1] :],
            io=io,
            eo=eo,
            k=task.config.search.k,
            budget=budget,
            instructions=task.config.instructions,
            seed=seed,
            **({"max_tokens": 4} if decision == "reply" else {}),
        )
        assert found.tested is not None
        best, first = found.tested
        after += best.scores
        before += first.scores
        judgements += found.judgements
        chosen.append({"prompt": found.candidate.to_dict(), "validation": found.best.score})
    return {
        "before": dataclasses.asdict(mean_interval(before)),
        "after": dataclasses.asdict(mean_interval(after)),
        "difference": dataclasses.asdict(paired_difference(after, before)),
        "p_mcnemar": mcnemar(after, before),
        "tested": len(after),
        "judgements": judgements,
        "cpu_s": time.process_time() - begin,
        "chosen": chosen,
    }


def main() -> int:
    args = arguments(__doc__, "text_smollm2")
    seeds, budget = (1, 2) if args.quick else (5, 14)
    lm = LM("local:smollm2")
    results: dict[str, Any] = {"seeds": seeds, "budget": budget, "ways": {}}
    for io, eo in WAYS[:1] if args.quick else WAYS:
        name = f"{io} + {eo}"
        results["ways"][name] = searched(lm, "calibrated", io, eo, seeds, budget)
        print(f"{name:<24} {results['ways'][name]['after']}", file=sys.stderr, flush=True)
    if not args.quick:
        results["replies"] = searched(lm, "reply", "select", "mutation", seeds, budget)

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        names = list(results["ways"])
        for key, colour, shift in (("before", PEER, -0.15), ("after", OURS, 0.15)):
            some = [results["ways"][name][key] for name in names]
            axes.errorbar(
                [one["value"] for one in some],
                [i + shift for i in range(len(names))],
                xerr=[
                    [one["value"] - one["low"] for one in some],
                    [one["high"] - one["value"] for one in some],
                ],
                fmt="o",
                color=colour,
                label=key,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("accuracy on reviews that nothing was chosen by")
        axes.legend(frameon=False)

    save(args, results, config={"shares": SHARES}, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
