"""Ways of searching for a prompt, ours and those of four packages, on models whose best is known.

    BENCH_TEXT_PYTHON=/path/to/python python -m benchmarks.text.bench_oracle [--seeds 60]

Three tasks (``oracle_tasks.py``): instructions alone, the same with two of five answers drawn at
random, and instructions with up to four exemplars. 30 training and 30 validation examples, budgets
of 8, 16 and 32 full evaluations; every answer that the oracle gives counts. All get the same
examples, answers and proposals through the interface they have for models: gepa 0.1.4, dspy 3.4.1
(MIPROv2, BootstrapFewShotWithRandomSearch, with as many candidates as fit), textgrad 0.1.8 and
trace-opt 0.1.3.8 (a minibatch of three and a step, taken back where validation falls). dspy takes
seconds a run, and gets the first 30 seeds.

Regret: by how much the chance of a right answer under the chosen prompt is behind that under the
best. Success: regret of at most 0.05. Calls: answers until a prompt so good was first asked.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.common import OURS, PEER, RESULTS, save
from benchmarks.text.beside import ask, has_peers
from benchmarks.text.oracle_loops import textgrad_loop, trace_loop
from benchmarks.text.oracle_tasks import (
    BUDGETS,
    COUNT,
    FIRST,
    NEAR,
    TASKS,
    WEIGHTS,
    Watched,
    examples_of,
)

from sharpen.core.lm import LM, Scripted
from sharpen.text.compat import textgrad as tg
from sharpen.text.compat import trace
from sharpen.text.prompts.confidence import mean_interval, paired_difference
from sharpen.text.prompts.evaluator import Evaluator
from sharpen.text.prompts.metrics import make_metric
from sharpen.text.prompts.optimize import optimize_prompt
from sharpen.text.prompts.oracle import Oracle
from sharpen.text.prompts.parsers import make_parser
from sharpen.text.prompts.task import PromptProgram

PROGRAM = PromptProgram(
    template="{{instruction}}\n\n{{exemplars}}\n\n{{input}}",
    exemplar="{{input}} -> {{output}}",
    parser=make_parser("label", ["yes", "no"]),
)
SHOWN = 4
WRITERS = ("ape", "opro", "protegi", "promptagent", "gepa", "mipro")
CHOOSERS = ("random", "nearest", "diverse", "all", "random_search", "mutation")
STEPS = ("TextGrad", "OptoPrime")
PEERS = {
    "instructions": ("gepa", "MIPROv2, instructions", "textgrad", "OptoPrime"),
    "noisy": ("gepa", "MIPROv2, instructions", "textgrad", "OptoPrime"),
    "both": ("gepa", "MIPROv2", "BootstrapFewShotWithRandomSearch", "textgrad", "OptoPrime"),
}
SLOW, SLOW_SEEDS = ("MIPROv2", "MIPROv2, instructions", "BootstrapFewShotWithRandomSearch"), 30
PAIRS = {
    "instructions": [
        ("gepa", "gepa"),
        ("mipro", "MIPROv2, instructions"),
        ("TextGrad", "textgrad"),
        ("OptoPrime", "OptoPrime"),
    ],
    "both": [
        ("gepa + mutation", "gepa"),
        ("mipro + none", "MIPROv2"),
        ("mipro + mutation", "MIPROv2"),
        ("none + random_search", "BootstrapFewShotWithRandomSearch"),
    ],
}
PAIRS["noisy"] = PAIRS["instructions"]


def methods_of(task: str) -> tuple[str, ...]:
    """Names of our ways for a task; ``io + eo x rounds`` where exemplars are chosen."""
    if task != "both":
        return (*WRITERS, *STEPS)
    alone = tuple(f"none + {eo}" for eo in CHOOSERS)
    mixed = tuple(f"{io} + mutation" for io in WRITERS)
    turns = tuple(f"{io} + mutation x 2" for io in ("ape", "gepa"))
    return (*alone, *mixed, *turns, "gepa + random_search", "gepa + none", "mipro + none")


def ours(method: str, task: str, seed: int, budget: int) -> dict[str, Any]:
    """What one of our ways comes to."""
    if method == "TextGrad":
        return textgrad_loop(tg, task, seed, budget)
    if method == "OptoPrime":
        return trace_loop(_trace(), task, seed, budget)
    io, _, eo = method.partition(" + ")
    eo, _, rounds = eo.partition(" x ")
    oracle = Watched(task, seed)
    train, val = examples_of(oracle)
    begin = time.process_time()
    result = optimize_prompt(
        PROGRAM,
        FIRST,
        val,
        make_metric("exact"),
        lm=oracle,
        proposer=Oracle(WEIGHTS, seed=seed, **TASKS[task]),  # what it is asked is no answer
        train=train,
        io=io,
        eo=eo or "none",
        k=SHOWN if eo else 0,
        rounds=int(rounds or 1),
        budget=budget,
        seed=seed,
        concurrency=1,
    )
    spent = time.process_time() - begin
    evaluator = Evaluator(PROGRAM, LM(oracle), make_metric("exact"))
    shown = [
        [one.input["input"][-2] for one in evaluator.shown_to(result.candidate, case)]
        for case in oracle.examples(COUNT, first=2 * COUNT)
    ]
    return oracle.outcome(result.candidate.instruction, shown, spent)


def _trace() -> Any:
    def reset(node: Any, text: str) -> None:
        node.value = text

    def model(suggest: Callable[[str], str]) -> Any:
        return Scripted(lambda request: suggest(request.prompt))

    names = {name: getattr(trace, name) for name in ("node", "bundle", "OptoPrime")}
    return SimpleNamespace(**names, value=lambda node: node.value, reset=reset, llm=model)


def summed(rows: Sequence[dict[str, Any]], budget: int) -> dict[str, Any]:
    """Mean regret with its error, share of successes, calls, and runs over the budget."""
    regrets = [row["regret"] for row in rows]
    reached = sorted(row["reached"] or math.inf for row in rows)
    middle = statistics.median(reached)
    won = mean_interval([float(one <= NEAR) for one in regrets])
    spread = statistics.stdev(regrets) if len(regrets) > 1 else 0.0
    return {
        "regret": statistics.mean(regrets),
        "standard_error": spread / math.sqrt(len(regrets)),
        "success": {"value": won.value, "low": won.low, "high": won.high},
        "reached_share": sum(one < math.inf for one in reached) / len(reached),
        "median_calls_to_reach": middle if middle < math.inf else None,
        "calls_max": max(row["calls"] for row in rows),
        "calls_mean": statistics.mean(row["calls"] for row in rows),
        "over_budget": sum(row["calls"] > budget * COUNT for row in rows),
        "cpu_s": statistics.mean(row["cpu_s"] for row in rows),
        "seeds": len(regrets),
        "regrets": regrets,
    }


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=60)
    options.add_argument("--json", type=Path, default=None)
    options.add_argument("--plot", type=Path, default=None)
    options.add_argument("--quick", action="store_true")
    args = options.parse_args()
    args.name = "text_oracle"
    if not args.quick:
        args.json = args.json or RESULTS / "text_oracle.json"
        args.plot = args.plot or RESULTS / "text_oracle.png"
    warnings.simplefilter("ignore")
    seeds = list(range(2 if args.quick else args.seeds))
    budgets = BUDGETS[:1] if args.quick else BUDGETS
    with_peers = has_peers() and not args.quick
    root = str(Path(__file__).resolve().parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([f"{root}/src", root])
    results: dict[str, Any] = {"best": {}, "first": {}, "tasks": {}, "versions": {}}
    for task in TASKS:
        oracle = Watched(task, 0)
        results["best"][task] = oracle.best_chance
        results["first"][task] = oracle.chance(FIRST)
        table = results["tasks"][task] = {}
        for budget in budgets:
            rows = {
                method: summed([ours(method, task, seed, budget) for seed in seeds], budget)
                for method in methods_of(task)
            }
            theirs = {}
            for method in PEERS[task] if with_peers else ():
                some = seeds[:SLOW_SEEDS] if method in SLOW else seeds
                request = {"method": method, "task": task, "budget": budget, "seeds": some}
                answer = ask("peer_oracle.py", request)
                theirs[method] = summed(answer["rows"], budget)
                results["versions"][method] = answer["version"]
            paired = {}
            for mine, other in PAIRS[task] if theirs else ():
                regrets = theirs[other]["regrets"]
                better = paired_difference(regrets, rows[mine]["regrets"][: len(regrets)])
                paired[f"{mine} | {other}"] = {
                    "value": better.value,
                    "low": better.low,
                    "high": better.high,
                }
            table[str(budget)] = {"ours": rows, "peers": theirs, "less_regret": paired}
            print(task, budget, {n: round(r["regret"], 3) for n, r in {**rows}.items()}, flush=True)
            print("  peers", {n: round(r["regret"], 3) for n, r in theirs.items()}, flush=True)

    def plot(figure: Any) -> None:
        panels = figure.subplots(1, len(TASKS), sharey=True)
        for axes, task in zip(panels, TASKS, strict=True):
            for group, colour in (("ours", OURS), ("peers", PEER)):
                for name in results["tasks"][task][str(budgets[0])][group]:
                    cells = [results["tasks"][task][str(b)][group][name] for b in budgets]
                    axes.plot(budgets, [c["regret"] for c in cells], "o-", color=colour, alpha=0.6)
            axes.set(xlabel="full evaluations", title=task)
        panels[0].set(ylabel="regret (blue: ours, yellow: peers)")

    config = {"seeds": len(seeds), "weights": WEIGHTS, "tasks": TASKS, "count": COUNT}
    save(args, results, config=config, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
