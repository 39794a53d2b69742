"""One training of a submission on a workload, timed by AlgoPerf's rules.

The clock runs while the submission selects data, updates, and prepares for an evaluation; reading
the data set and the evaluation itself are not timed. A trial ends when validation and test targets
are reached, when the submission wants to, or when the clock passes the budget: a step that began
before may end after, but an evaluation after it does not count. NaN is a miss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from sharpen.core.errors import ConfigError
from sharpen.optim.bench.submission import Submission, TrainingComplete
from sharpen.optim.bench.workload import Target, Workload

__all__ = ["Clock", "ClockKind", "TrialResult", "run_trial"]

ClockKind = Literal["steps", "cpu", "wall"]


class Clock:
    """Time of the parts that count.

    Args:
        kind: ``steps``; ``cpu``, seconds of this thread; ``wall``, seconds.
        now: what tells the time, for tests.
    """

    def __init__(self, kind: ClockKind, now: Callable[[], float] | None = None) -> None:
        if kind not in ("steps", "cpu", "wall"):
            raise ConfigError(f"clock={kind!r} must be 'steps', 'cpu' or 'wall'.")
        self.kind = kind
        self.time = 0.0
        self._now = now or (time.thread_time if kind == "cpu" else time.perf_counter)
        self._since = 0.0

    def __enter__(self) -> Clock:
        """Start."""
        self._since = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop."""
        if self.kind != "steps":
            self.time += self._now() - self._since

    def count_step(self) -> None:
        """A step is done."""
        if self.kind == "steps":
            self.time += 1


@dataclass(slots=True)
class TrialResult:
    """What a trial came to."""

    time_to_target: float
    """On the clock; infinite for a miss."""

    status: str
    """``reached``, ``complete``, ``out of time`` or ``diverged``."""

    steps: int
    """Taken."""

    evals: list[dict[str, float]] = field(default_factory=list)
    """``step``, ``time``, ``loss``, ``validation``, ``test``."""


def run_trial(
    workload: Workload,
    submission: Submission,
    settings: Mapping[str, Any],
    target: Target,
    *,
    seed: int,
    clock: Clock | None = None,
    budget: float = 1.0,
    keep_on: bool = False,
) -> TrialResult:
    """Train until the target, or the end of the budget.

    Args:
        workload: what is trained on.
        submission: fresh.
        settings: of the submission.
        target: to be reached, and the budget.
        seed: of the weights and the data's order.
        clock: default ``steps``.
        budget: times the target's budget; 1.5 for self-tuning submissions.
        keep_on: go on to the end of the budget, to see how good it gets.
    """
    clock = clock or Clock("steps")
    limit = budget * (target.max_steps if clock.kind == "steps" else target.max_cpu_s)
    max_steps = round(budget * target.max_steps)
    workload.splits()  # read before the clock starts
    torch.manual_seed(seed)
    model = workload.make_model()
    model.train()
    batches = workload.batches(seed, submission.batch_size(workload))
    result = TrialResult(math.inf, "out of time", 0)
    with clock:
        submission.start(workload, model, settings, max_steps)
    loss = math.nan
    while True:
        complete = False
        try:
            with clock:
                batch = submission.select(batches)
                loss = submission.update(model, batch, result.evals)
            clock.count_step()
            result.steps += 1
        except TrainingComplete:
            complete = True
        late = clock.time >= limit or result.steps >= max_steps
        if not (complete or late or result.steps % workload.eval_every == 0):
            continue
        with clock:
            submission.prepare_for_eval(model)
        found = workload.evaluate(model)
        with clock:
            submission.resume_training(model)
        counts = clock.time <= limit
        row = {"step": result.steps, "time": clock.time, "loss": loss, **found}
        result.evals.append(row)
        if counts and result.time_to_target == math.inf and _done(workload, found, target):
            result.time_to_target, result.status = clock.time, "reached"
            if not keep_on:
                return result
        if not all(math.isfinite(value) for value in (loss, *found.values())):
            if result.status != "reached":
                result.status = "diverged"
            return result
        if complete or late:
            if complete and result.status != "reached":
                result.status = "complete"
            return result


def _done(workload: Workload, found: Mapping[str, float], target: Target) -> bool:
    return workload.reached(found["validation"], target.validation) and workload.reached(
        found["test"], target.test
    )
