"""Whatever happened to a study, a new instance that is told of it proposes the same."""

from typing import Any

import numpy as np
import pytest

from sharpen.core.feedback import Feedback, Trial
from sharpen.core.optimizer import Optimizer, find_optimizer
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.testing.search import mixed_space

NAMES = (
    *("cmaes", "de", "jade", "lshade", "pso", "ga", "aco", "annealing", "random-walk"),
    *("nelder-mead", "powell", "cobyla", "lbfgsb", "slsqp", "spsa", "adam-spsa", "aqgd"),
    *("grid", "halton", "lhs", "portfolio", "sms-emoa", "dehb"),
)


def outcome(rng: np.random.Generator, constrained: bool) -> Any:
    if rng.random() < 0.1:
        return Feedback(status="failed")
    value = float(rng.integers(0, 40))  # with ties
    return {"value": value, "m": float(rng.normal())} if constrained else value


def live(optimizer: Optimizer, space: Space, rng: np.random.Generator) -> None:
    """Ask in batches, tell late, choose configurations of one's own, lose and find trials."""
    constrained = bool(optimizer.constraints)
    running: list[Any] = []
    lost: list[Any] = []
    for step in range(120):
        event = rng.random()
        if event < 0.5 or not running:
            running += optimizer.ask(int(rng.integers(1, 4)))
        elif event < 0.9:
            done = running.pop(int(rng.integers(len(running))))
            optimizer.tell([done.result(outcome(rng, constrained))])
        elif event < 0.93:  # a worker dies, and perhaps it did not
            lost.append(running.pop())
            optimizer.abandon([lost[-1].number])
        elif event < 0.95 and lost:
            optimizer.tell([lost.pop().result(outcome(rng, constrained))])
        elif event < 0.97:  # somebody's own trial, from elsewhere or in place of one that was asked
            [config] = space.sample(1, seed=step)
            number = -step - 1 if event < 0.96 else running.pop().number
            values = outcome(rng, False)
            feedback = (
                values
                if isinstance(values, Feedback)
                else Feedback(
                    objectives={"value": values}, constraints={"m": 0.5} if constrained else {}
                )
            )
            optimizer.tell([Trial(number=number, config=config, state=feedback.status,
                                  feedback=feedback, feasible=not constrained)])  # fmt: skip
    while len(running) > 3:
        optimizer.tell([running.pop().result(outcome(rng, constrained))])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("constrained", [False, True])
def test_proposals_follow_from_what_was_told_alone(name: str, constrained: bool) -> None:
    kind, space = find_optimizer(name), mixed_space()
    if constrained and not kind.capabilities.constraints:  # type: ignore[attr-defined]
        return
    limits = [Constraint("m", "<=", 0.5)] if constrained else []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        first = kind(space, [Objective("value")], limits, seed=seed)
        live(first, space, rng)
        second = kind(space, [Objective("value")], limits, seed=seed)
        told = list(first.history.values())
        for k in rng.permutation(len(told)):
            second.tell([told[k]])
            if k % 23 == 0:
                second.propose(int(k))  # looking in between changes nothing
        second.tell(first.pending.values())
        number = max([*first.history, *first.pending]) + 1
        for n in (number, number + 1, number + 30, 3):
            assert second.propose(n) == first.propose(n)
