"""Population methods on BBOB, beside the original implementations, with equal evaluations.

The 24 noiseless functions of the black-box optimization benchmark, from the package ``ioh``, in 2,
5, 10 and 20 dimensions, two instances each, 200 d evaluations, one thread. On every function and
instance the methods run in turn, with the instance as their seed, from the middle of [-5, 5]^d
where a method takes a start, and otherwise as its package chooses by itself.

A target is a distance to the minimum, 51 from 100 to 1e-8 in equal steps of the logarithm. A method
that reaches a target after t of B evaluations scores log(B / t) / log(B), else 0; the score of a
run is the mean over the targets, which is the area under its empirical runtime distribution.

What is compared: ``cmaes`` with ``cma`` (its own restarts) and with nevergrad's CMA; ``de``,
``jade`` and ``lshade`` with SciPy's differential evolution and nevergrad's; ``pso`` with
nevergrad's. Printed: mean scores by dimension with 95 % intervals by resampling functions and
instances, the part of runs that are won against each peer (a tie is half), and milliseconds an
evaluation, of which the function takes a few hundredths at most. It is told where ours loses.

Finished runs are kept in a journal, and a run that is in it is not repeated, so that the benchmark
can be stopped and gone on with: BENCH_BBOB_JOURNAL names the file. BENCH_BBOB_DIMENSIONS chooses
other dimensions, such as "2,5".

    python -m benchmarks.search.bench_bbob [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from benchmarks.common import OURS, PEER, arguments, save

from sharpen.core.optimizer import make_optimizer
from sharpen.core.parameters import Float
from sharpen.core.problem import Objective
from sharpen.core.space import Space

TARGETS = np.logspace(2, -8, 51)
BUDGET = 200  # by dimension
OWN = ("cmaes", "de", "jade", "lshade", "pso")
PEERS = {
    "cmaes": ("cma", "nevergrad CMA"),
    "de": ("scipy DE", "nevergrad DE"),
    "jade": ("scipy DE", "nevergrad DE"),
    "lshade": ("scipy DE", "nevergrad DE"),
    "pso": ("nevergrad PSO",),
}
Function = Callable[[np.ndarray], float]


class _Spent(Exception):
    """The evaluations are used up."""


class Counted:
    """A function that notes when each target is reached and stops after its budget."""

    def __init__(self, problem: Any, budget: int) -> None:
        self.problem, self.budget = problem, budget
        self.evaluations, self.best = 0, math.inf
        self.hits = np.full(len(TARGETS), np.inf)

    def __call__(self, x: Any) -> float:
        """The value at ``x`` [d]."""
        if self.evaluations >= self.budget:
            raise _Spent
        self.evaluations += 1
        value = float(self.problem(np.asarray(x, dtype=float)))
        distance = value - float(self.problem.optimum.y)
        if distance < self.best:
            self.best = distance
            reached = (distance <= TARGETS) & np.isinf(self.hits)
            self.hits[reached] = self.evaluations
        return value

    @property
    def score(self) -> float:
        """The mean over the targets; see the module."""
        reached = np.where(np.isinf(self.hits), self.budget, self.hits)
        return float(np.mean(np.log(self.budget / reached) / math.log(self.budget)))


def run_own(name: str, function: Counted, d: int, seed: int) -> None:
    space = Space({f"x{i}": Float(-5, 5) for i in range(d)})
    optimizer = make_optimizer(name, space, [Objective("value")], seed=seed, budget=function.budget)
    while True:
        [candidate] = optimizer.ask()
        optimizer.tell([candidate.result(function(list(candidate.config.values())))])


def run_cma(function: Counted, d: int, seed: int) -> None:
    import cma

    options = {"bounds": [0, 1], "seed": seed, "verbose": -9, "verb_log": 0, "verb_disp": 0,
               "maxfevals": function.budget}  # fmt: skip
    while True:  # the last restart may leave evaluations over
        cma.fmin2(
            lambda u: function(10 * np.asarray(u) - 5),
            [0.5] * d,
            0.25,
            options,
            restarts=9,
            bipop=True,
        )
        options["seed"] += 1000


def run_scipy(function: Counted, d: int, seed: int) -> None:
    from scipy.optimize import differential_evolution

    while True:
        differential_evolution(
            function, [(-5, 5)] * d, rng=seed, maxiter=10**6, polish=False, x0=[0.0] * d
        )
        seed += 1000


def run_nevergrad(name: str, function: Counted, d: int, seed: int) -> None:
    import nevergrad as ng

    space = ng.p.Array(shape=(d,)).set_bounds(-5, 5)
    space.random_state.seed(seed)
    optimizer = ng.optimizers.registry[name](space, budget=function.budget, num_workers=1)
    while True:
        candidate = optimizer.ask()
        optimizer.tell(candidate, function(candidate.value))


def contenders() -> dict[str, Callable[[Counted, int, int], None]]:
    found: dict[str, Callable[[Counted, int, int], None]] = {}
    for name in OWN:
        found[name] = lambda f, d, s, name=name: run_own(name, f, d, s)
    found["cma"] = run_cma
    found["scipy DE"] = run_scipy
    for name in ("CMA", "DE", "PSO"):
        found[f"nevergrad {name}"] = lambda f, d, s, name=name: run_nevergrad(name, f, d, s)
    return found


def measure(
    dimensions: Sequence[int],
    functions: Sequence[int],
    instances: Sequence[int],
    journal: Path | None = None,
) -> list[dict[str, Any]]:
    """One row a run."""
    rows = []
    if journal is not None and journal.exists():
        rows = [json.loads(line) for line in journal.read_text().splitlines()]
        rows = [row for row in rows if row["d"] in dimensions]
    known = {(r["method"], r["d"], r["function"], r["instance"]) for r in rows}
    for d in dimensions:
        for k in functions:
            for instance in instances:
                for name, work in contenders().items():
                    if (name, d, k, instance) in known:
                        continue
                    rows.append({"method": name, **_run(work, d, k, instance)})
                    if journal is not None:
                        with journal.open("a") as file:
                            file.write(json.dumps(rows[-1]) + "\n")
        print(f"d={d} done", flush=True)
    return rows


def _run(
    work: Callable[[Counted, int, int], None], d: int, k: int, instance: int
) -> dict[str, Any]:
    import ioh

    function = Counted(ioh.get_problem(k, instance=instance, dimension=d), BUDGET * d)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(_Spent):
            work(function, d, instance)
    seconds = time.perf_counter() - begin
    return {
        "d": d,
        "function": k,
        "instance": instance,
        "score": function.score,
        "distance": function.best,
        "ms": 1e3 * seconds / function.evaluations,
    }


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    by_run = {(r["method"], r["d"], r["function"], r["instance"]): r for r in rows}
    dimensions = sorted({r["d"] for r in rows})
    methods = list(dict.fromkeys(r["method"] for r in rows))
    scores: dict[str, dict[str, Any]] = {}
    for method in methods:
        scores[method] = {}
        for d in dimensions:
            own = np.array([r["score"] for r in rows if r["method"] == method and r["d"] == d])
            draws = rng.choice(own, size=(2000, len(own))).mean(axis=1)
            scores[method][str(d)] = {
                "mean": float(own.mean()),
                "interval": np.percentile(draws, [2.5, 97.5]).tolist(),
                "ms": statistics.median(
                    r["ms"] for r in rows if r["method"] == method and r["d"] == d
                ),
            }
    wins: dict[str, dict[str, Any]] = {}
    for ours, peers in PEERS.items():
        wins[ours] = {}
        for peer in peers:
            found, ratios = {}, {}
            for d in dimensions:
                pairs = [
                    (r["score"], by_run[peer, d, r["function"], r["instance"]]["score"])
                    for r in rows
                    if r["method"] == ours and r["d"] == d
                ]
                better = [
                    1.0 if a > b + 1e-12 else 0.5 if a >= b - 1e-12 else 0.0 for a, b in pairs
                ]
                found[str(d)] = statistics.mean(better)
                ratios[str(d)] = sum(a for a, _ in pairs) / sum(b for _, b in pairs)
            wins[ours][peer] = {"won": found, "score_ratio": ratios}
    return {"scores": scores, "against": wins}


def show(summary: dict[str, Any]) -> None:
    dimensions = list(next(iter(summary["scores"].values())))
    print(f"{'score':16}" + "".join(f"{'d=' + d:>22}" for d in dimensions))
    for method, by_d in summary["scores"].items():
        cells = [
            f"{v['mean']:.3f} [{v['interval'][0]:.3f}, {v['interval'][1]:.3f}]"
            for v in by_d.values()
        ]
        print(f"{method:16}" + "".join(f"{c:>22}" for c in cells))
    print(f"\n{'ms an evaluation':16}" + "".join(f"{'d=' + d:>10}" for d in dimensions))
    for method, by_d in summary["scores"].items():
        print(f"{method:16}" + "".join(f"{v['ms']:>10.3f}" for v in by_d.values()))
    print("\nours / peer: score ratio (part of runs won)")
    for ours, peers in summary["against"].items():
        for peer, found in peers.items():
            cells = [
                f"{found['score_ratio'][d]:.2f} ({found['won'][d]:.0%})"
                + (" loses" if found["score_ratio"][d] < 0.99 else "")
                for d in dimensions
            ]
            print(f"{ours + ' / ' + peer:24}" + "".join(f"{c:>20}" for c in cells))


def draw(figure: Any, summary: dict[str, Any]) -> None:
    axes = figure.subplots()
    dimensions = list(next(iter(summary["scores"].values())))
    styles = ["-", "--", "-.", ":", (0, (5, 1))]
    ours = peers = 0
    for method, by_d in summary["scores"].items():
        is_ours = method in OWN
        style = styles[(ours if is_ours else peers) % len(styles)]
        marker = "o" if is_ours else "s"
        axes.plot(
            dimensions,
            [v["mean"] for v in by_d.values()],
            linestyle=style,
            marker=marker,
            color=OURS if is_ours else PEER,
            label=method,
        )
        ours, peers = ours + is_ours, peers + (not is_ours)
    ratios = summary["against"]["cmaes"]["cma"]["score_ratio"]
    axes.set_title(
        "BBOB, 24 functions, 200 d evaluations; cmaes / cma: "
        + ", ".join(f"{v:.2f}" for v in ratios.values())
    )
    axes.set_xlabel("dimensions")
    axes.set_ylabel("area under the runtime distribution")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main() -> None:
    args = arguments(__doc__, "search_bbob")
    if args.quick:
        rows = measure((2,), range(1, 25, 4), range(1, 2))
    else:
        chosen = os.environ.get("BENCH_BBOB_DIMENSIONS", "2,5,10,20")
        journal = os.environ.get("BENCH_BBOB_JOURNAL")
        rows = measure(
            tuple(int(d) for d in chosen.split(",")),
            range(1, 25),
            range(1, 3),
            Path(journal) if journal else None,
        )
    summary = summarize(rows)
    show(summary)
    if args.quick:
        ratio = summary["against"]["cmaes"]["cma"]["score_ratio"]["2"]
        assert ratio > 0.7, f"cmaes scores {ratio:.2f} of cma"
    packages = ("cma", "nevergrad", "ioh", "scipy")
    config = {
        "targets": [1e2, 1e-8, len(TARGETS)],
        "evaluations": f"{BUDGET} d",
        "versions": {name: metadata.version(name) for name in packages},
    }
    results = {**summary, "runs": rows}
    save(args, results, config=config, plot=lambda figure: draw(figure, summary))


if __name__ == "__main__":
    main()
