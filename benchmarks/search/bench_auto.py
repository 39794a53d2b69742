"""Whether ``auto`` chooses well where there are several objectives, and where there are contexts.

Of one objective without contexts :mod:`benchmarks.search.bench_bo` and ``bench_tasks`` tell. Here:

- several objectives: ``ehvi``, ``tpe`` and ``nsga2`` on fronts that are known: ZDT1 and ZDT2 with
  the minimum of all parameters but the first moved by the seed, DTLZ2 with three objectives, and
  ZDT1 on real numbers, whole numbers and choices. Less is better: the share of the volume between
  the true front and a reference point that the measured front leaves out. ``tpe`` and ``nsga2``
  also for more trials than a model is taken for.
- contexts: ``contextual-gp`` and ``chebcb`` where each round has a context drawn at random: two
  numbers whose best values follow it, and four methods with a number, each best in a quarter of the
  contexts, measured with noise. Less is better: the mean regret, without noise, of some rounds.

Medians over seeds; ``auto`` takes what has the least of them, by the two-sided Mann-Whitney test.
Methods of one seed run one behind the other, each time another one first. Finished runs are kept in
a journal, and a run that is in it is not repeated.

    python -m benchmarks.search.bench_auto [--seeds 20] [--tasks zdt1 ...] [--journal FILE]
        [--json OUT] [--plot OUT] [--summary] [--quick]
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.common import RESULTS, draw_bars, save
from benchmarks.search.journal import alternating, play_missing

from sharpen.core.optimizer import Optimizer, find_optimizer
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.problem import Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.pareto import hypervolume

SEVERAL = ("ehvi", "tpe", "nsga2")
CONTEXTS = ("contextual-gp", "chebcb")
EVALUATIONS, SEEDS = 100, 20
CHECKPOINTS = (25, 50, 100, 200, 300)
MANY, BEYOND = 300, ("tpe", "nsga2")
ROUNDS = ((1, 25), (26, 50), (51, 100))

_Config = dict[str, Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Front:
    """A problem of several objectives whose front is known."""

    space: Space
    values: Callable[[_Config], Sequence[float]]
    reference: Sequence[float]
    volume: float
    """Between the front and the reference point."""


@dataclass(frozen=True)
class Rounds:
    """A problem whose best configuration follows a context in [0, 1]."""

    space: Space
    regret: Callable[[_Config, float], float]
    noise: float
    """Standard deviation of what is measured."""


def _cube(dimensions: int) -> Space:
    return Space({f"x{i}": Float(0, 1) for i in range(dimensions)})


def _zdt(power: float, away: Callable[[_Config], float], space: Space) -> Front:
    """ZDT1 (power 1/2) or ZDT2 (power 2), from how far all parameters but x0 are from the best."""

    def values(config: _Config) -> tuple[float, float]:
        g = 1 + 9 * away(config)
        return config["x0"], g * (1 - (config["x0"] / g) ** power)

    # The front is 1 - f^power, and power / (power + 1) of the box is below it.
    under = power / (power + 1)
    return Front(space, values, (1.1, 4.0), 1.1 * 4.0 - under)


def _mean_gap(shift: Floats) -> Callable[[_Config], float]:
    """How far all parameters but the first are from ``shift`` in the mean."""
    return lambda config: float(np.abs(np.array([*config.values()][1:]) - shift).mean())


def zdt1(seed: int) -> Front:
    """Six real numbers, a convex front."""
    shift = random_stream(seed, 0).uniform(0.2, 0.8, 5)
    return _zdt(0.5, _mean_gap(shift), _cube(6))


def zdt2(seed: int) -> Front:
    """Six real numbers, a concave front."""
    shift = random_stream(seed, 0).uniform(0.2, 0.8, 5)
    return _zdt(2.0, _mean_gap(shift), _cube(6))


def mixed(seed: int) -> Front:
    """Three real numbers, two whole ones and three choices of four, a convex front."""
    rng = random_stream(seed, 0)
    places = {"x1": rng.uniform(0.2, 0.8), "x2": rng.uniform(0.2, 0.8)}
    steps = {"n0": int(rng.integers(21)), "n1": int(rng.integers(21))}
    choices = {f"c{i}": "abcd"[int(rng.integers(4))] for i in range(3)}
    space = Space(
        x0=Float(0, 1),
        **{name: Float(0, 1) for name in places},
        **{name: Int(0, 20) for name in steps},
        **{name: Categorical("a", "b", "c", "d") for name in choices},
    )

    def away(config: _Config) -> float:
        gaps = [abs(config[name] - place) for name, place in places.items()]
        gaps += [abs(config[name] - step) / 20 for name, step in steps.items()]
        gaps += [0.5 * (config[name] != choice) for name, choice in choices.items()]
        return float(statistics.mean(gaps))

    return _zdt(0.5, away, space)


def dtlz2(seed: int) -> Front:
    """Six real numbers, three objectives, an eighth of a sphere as the front."""
    shift = random_stream(seed, 0).uniform(0.2, 0.8, 4)

    def values(config: _Config) -> tuple[float, float, float]:
        first, second, *rest = config.values()
        radius = 1 + float(((np.array(rest) - shift) ** 2).sum())
        a, b = first * math.pi / 2, second * math.pi / 2
        flat = radius * math.cos(a)
        return flat * math.cos(b), flat * math.sin(b), radius * math.sin(a)

    return Front(_cube(6), values, (1.5, 1.5, 1.5), 1.5**3 - math.pi / 6)


def numbers(seed: int) -> Rounds:
    """Two real numbers, each best at a smooth function of the context."""
    phase = float(random_stream(seed, 2).uniform(0, 1))

    def regret(config: _Config, load: float) -> float:
        places = 0.2 + 0.6 * load, math.cos(4 * load + phase) ** 2
        return float(sum((v - p) ** 2 for v, p in zip(config.values(), places, strict=True)))

    return Rounds(_cube(2), regret, 0.0)


def methods(seed: int) -> Rounds:
    """Four methods, each best in a quarter of the contexts, with a number that follows those."""
    order = "".join(random_stream(seed, 2).permutation(list("abcd")).tolist())

    def regret(config: _Config, load: float) -> float:
        gaps = [(load - (i + 0.5) / 4) ** 2 for i in range(4)]
        lost = gaps[order.index(config["method"])] - min(gaps)
        return lost + float((config["x"] - 0.2 - 0.6 * load) ** 2)

    space = Space(method=Categorical("a", "b", "c", "d"), x=Float(0, 1))
    return Rounds(space, regret, 0.02)


FRONTS: dict[str, Callable[[int], Front]] = {
    "zdt1": zdt1,
    "zdt2": zdt2,
    "dtlz2": dtlz2,
    "mixed": mixed,
}
UNDER: dict[str, Callable[[int], Rounds]] = {"numbers": numbers, "methods": methods}


def missing_volumes(problem: Front, method: str, seed: int, evaluations: int) -> dict[str, float]:
    """Share of the volume that is left out, after some evaluations."""
    names = [f"f{j}" for j in range(len(problem.reference))]
    objectives = tuple(Objective(name) for name in names)
    made = find_optimizer(method)
    optimizer: Optimizer = made(problem.space, objectives, seed=seed, budget=evaluations)
    points, found = [], {}
    for number in range(1, evaluations + 1):
        candidate = optimizer.ask()[0]
        points.append(problem.values(candidate.config))
        optimizer.tell([candidate.result(dict(zip(names, points[-1], strict=True)))])
        if number in CHECKPOINTS:
            volume = hypervolume(np.array(points), np.array(problem.reference))
            found[str(number)] = 1 - volume / problem.volume
    return found


def regrets(problem: Rounds, method: str, seed: int, evaluations: int) -> dict[str, float]:
    """Mean regret of some rounds."""
    contexts = Space(load=Float(0, 1))
    made = find_optimizer(method)
    optimizer: Optimizer = made(problem.space, seed=seed, budget=evaluations, contexts=contexts)
    rng = random_stream(seed, 1)
    found = []
    for _ in range(evaluations):
        load = float(rng.random())
        candidate = optimizer.ask(context={"load": load})[0]
        found.append(problem.regret(candidate.config, load))
        optimizer.tell([candidate.result(found[-1] + problem.noise * rng.standard_normal())])
    return {
        f"{first}-{last}": statistics.mean(found[first - 1 : last])
        for first, last in ROUNDS
        if last <= evaluations
    }


def play(task: str, method: str, seed: int, evaluations: int) -> dict[str, Any]:
    """One run: what is left out or lost, and the mean CPU seconds a trial."""
    begin = time.process_time()
    if task in FRONTS:
        found = missing_volumes(FRONTS[task](seed), method, seed, evaluations)
    else:
        found = regrets(UNDER[task](seed), method, seed, evaluations)
    seconds = (time.process_time() - begin) / evaluations
    run = {"task": task, "method": method, "seed": seed, "evaluations": evaluations}
    rounded = {key: float(f"{value:.4g}") for key, value in found.items()}
    return {**run, "found": rounded, "seconds": float(f"{seconds:.3g}")}


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """By task: medians of each method, and whether each is ahead of the others in the end."""
    from scipy.stats import mannwhitneyu

    tasks: dict[str, Any] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        by: dict[str, list[dict[str, Any]]] = {}
        for run in runs:
            if run["task"] == task:
                by.setdefault(run["method"], []).append(run)
        keys = list(next(iter(by.values()))[0]["found"])
        samples = {m: {k: [r["found"][k] for r in mine] for k in keys} for m, mine in by.items()}
        medians = {
            m: {k: statistics.median(values) for k, values in found.items()}
            for m, found in samples.items()
        }
        best, p_values = {}, {}
        for k in keys:
            ahead = best[k] = min(medians, key=lambda m: medians[m][k])
            p_values[k] = {
                m: float(mannwhitneyu(samples[ahead][k], samples[m][k]).pvalue)
                for m in by
                if m != ahead
            }
        tasks[task] = {
            "seeds": min(len(mine) for mine in by.values()),
            "medians": medians,
            "best": best,
            "p_values": p_values,
            "seconds": {m: statistics.median(r["seconds"] for r in mine) for m, mine in by.items()},
        }
    return tasks


def show(summary: dict[str, Any]) -> None:
    """Print the tables."""
    for task, found in [*summary["tasks"].items(), *summary["beyond"].items()]:
        print(f"\n{task}, {found['seeds']} seeds")
        for method, row in found["medians"].items():
            cells = "  ".join(f"{key}: {value:.4f}" for key, value in row.items())
            print(f"  {method:13} {cells}  {1e3 * found['seconds'][method]:6.1f} ms a trial")


def draw(figure: Any, summary: dict[str, Any]) -> None:
    """The medians in the end."""
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    figure.set_size_inches(11, 4)
    rows = (
        (left, FRONTS, SEVERAL, f"missing share of the volume, {EVALUATIONS} trials"),
        (right, UNDER, CONTEXTS, "mean regret of rounds {}-{}".format(*ROUNDS[-1])),
    )
    for axes, names, contenders, label in rows:
        tasks = {n: found for n, found in summary["tasks"].items() if n in names}
        series = {
            method: [[*found["medians"][method].values()][-1] for found in tasks.values()]
            for method in contenders
        }
        draw_bars(axes, y_label=label, groups=list(tasks), series=series)


def main() -> None:
    """Play what is missing, and write."""
    every = [*FRONTS, *UNDER]
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=SEEDS)
    options.add_argument("--tasks", nargs="+", default=every, choices=every)
    options.add_argument("--journal", type=Path, help="where finished runs are kept")
    options.add_argument("--json", type=Path)
    options.add_argument("--plot", type=Path)
    options.add_argument("--summary", action="store_true", help="only what the journal holds")
    options.add_argument("--quick", action="store_true", help="a check of under a minute")
    args = options.parse_args()
    args.name, evaluations = "search_auto", EVALUATIONS
    if args.quick:
        args.seeds, evaluations = 1, CHECKPOINTS[0]
    else:
        args.journal = args.journal or RESULTS / "search_auto_runs.jsonl"
        args.json = args.json or RESULTS / "search_auto.json"
        args.plot = args.plot or RESULTS / "search_auto.png"
    torch.set_num_threads(1)
    seeds = range(args.seeds)

    def played(tasks: Sequence[str], methods: Sequence[str], trials: int) -> list[dict[str, Any]]:
        chosen = [task for task in args.tasks if task in tasks]
        keys = alternating(chosen, [*methods], seeds, trials)
        return play_missing(args.journal, keys, None if args.summary else play)

    runs = [*played([*FRONTS], SEVERAL, evaluations), *played([*UNDER], CONTEXTS, evaluations)]
    beyond = [] if args.quick else played([*FRONTS], BEYOND, MANY)
    summary = {"tasks": summarize(runs), "beyond": summarize(beyond)}
    show(summary)
    save(
        args,
        summary,
        config={"seeds": args.seeds, "tasks": args.tasks, "evaluations": evaluations, "many": MANY},
        plot=None if args.quick else lambda figure: draw(figure, summary),
    )


if __name__ == "__main__":
    main()
