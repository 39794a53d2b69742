"""Learning omega of SOR while solving: what it costs beside every fixed omega.

Systems are the published shifted Laplacians (n = 100, high and low variance), 5,000 a run, over the
same seeds for each policy; a cost is the mean number of SOR iterations to a residual of 1e-8. The
best fixed omega is chosen in hindsight on the run's own systems; the instance optimum takes the
best omega of the grid for each system. And the time of the heat equation's steps with SSOR-CG
learnt, beside SSOR-CG at fixed omegas and plain CG.

    python -m benchmarks.search.bench_relax [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy.sparse.linalg
from benchmarks.common import arguments, save

from sharpen.core.space import random_stream
from sharpen.problems.solvers import LearnedSolver, heat_equation, shifted_laplacians, sor, ssor_cg
from sharpen.problems.solvers.sequences import Variance, solve_all
from sharpen.search.bandits import Binned, ChebCB, TsallisINF

GRID = np.linspace(1.0, 1.95, 20)
POLICIES = {"tsallis_inf": TsallisINF, "binned": Binned, "chebcb": ChebCB}
FIXED = (1.0, 1.3, 1.5, 1.75, 1.95)
POOL = 400


def table(variance: Variance) -> tuple[Any, Any]:
    """[POOL, 20] iterations of each system at each omega; [POOL] contexts in [0, 1]."""
    systems = list(shifted_laplacians(POOL, variance=variance, seed=17))
    rows = [[sor(s.matrix, s.b, float(omega)).iterations for omega in GRID] for s in systems]
    return np.array(rows), np.array([(s.context + 0.15) / 0.6 for s in systems])


def run(costs: Any, contexts: Any, make: Any, steps: int, seed: int) -> tuple[Any, Any, float]:
    """[steps] costs of a policy, [steps] systems, and its own microseconds a round."""
    policy, rng = make(len(GRID)), random_stream(seed, 0)
    order = rng.integers(POOL, size=steps)
    draws = rng.random(steps)
    paid = np.empty(steps)
    begin = time.perf_counter()
    for t, (i, u) in enumerate(zip(order, draws, strict=True)):
        arm, p = policy.choose(u, contexts[i])
        paid[t] = costs[i, arm]
        policy.learn(arm, paid[t] - 1.0, p, contexts[i])
    return paid, order, (time.perf_counter() - begin) / steps * 1e6


def regret(variance: Variance, steps: int, seeds: int) -> dict[str, Any]:
    """Each policy's cost over that of the best fixed omega, at marks along the run."""
    costs, contexts = table(variance)
    marks = [m for m in (100, 200, 500, 1000, 2000, 3000, 5000) if m <= steps]
    found: dict[str, Any] = {
        "fixed": {f"{omega:.2f}": float(c) for omega, c in zip(GRID, costs.mean(0), strict=True)},
        "instance_best": float(costs.min(axis=1).mean()),
        "steps": marks,
    }
    for name, make in POLICIES.items():
        ratios, times = [], []
        for seed in range(seeds):
            paid, order, micros = run(costs, contexts, make, steps, seed)
            best = costs[order].mean(axis=0).min()
            ratios.append([paid[:m].mean() / best for m in marks])
            times.append(micros)
        sorted_ratios = np.sort(np.array(ratios), axis=0)
        found[name] = {
            "over_best_fixed": [float(x) for x in sorted_ratios.mean(axis=0)],
            "least": [float(x) for x in sorted_ratios[0]],
            "most": [float(x) for x in sorted_ratios[-1]],
            "us_a_round": statistics.median(times),
        }
        print(variance, name, [round(x, 3) for x in found[name]["over_best_fixed"]], flush=True)
    return found


def heat(side: int, steps: int) -> dict[str, Any]:
    """Seconds and iterations of the heat equation's steps."""
    low, high = 0.0, 10.0
    rate = 0.5e-3 * (side + 1) ** 2

    def context(matrix: Any, b: Any) -> float:
        return float((matrix[0, 0] - 1) / 4 / rate)

    def plain(system: Any) -> Any:
        count = 0

        def add(x: Any) -> None:
            nonlocal count
            count += 1

        r0 = np.linalg.norm(system.b - system.matrix @ system.x0)
        x, _ = scipy.sparse.linalg.cg(
            system.matrix, system.b, x0=system.x0, rtol=0.0, atol=1e-8 * r0, callback=add
        )
        return Counted(x, count)

    learned = {
        "tsallis_inf": LearnedSolver("ssor_cg", seed=1),
        "chebcb": LearnedSolver("ssor_cg", context=context, interval=(low, high), seed=1),
    }

    def by(solver: LearnedSolver) -> Any:
        def solve(system: Any) -> Any:
            solver.solve(system.matrix, system.b, system.x0)
            return solver.last

        return solve

    contenders = {f"omega {w}": lambda s, w=w: ssor_cg(s.matrix, s.b, w, x0=s.x0) for w in FIXED}
    contenders |= {name: by(solver) for name, solver in learned.items()} | {"scipy cg": plain}
    found = {}
    for name, solve in contenders.items():
        begin = time.perf_counter()
        solutions = solve_all(heat_equation(steps, side=side), solve)
        found[name] = {
            "iterations": int(sum(s.iterations for s in solutions)),
            "seconds": time.perf_counter() - begin,
        }
        print("heat", side, name, found[name], flush=True)
    return found


class Counted:
    """A solution and how many iterations it took."""

    def __init__(self, x: Any, iterations: int) -> None:
        self.x, self.iterations = x, iterations


def draw(figure: Any, found: dict[str, Any]) -> None:
    """The curves of cost over the best fixed omega."""
    axes = figure.subplots(1, 2, sharey=True)
    for axis, variance in zip(axes, ("high", "low"), strict=True):
        rows = found[variance]
        for name in POLICIES:
            (line,) = axis.plot(rows["steps"], rows[name]["over_best_fixed"], "o-", label=name)
            band = (rows["steps"], rows[name]["least"], rows[name]["most"])
            axis.fill_between(*band, alpha=0.15, color=line.get_color())
        best = min(rows["fixed"].values())
        axis.axhline(1.0, color="gray", linestyle="--", label="best fixed omega")
        low = rows["instance_best"] / best
        axis.axhline(low, color="gray", linestyle=":", label="best of each system")
        axis.set(xscale="log", xlabel="systems solved", title=f"{variance} variance")
    axes[0].set_ylabel("mean iterations / best fixed")
    axes[0].legend(frameon=False, fontsize=8)


def main() -> None:
    args = arguments(__doc__, "search_relax")
    steps, seeds = (500, 2) if args.quick else (5000, 40)
    found: dict[str, Any] = {v: regret(v, steps, seeds) for v in ("high", "low")}  # type: ignore[arg-type]
    found["heat"] = {} if args.quick else {str(side): heat(side, 2000) for side in (25, 50)}
    config = {"steps": steps, "seeds": seeds, "pool": POOL, "grid": GRID.tolist()}
    save(args, found, config=config, plot=lambda figure: draw(figure, found))


if __name__ == "__main__":
    main()
