"""How often a comparison of two programs is wrong on a loaded machine.

    python -m benchmarks.code.bench_measure

Eight processes keep the machine busy. A program is compared with itself: any other answer than
"same" or "unclear" is a false positive. Then with one that does 5 % less work: anything but
"faster" is a miss. Each comparison may take ten seconds. Beside it, on the same pairs, what people
do otherwise: ``timeit`` (the best of five runs of each, by the wall clock, a difference of 2.5 %).
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
import timeit
from typing import Any

from benchmarks.common import OURS, PEER, arguments, save

from sharpen.code.measure import Program, compare
from sharpen.code.measure.process import Late
from sharpen.code.metrics.intervals import bootstrap

SOURCE = """
def f(n):
    found = {{}}
    for i in range(n * {share} // 100):
        key = i * 7919 % 1013
        found[key] = found.get(key, 0) + len(str(i))
    return sum(found.values())
"""
INPUTS = [((400,), {})]
BUSY = 8


def program(share: int) -> Program:
    return Program(source=SOURCE.format(share=share), entry="f")


def by_timeit(a: int, b: int, runs: int) -> str:
    """The best of some runs of each, of a fifth of a second or more."""
    best = []
    for share in (a, b):
        names: dict[str, Any] = {}
        exec(SOURCE.format(share=share), names)
        timer = timeit.Timer("f(400)", globals=names)
        number, _ = timer.autorange()
        best.append(min(timer.repeat(runs, number)) / number)
    ratio = best[0] / best[1]
    return "faster" if ratio >= 1.025 else "slower" if ratio <= 1 / 1.025 else "same"


def busy() -> None:
    """Keep a processor busy for ever."""
    while True:
        sum(range(1000))


def measure(a: int, b: int, times: int, budget_s: float, runs: int) -> dict[str, Any]:
    found: dict[str, list[Any]] = {
        "ours": [],
        "timeit": [],
        "ratio": [],
        "seconds": [],
        "pairs": [],
    }
    for _ in range(times):
        begin = time.monotonic()
        try:
            one = compare(program(a), program(b), INPUTS, budget_s=budget_s)
        except Late:  # no turn on the processor for so long: nothing is known of this pair
            found["ours"].append("unclear")
            found["seconds"].append(time.monotonic() - begin)
            found["timeit"].append(by_timeit(a, b, runs))
            continue
        found["seconds"].append(time.monotonic() - begin)
        found["ours"].append(one.decision)
        found["ratio"].append(one.ratio)
        found["pairs"].append(one.pairs)
        found["timeit"].append(by_timeit(a, b, runs))
        print(f"{a}/{b} {one.summary()}", file=sys.stderr, flush=True)
    wrong = {"faster", "slower"} if a == b else {"same", "slower", "unclear"}
    told: dict[str, Any] = {"times": times}
    for name in ("ours", "timeit"):
        bad = [float(one in wrong) for one in found[name]]
        told[name] = {
            "wrong": statistics.mean(bad),
            "interval": vars_of(bootstrap(bad)),
            "decisions": {d: found[name].count(d) for d in ("faster", "same", "slower", "unclear")},
        }
    told["median_ratio"] = statistics.median(found["ratio"])
    told["median_seconds"] = statistics.median(found["seconds"])
    told["median_pairs"] = statistics.median(found["pairs"])
    return told


def vars_of(one: Any) -> dict[str, float]:
    return {"value": one.value, "low": one.low, "high": one.high}


def main() -> int:
    args = arguments(__doc__, "code_measure")
    quick = args.quick
    workers = [
        multiprocessing.get_context("spawn").Process(target=busy, daemon=True)
        for _ in range(0 if quick else BUSY)
    ]
    for worker in workers:
        worker.start()
    try:
        times, budget, runs = int(os.environ.get("BENCH_TIMES", "100")), 10.0, 5
        if quick:
            times, budget, runs = 2, 1.0, 1
        results = {
            "itself": measure(100, 100, times, budget, runs),
            "five_percent": measure(105, 100, times, budget, runs),
        }
    finally:
        for worker in workers:
            worker.kill()

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        for i, (name, colour) in enumerate((("ours", OURS), ("timeit", PEER))):
            values = [100 * results[part][name]["wrong"] for part in ("itself", "five_percent")]
            axes.bar([k + 0.35 * i for k in range(2)], values, 0.35, color=colour, label=name)
        axes.set_xticks([0.17, 1.17], ["itself called different", "5 % missed"])
        axes.set_ylabel("wrong answers, %")
        axes.legend(frameon=False)

    save(args, results, config={"busy": len(workers)}, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
