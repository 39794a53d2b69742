"""Studies: a submission's trials on workloads, each in a process of its own, in a journal.

External tuning: five settings drawn quasi-randomly from the submission's space, three times; a
workload's time is the median over the studies of the best trial. Self-tuning: three trials without
settings and half as much again of the budget. The journal has a line a trial and is all that is
kept, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import concurrent.futures
import json
import math
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sharpen.core.errors import ExecutionError, FileFormatError, storage_errors
from sharpen.optim.bench.halton import draw
from sharpen.optim.bench.scoring import workload_time
from sharpen.optim.bench.submission import find_submission
from sharpen.optim.bench.suite import find_workload
from sharpen.optim.bench.trial import Clock, ClockKind, TrialResult, run_trial
from sharpen.optim.bench.workload import Target

__all__ = ["Job", "Journal", "Ruleset", "plan_jobs", "run_jobs", "times_of"]

Ruleset = Literal["external", "self"]
_STUDIES, _TRIALS, _SELF_BUDGET = 3, 5, 1.5


@dataclass(frozen=True, slots=True)
class Job:
    """A trial to run."""

    submission: str
    """Name or file."""

    workload: str
    """Name."""

    study: int
    """From 0."""

    trial: int
    """From 0."""

    settings: dict[str, Any]
    """Of the submission."""

    seed: int
    """Of weights and data."""

    budget: float
    """Times the target's."""

    clock: ClockKind
    """What is counted."""

    space: str | None = None
    """File of a search space that was given."""

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """What tells trials apart."""
        return self.submission, self.workload, self.clock, self.study, self.trial


def plan_jobs(
    submissions: Sequence[str],
    workloads: Sequence[str],
    *,
    rules: Ruleset = "external",
    clock: ClockKind = "steps",
    trials: int = _TRIALS,
    studies: int = _STUDIES,
    seed: int = 0,
    space: Path | None = None,
) -> list[Job]:
    """All trials of submissions on workloads, with their settings.

    A study's settings are the same on all workloads, as a submission's hyperparameters may not
    depend on the workload; every trial has its own seed.
    """
    external = rules == "external"
    jobs = []
    for name in submissions:
        found = find_submission(name, space)
        count = trials if external else 1
        points: list[dict[str, Any]] = [{}] * (studies * count)
        if external:
            points = draw(found.space, studies * count, seed=seed)
        for workload in workloads:
            find_workload(workload)
            for number, settings in enumerate(points):
                study, trial = divmod(number, count)
                jobs.append(
                    Job(
                        submission=name,
                        workload=workload,
                        study=study,
                        trial=trial,
                        settings=settings,
                        seed=seed + 1 + number,
                        budget=1.0 if external else _SELF_BUDGET,
                        clock=clock,
                        space=str(space) if space is not None else None,
                    )
                )
    return jobs


class Journal:
    """Trials that are done, a JSON line each.

    Args:
        path: the file; made when the first trial is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, job: Job, result: TrialResult) -> None:
        """Append a trial."""
        row = {**asdict(job), **asdict(result)}
        if row["time_to_target"] == math.inf:
            row["time_to_target"] = None
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """All whole lines; the last may have been cut short by a kill.

        Raises:
            FileFormatError: another line is no trial.
        """
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        out = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                row["time_to_target"] = (
                    math.inf if row["time_to_target"] is None else row["time_to_target"]
                )
                out.append(row)
            except (ValueError, KeyError, TypeError):
                if number < len(lines):
                    raise FileFormatError(f"{self.path}:{number} is no trial.") from None
        return out


def run_jobs(
    jobs: Sequence[Job],
    journal: Journal,
    targets: Mapping[str, Target],
    *,
    processes: int = 1,
    timeout_s: float = 600.0,
    keep_on: bool = False,
    tell: Callable[[Job, TrialResult], None] = lambda job, result: None,
) -> None:
    """Run the trials that are not in the journal.

    Args:
        jobs: of :func:`plan_jobs`.
        journal: gets them.
        targets: by workload; a variant has its own.
        processes: trials at a time, each on one thread.
        timeout_s: a trial that takes longer ends the run.
        keep_on: go on after the target.
        tell: is told of each trial as it ends.

    Raises:
        ExecutionError: a trial failed or took too long; names it.
    """
    done = {
        (r["submission"], r["workload"], r["clock"], r["study"], r["trial"]) for r in journal.rows()
    }
    left = [job for job in jobs if job.key not in done]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sharpen.optim.bench.study"])  # each would load torch
    with concurrent.futures.ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool:
        running = {
            pool.submit(_run, job, targets[job.workload], keep_on, timeout_s): job for job in left
        }
        try:
            for future in concurrent.futures.as_completed(running):
                job = running[future]
                try:
                    result = future.result()
                except Exception as error:
                    raise ExecutionError(
                        f"trial {job.trial} of study {job.study} of {job.submission} on "
                        f"{job.workload} failed: {type(error).__name__}: {error}"
                    ) from error
                journal.add(job, result)
                tell(job, result)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _run(job: Job, target: Target, keep_on: bool, timeout_s: float) -> TrialResult:
    """A trial, in the main thread of a process of its own."""
    import torch

    def stop(*args: object) -> None:
        raise TimeoutError(f"it took longer than {timeout_s:g} s")

    signal.signal(signal.SIGALRM, stop)
    # again each second: a callback or another's ``except Exception`` may swallow the first
    signal.setitimer(signal.ITIMER_REAL, timeout_s, 1.0)
    torch.set_num_threads(1)
    try:
        return run_trial(
            find_workload(job.workload),
            find_submission(job.submission, Path(job.space) if job.space else None),
            job.settings,
            target,
            seed=job.seed,
            clock=Clock(job.clock),
            budget=job.budget,
            keep_on=keep_on,
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def times_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Each submission's time on each workload, from a journal's rows."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for row in rows:
        studies = found.setdefault(row["submission"], {}).setdefault(row["workload"], {})
        studies.setdefault(row["study"], []).append(row["time_to_target"])
    return {
        name: {w: workload_time(list(studies.values())) for w, studies in by_workload.items()}
        for name, by_workload in found.items()
    }
