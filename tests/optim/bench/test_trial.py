"""The rules of a trial, with a clock that a test moves."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.optim.bench.submission import Submission, TrainingComplete
from sharpen.optim.bench.trial import Clock, run_trial
from sharpen.optim.bench.workload import Batch, Target, Workload

NOW = [0.0]


class Ramp(Workload):
    """Its metric is 10 less the steps taken, which the model's weight counts."""

    name = "ramp"
    metric = "distance"
    batch_size = 1
    eval_every = 2
    ready = False

    def make_model(self) -> nn.Module:
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        return model

    def splits(self) -> dict[str, Batch]:
        NOW[0] += 0 if self.ready else 1000  # reading takes longer, once, and is not timed either
        self.ready = True
        return {name: (torch.ones(3, 1),) for name in ("train", "validation", "test")}

    def loss(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        return model(batch[0]).mean()

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        NOW[0] += 100  # an evaluation takes long, and is not timed
        return (10 - model(batch[0])).sum()


class Step(Submission):
    """Takes a second to select, two to update, four to prepare."""

    def __init__(self, stop: int = 999, loss: float = 1.0, add: float = 1.0) -> None:
        super().__init__()
        self.stop, self.loss, self.add, self.steps = stop, loss, add, 0

    def start(self, workload: Workload, model: nn.Module, settings: Any, max_steps: int) -> None:
        NOW[0] += 0.5
        self.settings, self.max_steps = settings, max_steps

    def select(self, batches: Iterator[Batch]) -> Batch:
        NOW[0] += 1
        return next(batches)

    def update(self, model: nn.Module, batch: Batch, evals: list[dict[str, float]]) -> float:
        if self.steps == self.stop:
            raise TrainingComplete
        NOW[0] += 2
        self.steps += 1
        with torch.no_grad():
            next(model.parameters()).add_(self.add)
        return self.loss

    def prepare_for_eval(self, model: nn.Module) -> None:
        NOW[0] += 4


def trial(submission: Submission, target: Target, **options: Any) -> Any:
    clock = Clock("wall", now=lambda: NOW[0])
    return run_trial(Ramp(), submission, {"lr": 1}, target, seed=0, clock=clock, **options)


def test_what_counts_is_timed_and_evaluations_are_not() -> None:
    done = trial(Step(), Target(6.0, 6.0, max_steps=50, max_cpu_s=1e3))
    # start 0.5, four steps of 3, two preparations of 4
    assert done.time_to_target == 0.5 + 4 * 3 + 2 * 4
    assert (done.status, done.steps) == ("reached", 4)
    assert [row["validation"] for row in done.evals] == [8.0, 6.0]


def test_both_splits_must_be_reached() -> None:
    done = trial(Step(), Target(6.0, 4.0, max_steps=50, max_cpu_s=1e3))
    assert done.steps == 6


def test_an_evaluation_after_the_budget_does_not_count() -> None:
    # The fourth step begins at 13.5 and ends at 16.5; the evaluation is ready at 20.5.
    for limit, reached in ((20.5, True), (16.0, False)):
        done = trial(Step(), Target(6.0, 6.0, max_steps=50, max_cpu_s=limit))
        assert (done.time_to_target < math.inf) is reached, limit
        assert done.status == ("reached" if reached else "out of time")
    more = trial(Step(), Target(6.0, 6.0, max_steps=50, max_cpu_s=16.0), budget=1.5)
    assert more.status == "reached"


def test_a_submission_may_end_by_itself_and_nan_is_a_miss() -> None:
    target = Target(0.0, 0.0, max_steps=50, max_cpu_s=1e3)
    assert trial(Step(stop=3), target).status == "complete"
    assert trial(Step(stop=3), target).time_to_target == math.inf
    for broken in (Step(loss=math.nan), Step(add=math.nan)):
        done = trial(broken, target)
        assert (done.status, done.time_to_target, done.steps) == ("diverged", math.inf, 2)


def test_keeping_on_shows_how_good_it_gets() -> None:
    target = Target(6.0, 6.0, max_steps=8, max_cpu_s=1e3)
    done = trial(Step(), target, keep_on=True)
    assert done.steps == 8 and done.evals[-1]["validation"] == 2.0
    assert done.time_to_target == 20.5 and done.status == "reached"


def test_steps_are_a_clock() -> None:
    target = Target(6.0, 6.0, max_steps=5, max_cpu_s=0.0)
    done = run_trial(Ramp(), Step(), {}, target, seed=0)
    assert done.time_to_target == 4.0
    done = run_trial(Ramp(), Step(add=0.1), {}, target, seed=0)
    assert done.steps == 5 and done.status == "out of time"
    with pytest.raises(ConfigError, match="clock='sun'"):
        Clock("sun")  # type: ignore[arg-type]
