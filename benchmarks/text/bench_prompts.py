"""Instructions or exemplars: what a budget is best spent on, for a real classifier on real text.

    python -m benchmarks.text.bench_prompts [--seeds 30]

Wan et al., *Teach Better or Show Smarter?*, NeurIPS 2024, find of large language models that a
search for exemplars under the first instruction does as well as the best search for instructions
without exemplars, that both together do better than either, and that mutation does no worse than
random search. Here the same questions are put to a classifier that knows the meaning of words and
learns the rest from its prompt (``in_context.py``): docstrings of Python's standard library, six
packages. 60 training, 150 validation and 480 test examples, drawn anew for each seed; every way
gets the same 32 full evaluations. The answer is the accuracy on the test examples.

Ways of searching are compared with those of other packages in ``bench_oracle.py``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

from benchmarks.common import OURS, PEER, RESULTS, save
from benchmarks.text.in_context import FIRST, LABELS, PROGRAM, InContext, parts

from sharpen.text.prompts.confidence import mean_interval, paired_difference
from sharpen.text.prompts.metrics import make_metric
from sharpen.text.prompts.optimize import optimize_prompt

SIZES, BUDGET, SHOWN = (60, 150, 480), 32, 6
WRITERS = ("ape", "opro", "protegi", "promptagent", "gepa", "mipro")
CHOOSERS = ("random", "diverse", "nearest", "all", "random_search", "mutation")
WAYS = (
    "none + none",
    *(f"{io} + none" for io in WRITERS),
    *(f"none + {eo}" for eo in CHOOSERS),
    *(f"{io} + {eo}" for io in ("ape", "protegi", "gepa") for eo in ("random_search", "mutation")),
    *(f"{io} + mutation x 2" for io in ("ape", "protegi", "gepa")),
    *(f"{io} + nearest" for io in ("ape", "protegi", "gepa")),
)


def run(way: str, seed: int, sizes: tuple[int, ...], budget: int) -> dict[str, float]:
    """Accuracies of the chosen prompt."""
    io, _, rest = way.partition(" + ")
    eo, _, rounds = rest.partition(" x ")
    train, val, test = parts(seed, sizes)
    result = optimize_prompt(
        PROGRAM,
        FIRST,
        val,
        make_metric("exact"),
        lm=InContext(seed),
        train=train,
        test=test,
        io=io,
        eo=eo,
        rounds=int(rounds or 1),
        k=0 if eo == "none" else SHOWN,
        budget=budget,
        seed=seed,
        concurrency=1,
    )
    assert result.tested is not None
    return {
        "validation": result.best.score,
        "test": result.tested[0].score,
        "judgements": result.judgements,
        "allowed": result.allowed,
    }


def interval(ours: list[float], theirs: list[float] | None = None) -> dict[str, float]:
    found = mean_interval(ours) if theirs is None else paired_difference(ours, theirs)
    return {"value": found.value, "low": found.low, "high": found.high}


def findings(test: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """The paper's findings and two more, each as a paired difference over the seeds."""
    means = {way: statistics.mean(values) for way, values in test.items()}
    writer = max((f"{io} + none" for io in WRITERS), key=means.__getitem__)
    chooser = max(("none + random_search", "none + mutation"), key=means.__getitem__)
    mixed = [way for way in WAYS if "none" not in way and "nearest" not in way]
    both = max(mixed, key=means.__getitem__)
    near = max((way for way in WAYS if way.endswith("+ nearest")), key=means.__getitem__)
    pairs = {
        "exemplars alone, less the best instructions alone": ("none + random_search", writer),
        "the best of both, less the best instructions alone": (both, writer),
        "the best of both, less the best exemplars alone": (both, chooser),
        "instructions for the nearest exemplars, less these alone": (near, "none + nearest"),
        "mutation, less random search": ("none + mutation", "none + random_search"),
        "both in turns, less one after the other": (
            "protegi + mutation x 2",
            "protegi + mutation",
        ),
    }
    return {said: {"ways": [a, b], **interval(test[a], test[b])} for said, (a, b) in pairs.items()}


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=30)
    options.add_argument("--json", type=Path, default=None)
    options.add_argument("--plot", type=Path, default=None)
    options.add_argument("--quick", action="store_true")
    args = options.parse_args()
    args.name = "text_prompts"
    if not args.quick:
        args.json = args.json or RESULTS / "text_prompts.json"
        args.plot = args.plot or RESULTS / "text_prompts.png"
    warnings.simplefilter("ignore")
    seeds = range(2 if args.quick else args.seeds)
    sizes, budget = ((24, 30, 60), 8) if args.quick else (SIZES, BUDGET)
    rows = {way: [run(way, seed, sizes, budget) for seed in seeds] for way in WAYS}
    test = {way: [row["test"] for row in found] for way, found in rows.items()}
    results = {
        "ways": {
            way: {
                "test": interval(test[way]),
                "validation": statistics.mean(row["validation"] for row in found),
                "over_budget": sum(row["judgements"] > row["allowed"] for row in found),
                "tests": test[way],
            }
            for way, found in rows.items()
        },
        "findings": findings(test),
        "labels": LABELS,
    }

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        for place, way in enumerate(reversed(WAYS)):
            found = results["ways"][way]["test"]
            colour = PEER if way.endswith("+ none") else OURS
            axes.plot([found["low"], found["high"]], [place, place], color=colour)
            axes.plot(found["value"], place, "o", color=colour)
        axes.set_yticks(range(len(WAYS)), list(reversed(WAYS)), fontsize=7)
        axes.set(xlabel="accuracy on test examples (yellow: no exemplars)")

    config = {"seeds": len(seeds), "sizes": sizes, "budget": budget, "shown": SHOWN}
    save(args, results, config=config, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
