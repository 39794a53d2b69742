"""Architecture search: the simulator's speed, the lottery of hyper-parameters, proxies.

The lottery runs each family of algorithms under its default and drawn settings, every one with the
same number of trials and the same seeds, on three DRAM controllers, and sets the spread within a
family against the difference between families. Proxies are trained on configurations drawn
uniformly, and on those that the families tried; their time is set against this simulator's, one
configuration at a time and ten thousand at once.

The store of trials is kept in bench-out (or where BENCH_ARCH_STORE says): the benchmark goes on
where it was interrupted. Times are the processor's, not the wall's.

    python -m benchmarks.search.bench_arch [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.common import arguments, save

from sharpen.core.store import open_store
from sharpen.problems.arch import (
    SPECS,
    WORKLOADS,
    Dataset,
    DramController,
    ProxyModel,
    Sample,
    make,
    workload,
)
from sharpen.search import sweep

FAMILIES = ("random-walk", "ga", "aco", "tpe", "ppo")
PROBLEMS = (("cloud-1", "joint"), ("random", "power"), ("llm-decode", "latency"))
REQUESTS = 2000
PROXY_WORKLOADS = ("stream", "cloud-2")


def speed(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of 10,000 requests, and commands a second."""
    rows = []
    for name in SPECS:
        for kind in WORKLOADS:
            controller = DramController(workload(kind, requests=10_000), name)
            result = controller.run()
            seconds = []
            for _ in range(repeats):
                begin = time.process_time()
                controller.run()
                seconds.append(time.process_time() - begin)
            middle = statistics.median(seconds)
            rows.append(
                {
                    "memory": name,
                    "workload": kind,
                    "ms": middle * 1e3,
                    "commands": result.counts["commands"],
                    "commands_a_second": result.counts["commands"] / middle,
                    "bandwidth_gb_s": result.bandwidth_bytes_s / 1e9,
                    "latency_ns": result.latency_ns,
                    "power_w": result.power_w,
                }
            )
            print(rows[-1], flush=True)
    return rows


def lottery(store: str, settings: int, seeds: int, budget: int) -> dict[str, Any]:
    """Every family under its settings."""
    problems = [make(workload=w, target=t, requests=REQUESTS) for w, t in PROBLEMS]  # type: ignore[arg-type]
    done = 0
    begin = time.perf_counter()

    def tell(experiment: Any) -> None:
        nonlocal done
        done += 1
        if done % 50 == 0:
            print(done, experiment.study, f"{time.perf_counter() - begin:.0f} s", flush=True)

    found = sweep(
        problems,
        dict.fromkeys(FAMILIES, settings),
        budget=budget,
        seeds=seeds,
        store=store,
        on_experiment=tell,
    )
    print(found.summary(), flush=True)
    lotteries = [
        {
            "problem": one.problem,
            "within": one.within,
            "between_tuned": one.between_tuned,
            "between_medians": one.between_medians,
            "holds": one.holds,
        }
        for one in found.lottery()
    ]
    return {
        "experiments": len(found.experiments),
        "seconds_of_this_run": time.perf_counter() - begin,
        "rows": found.table(),
        "lottery": lotteries,
        "scores": {p.name: found.scores(p.name) for p in problems},
    }


def proxies(counts: list[int], test: int) -> list[dict[str, Any]]:
    """Errors of models by the number of samples they were given, drawn uniformly."""
    rows = []
    for kind in PROXY_WORKLOADS:
        problem = make(workload=kind, requests=REQUESTS)
        configs = problem.space.sample(max(counts) + test, seed=11)
        samples = [Sample(c, problem.evaluate(c), "uniform", "uniform") for c in configs]
        pool = Dataset(problem.space, samples)
        for count in counts:
            part = pool[: count + test]
            for model in ("rf", "et"):
                begin = time.perf_counter()
                made = ProxyModel.fit(part, model, test=test / len(part), like=problem)  # type: ignore[arg-type]
                row = {
                    "workload": kind,
                    "model": model,
                    "samples": len(part) - len(made.test),
                    "fit_s": time.perf_counter() - begin,
                    "errors": {
                        name: {
                            "relative_rmse": q.relative_rmse,
                            "median_error": q.median_error,
                            "coverage_90": q.coverage,
                        }
                        for name, q in made.quality.items()
                    },
                }
                if model == "rf":
                    row["times"] = times(problem, made, configs)
                rows.append(row)
                print(row, flush=True)
    return rows


def times(problem: Any, made: ProxyModel, configs: list[dict[str, Any]]) -> dict[str, float]:
    """Microseconds a configuration: simulated, predicted alone, and ten thousand at once."""
    many = (configs * (10_000 // len(configs) + 1))[:10_000]

    def per(work: Any, count: int) -> float:
        begin = time.process_time()
        work()
        return (time.process_time() - begin) / count * 1e6

    some = configs[:100]
    return {
        "simulated_us": per(lambda: [problem.evaluate(c) for c in some], len(some)),
        "alone_us": per(lambda: [made.predict([c]) for c in some], len(some)),
        "batch_us": per(lambda: made.predict(many), len(many)),
    }


def by_agent(store: str) -> list[dict[str, Any]]:
    """A forest on what some families tried, tested on a family it did not see, by target."""
    rows = []
    names = [record.name for record in open_store(store).studies()]
    for kind, target in PROBLEMS:
        mine = [name for name in names if name.startswith(f"dram-{kind}-{target}/")]
        pool = Dataset.from_studies(store, mine)
        for split, test in (("random", 0.2), ("by-agent", ["ga"])):
            made = ProxyModel.fit(pool, split=split, test=test)  # type: ignore[arg-type]
            rows.append(
                {
                    "problem": f"dram-{kind}-{target}",
                    "split": split,
                    "given": pool.given,
                    "samples": len(pool) - len(made.test),
                    "test": len(made.test),
                    "errors": {
                        name: {"relative_rmse": q.relative_rmse, "coverage_90": q.coverage}
                        for name, q in made.quality.items()
                    },
                }
            )
            print(rows[-1], flush=True)
    return rows


def draw(figure: Any, found: dict[str, Any]) -> None:
    """The scores of all settings, by problem and family."""
    scores = found["lottery"]["scores"]
    axes = figure.subplots(1, len(scores))
    for axis, (problem, families) in zip(axes, scores.items(), strict=True):
        for k, settings in enumerate(families.values()):
            values = list(settings.values())
            axis.plot([k] * len(values), values, "o", alpha=0.5, markersize=4, color="#1f5fa8")
            axis.plot([k - 0.3, k + 0.3], [statistics.median(values)] * 2, color="black")
        axis.set_xticks(range(len(families)), list(families), rotation=60, fontsize=7)
        axis.set_title(problem, fontsize=8)
    axes[0].set_ylabel("median best reward of a setting")


def main() -> None:
    args = arguments(__doc__, "search_arch")
    folder = Path(os.environ.get("BENCH_ARCH_STORE", "bench-out"))
    folder.mkdir(parents=True, exist_ok=True)
    store = str(folder / ("arch_quick.db" if args.quick else "arch.db"))
    settings, seeds, budget = (2, 1, 10) if args.quick else (24, 3, 150)
    found = {
        "speed": speed(1 if args.quick else 15),
        "proxies": proxies(
            [200] if args.quick else [2_000, 8_000, 32_000], 100 if args.quick else 4_000
        ),
        "lottery": lottery(store, settings, seeds, budget),
    }
    # The first trials of the same experiments, from the store.
    found["lottery_short"] = lottery(store, settings, seeds, budget // 5)
    found["by_agent"] = by_agent(store)
    config = {
        "families": FAMILIES,
        "problems": PROBLEMS,
        "requests": REQUESTS,
        "settings": settings,
        "seeds": seeds,
        "budget": budget,
    }
    save(args, found, config=config, plot=lambda figure: draw(figure, found))


if __name__ == "__main__":
    main()
