import itertools
import math
from typing import Any

import numpy as np
import pytest

from sharpen.core.collections import Permutation, Subset
from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Float
from sharpen.core.space import Space
from sharpen.search.ga import GA
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import mixed_space


class TestGA(OptimizerConformance):
    optimizer = GA


def play(optimizer: GA, function: Any, trials: int) -> list[float]:
    values = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        values.append(float(function(candidate.config)))
        optimizer.tell([candidate.result(values[-1])])
    return values


def test_survivors_are_the_elite_and_the_best_children() -> None:
    optimizer = GA(Space(x=Float(0, 1)), seed=0, population=8, elite=2)
    rng = np.random.default_rng(1)
    members: list[float] = []
    for generation in range(6):
        values = rng.random(8).tolist()
        for candidate, value in zip(optimizer.ask(8), values, strict=True):
            optimizer.tell([candidate.result(value)])
        optimizer.propose(8 * (generation + 1))
        members = sorted(sorted(members)[:2] + sorted(values)[: 8 if generation == 0 else 6])
        np.testing.assert_allclose(optimizer._keys[:, 1], members)


def test_the_better_members_are_parents_by_the_odds_of_a_tournament() -> None:
    optimizer = GA(Space(x=Float(0, 1)), population=5, tournament=3, crossover=0.0, mutation=0.0)
    for candidate in optimizer.ask(5):
        optimizer.tell([candidate.result(candidate.config["x"])])
    optimizer.propose(5)
    counts = np.zeros(5)
    for seed in range(3000):
        x = optimizer.stray(0, np.random.default_rng(seed))[0]
        counts[np.abs(optimizer._x[:, 0] - x).argmin()] += 1
    odds = [((5 - i) / 5) ** 3 - ((4 - i) / 5) ** 3 for i in range(5)]
    np.testing.assert_allclose(counts / 3000, odds, atol=0.03)


def test_it_finds_the_shortest_tour_and_the_best_knapsack() -> None:
    rng = np.random.default_rng(2)
    places = rng.random((7, 2))

    def tour(order: Any) -> float:
        return sum(
            math.dist(places[a], places[b]) for a, b in itertools.pairwise((*order, order[0]))
        )

    shortest = min(tour((0, *rest)) for rest in itertools.permutations(range(1, 7)))
    found = [
        min(play(GA(Space(t=Permutation(7)), seed=s, population=20), lambda c: tour(c["t"]), 600))
        for s in range(3)
    ]
    assert sorted(found)[1] == pytest.approx(shortest)

    worth, weight = rng.random(12), rng.random(12)

    def knapsack(chosen: Any) -> float:
        i = list(chosen)
        return float(-worth[i].sum() if weight[i].sum() <= 3 else 1.0)

    most = min(knapsack(c) for k in range(13) for c in itertools.combinations(range(12), k))
    space = Space(k=Subset(12))
    found = [min(play(GA(space, seed=s), lambda c: knapsack(c["k"]), 1200)) for s in range(3)]
    assert sorted(found)[1] == pytest.approx(most, abs=0.05)


def test_replay_in_another_order_with_strays_gives_the_same_state() -> None:
    first = GA(mixed_space(), seed=1, population=6)
    told, running = [], list(first.ask(8))
    for step in range(60):
        done = running.pop((step * 5) % 8)
        told.append(done.result(float(step * 7919 % 101)))
        first.tell(told[-1:])
        running += first.ask()
    second = GA(mixed_space(), seed=1, population=6)
    second.tell(reversed(told))
    second.tell(c.begun() for c in running)
    for number in (68, 69, 80):
        assert second.propose(number) == first.propose(number)


def test_failures_only_trials_from_elsewhere_and_wrong_options() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1))
    optimizer = GA(space, population=4)
    feedback = Feedback(objectives={"value": 0.0})
    config = {"x": 0.5, "y": 0.5}
    optimizer.tell([Trial(number=-1, config=config, state="ok", feedback=feedback)])
    for _ in range(12):
        [candidate] = optimizer.ask()
        optimizer.tell([candidate.result(Feedback(status="failed"))])
    optimizer.propose(12)
    np.testing.assert_allclose(optimizer._x[0], 0.5)
    wrong: dict[str, Any]
    for wrong in (
        *({"population": 1}, {"crossover": 1.5}, {"mutation": -0.1}),
        *({"tournament": 0}, {"elite": 99}),
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            GA(space, **wrong)
