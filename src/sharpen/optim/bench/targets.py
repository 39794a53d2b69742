"""Targets set by the rule of AlgoPerf: what well tuned standard methods reach.

AdamW, NAdamW, heavy ball and Nesterov share a number of trials with settings drawn from their
spaces. The best setting is run again with other seeds. The target is the median of the best
validation values; the test target is the worst test value among the half of the runs that reached
it. A trial may take a third more steps, and a third more processor time, than these runs.
"""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sharpen._version import __version__
from sharpen.core.files import atomic_write_json
from sharpen.optim.bench.study import Job, Journal, plan_jobs, run_jobs
from sharpen.optim.bench.suite import TARGETS_FORMAT, find_workload, read_targets
from sharpen.optim.bench.trial import TrialResult
from sharpen.optim.bench.workload import Target

__all__ = ["set_target", "set_targets"]

_METHODS = ("adamw", "nadamw", "heavyball", "nesterov")
_MORE = 4 / 3


def set_targets(
    workloads: Sequence[str],
    path: Path,
    journal: Path,
    *,
    trials: int = 20,
    seeds: int = 10,
    processes: int = 1,
    tell: Callable[[Job, TrialResult], None] = lambda job, result: None,
) -> dict[str, Target]:
    """Set the targets of workloads and write them, each with the rule it was set by.

    Args:
        workloads: names.
        path: the JSON file that gets them; others in it stay.
        journal: trials that are done; a killed run goes on from it.
        trials: with settings, over all four methods.
        seeds: runs of the best setting.
        processes: trials at a time.
        tell: is told of each trial.
    """
    entries: dict[str, Any] = read_targets(path) if path.exists() else {}
    out = {}
    for name in workloads:
        out[name] = set_target(
            name, Journal(journal), trials=trials, seeds=seeds, processes=processes, tell=tell
        )
        entries[name] = {
            **asdict(out[name]),
            "rule": {"methods": list(_METHODS), "trials": trials, "seeds": seeds},
            "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "version": __version__,
        }
        atomic_write_json(path, {"format": TARGETS_FORMAT, "targets": entries})
    return out


def set_target(
    name: str,
    journal: Journal,
    *,
    trials: int,
    seeds: int,
    processes: int = 1,
    tell: Callable[[Job, TrialResult], None] = lambda job, result: None,
) -> Target:
    """The target of one workload; see :func:`set_targets`."""
    workload = find_workload(name)
    never = -math.inf if not workload.higher_is_better else math.inf
    open_end = {name: Target(never, never, workload.steps, math.inf)}
    each = -(-trials // len(_METHODS))
    jobs = plan_jobs(_METHODS, [name], trials=each, studies=1)
    run_jobs(jobs, journal, open_end, processes=processes, keep_on=True, tell=tell)
    rows = [r for r in journal.rows() if r["workload"] == name and r["study"] == 0]
    best = min(rows, key=lambda row: _best(row, workload.higher_is_better)[0])
    again = [
        Job(
            submission=best["submission"],
            workload=name,
            study=1 + number,
            trial=0,
            settings=best["settings"],
            seed=10_000 + number,
            budget=1.0,
            clock="cpu",
            space=None,
        )
        for number in range(seeds)
    ]
    run_jobs(again, journal, open_end, processes=processes, keep_on=True, tell=tell)
    runs = [r for r in journal.rows() if r["workload"] == name and r["study"] >= 1]
    found = [_best(row, workload.higher_is_better) for row in runs]
    sign = -1 if workload.higher_is_better else 1
    middle = statistics.median(value for value, _ in found)
    tests = [test for value, test in found if value <= middle]
    return Target(
        validation=sign * middle,
        test=sign * max(tests),
        max_steps=round(_MORE * workload.steps),
        max_cpu_s=_MORE * statistics.median(row["evals"][-1]["time"] for row in runs),
    )


def _best(row: dict[str, Any], higher_is_better: bool) -> tuple[float, float]:
    """Best validation value of a trial and the test value beside it, lower being better."""
    sign = -1 if higher_is_better else 1
    values = [(sign * e["validation"], sign * e["test"]) for e in row["evals"]]
    finite = [value for value in values if all(map(math.isfinite, value))]
    return min(finite, default=(math.inf, math.inf))
