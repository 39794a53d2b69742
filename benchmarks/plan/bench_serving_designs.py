"""Designs of serving clusters at one power: requests a second within all limits, simulated.

Llama-2 70B, traces drawn with the published medians of coding and conversation, 116 kW, batching as
in the simulator of Splitwise (``whole``; Patel et al., ISCA 2024); and the engine's own scheduler
(``scheduled``) at 58 kW. The paper states up to 2.35 times the throughput at equal cost and power,
and 1.4 times at 20 % lower cost; ``ratios`` has ours. Nothing is timed.

    python -m benchmarks.plan.bench_serving_designs [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
import sys
from typing import Any

from benchmarks.common import arguments, draw_bars, save

DESIGNS = ("HA", "HHcap", "HH", "AA", "Baseline-H100", "Baseline-A100")
RUNS = {"whole": ("116kW", 40), "scheduled": ("58kW", 25)}
KINDS = {"conv": "conversation", "code": "coding"}


def search(kind: str, batching: str, budget: str, seconds: int, designs: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "sharpen.cli.main", "plan", "cluster", "--trace", kind]
    command += ["--designs", designs, "--objective", "iso-power", "--budget", budget]
    command += ["--batching", batching, "--seconds", str(seconds), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {one["design"]: one for one in json.loads(done.stdout)["designs"]}


def main() -> int:
    options = arguments(__doc__, "plan_serving")
    runs = {"whole": ("26kW", 10)} if options.quick else RUNS
    designs = ",".join(DESIGNS[-3:] if options.quick else DESIGNS)
    jobs = [(kind, batching, *how) for batching, how in runs.items() for kind in KINDS]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda job: search(*job, designs), jobs))
    results: dict[str, Any] = {batching: {} for batching in runs}
    for (kind, batching, *_), rows in zip(jobs, found, strict=True):
        rates = {name: row["rate"] for name, row in rows.items()}
        costs = {name: row["cost_per_h"] for name, row in rows.items()}
        pairs = [("AA", "Baseline-A100"), ("HH", "Baseline-H100"), ("AA", "Baseline-H100")]
        pairs += [("HA", "Baseline-H100")]
        results[batching][kind] = {
            "designs": rows,
            "ratios": {
                f"{ours} to {base}": {
                    "throughput": rates[ours] / rates[base],
                    "cost": costs[ours] / costs[base],
                }
                for ours, base in pairs
                if ours in rates and base in rates
            },
        }
        print(batching, kind, rates, results[batching][kind]["ratios"])
    save(
        options,
        results,
        config={"runs": runs, "model": "llama2-70b", "objective": "iso-power"},
        plot=lambda figure: draw(figure, next(iter(results.values()))),
    )
    return 0


def draw(figure: Any, found: dict[str, Any]) -> None:
    names = [n for n in DESIGNS if all(n in one["designs"] for one in found.values())]
    draw_bars(
        figure.subplots(),
        y_label="requests a second within the limits",
        groups=names,
        series={
            KINDS[kind]: [one["designs"][n]["rate"] for n in names] for kind, one in found.items()
        },
    )


if __name__ == "__main__":
    sys.exit(main())
