import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from sharpen.core.optimizer import Optimizer
from sharpen.core.parameters import Float
from sharpen.core.problem import Fidelity, TrialContext
from sharpen.core.space import Space
from sharpen.problems import synthetic
from sharpen.search import GP
from sharpen.search.gp.multi_fidelity import MultiFidelityGP
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import mixed_space


class TestMultiFidelityGPOfOneFidelity(OptimizerConformance):
    optimizer = partial(MultiFidelityGP, samples=32, restarts=2)
    evaluations = 25
    regret = 0.05


def spend(optimizer: Optimizer, problem: Any, cost: float) -> list[float]:
    """Play until the trials have cost that many at the truth; gives their fidelities."""
    fidelities, spent = [], 0.0
    while spent < cost:
        candidate = optimizer.ask()[0]
        level = problem.fidelity.high if candidate.fidelity is None else candidate.fidelity
        spent += problem.fidelity.cost(level)
        fidelities.append(level)
        optimizer.tell(
            [candidate.result(problem.evaluate(candidate.config, TrialContext(fidelity=level)))]
        )
    return fidelities


def test_cheap_trials_find_more_for_the_same_cost() -> None:
    problem = synthetic("augmented_branin")
    regrets: dict[str, list[float]] = {"gp": [], "mf-gp": []}
    for seed in range(3):
        for made in (GP, MultiFidelityGP):
            optimizer = made(
                problem.space, seed=seed, fidelity=problem.fidelity, n_init=6, samples=128
            )
            fidelities = spend(optimizer, problem, 12.0)
            regrets[made.name].append(problem.regret(optimizer.recommend().config))
            if made is MultiFidelityGP:
                assert len(fidelities) > 12
                assert np.mean(np.array(fidelities) == 1.0) >= 0.2
    assert np.median(regrets["mf-gp"]) < np.median(regrets["gp"])
    assert np.median(regrets["mf-gp"]) < 0.5


@pytest.mark.parametrize(
    ("fidelity", "levels"),
    [
        (Fidelity("epochs", 1, 100, log=True, integer=True), [1, 5, 22, 100]),
        (Fidelity("s", 0, 1), [0, 1 / 3, 2 / 3, 1]),
        (Fidelity("source", 0, 1, integer=True, costs=(1, 10)), [0, 1]),
    ],
)
def test_levels_are_allowed_and_end_at_the_truth(fidelity: Fidelity, levels: list[float]) -> None:
    optimizer = MultiFidelityGP(Space(x=Float(0, 1)), fidelity=fidelity)
    assert optimizer._levels() == pytest.approx(levels)
    assert [fidelity.check(v) for v in optimizer._levels()]
    assert optimizer._scaled(fidelity.high) == pytest.approx(1)
    assert optimizer._scaled(fidelity.low) == pytest.approx(0)


def test_proposals_follow_from_the_history_and_are_valid_in_a_conditional_space() -> None:
    fidelity = Fidelity("epochs", 1, 9, integer=True)
    space = mixed_space()
    made = partial(MultiFidelityGP, space, fidelity=fidelity, n_init=5, samples=32, restarts=2)
    first, told = made(seed=2), []
    for _ in range(9):
        candidate = first.ask()[0]
        assert space.validate(candidate.config) == candidate.config
        assert candidate.fidelity == fidelity.check(candidate.fidelity)
        value = candidate.config["x"] ** 2 + 1 / candidate.fidelity
        told.append(candidate.result(value))
        first.tell(told[-1:])
    other = made(seed=2)
    other.tell(told[::-1])
    expected, got = first.ask(number=9)[0], other.ask(number=9)[0]
    assert (got.config, got.fidelity) == (expected.config, expected.fidelity)


def test_recommends_by_the_model_while_nothing_was_measured_at_the_truth() -> None:
    fidelity = Fidelity("s", 0, 1)
    optimizer = MultiFidelityGP(Space(x=Float(0, 1)), fidelity=fidelity, n_init=3)
    for x, value in ((0.1, 1.0), (0.5, 0.2), (0.9, 0.7)):
        candidate = optimizer.ask()[0]
        optimizer.tell([replace(candidate.result(value), config={"x": x}, fidelity=0.5)])
    assert optimizer.recommend().config == {"x": 0.5}
    assert "expected at the highest fidelity" in optimizer.recommend().why


def test_a_cheap_source_with_a_bias_is_used_and_seen_through() -> None:
    sources = Fidelity("source", 0, 1, integer=True, costs=(1, 20))
    cheap = 0
    for seed in range(3):
        optimizer = MultiFidelityGP(
            Space(x=Float(0, 1)), fidelity=sources, n_init=6, samples=64, restarts=2, seed=seed
        )
        for _ in range(22):
            candidate = optimizer.ask()[0]
            x = candidate.config["x"]
            value = math.sin(12 * x) + (2 * x - 1.2) ** 2
            if candidate.fidelity == 0:
                cheap += 1
                value += 0.3 - 0.8 * x
            optimizer.tell([candidate.result(value)])
        # The cheap source alone has its minimum at 0.905.
        assert optimizer.recommend().config["x"] == pytest.approx(0.404, abs=0.02)
    assert cheap >= 3 * 8
