import itertools
import math
from typing import Any

import numpy as np
import pytest

from sharpen.core.collections import Permutation
from sharpen.core.conditions import Eq
from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.space import Space
from sharpen.search.aco import ACO
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import mixed_space


class TestACO(OptimizerConformance):
    optimizer = ACO


def told(number: int, config: dict[str, Any], value: float) -> Trial:
    feedback = Feedback(objectives={"value": value})
    return Trial(number=number, config=config, state="ok", feedback=feedback)


def test_pheromone_follows_the_update_by_hand() -> None:
    space = Space(
        kind=Categorical("a", "b", "c"),
        n=Int(1, 4).active_if(Eq("kind", "a")),
        order=Permutation(3),
    )
    optimizer = ACO(space, ants=6, evaporation=0.4)  # the best two of six, and the best so far
    rows = [("a", 2, (2, 0, 1)), ("b", None, (0, 1, 2)), *[("c", None, (0, 2, 1))] * 4]
    for number, (kind, n, order) in enumerate(rows):
        config = {"kind": kind, "order": order} | ({"n": n} if n else {})
        optimizer.tell([told(number, config, float(number))])
    optimizer.propose(6)
    # The best, "a", is both the best so far (weight 3/6) and the first of the generation (2/6).
    np.testing.assert_allclose(
        optimizer._tau["kind"], [[0.2 + 0.4 * 5 / 6, 0.2 + 0.4 / 6, 0.2]], rtol=1e-12
    )
    np.testing.assert_allclose(optimizer._tau["n"], [[0.15, 0.15 + 0.4, 0.15, 0.15]])
    expected = np.full((3, 3), 0.2)
    for place, item in enumerate((2, 0, 1)):
        expected[place, item] += 0.4 * 5 / 6
    for place, item in enumerate((0, 1, 2)):
        expected[place, item] += 0.4 / 6
    np.testing.assert_allclose(optimizer._tau["order"], expected)


def test_choices_follow_pheromone_weights_and_greediness() -> None:
    space = Space(kind=Categorical("a", "b", "c", weights=[1, 2, 5]))
    optimizer = ACO(space, greediness=0.0, alpha=2.0, beta=0.5)
    optimizer.propose(0)
    optimizer._tau["kind"][0] = [0.5, 0.3, 0.2]
    odds = np.array([0.25, 0.09, 0.04]) * np.sqrt([1, 2, 5])
    odds /= odds.sum()
    for greediness in (0.0, 0.6):
        optimizer.greediness = greediness
        counts = dict.fromkeys("abc", 0)
        for seed in range(3000):
            point = optimizer.stray(0, np.random.default_rng(seed))
            counts[space.decode(point[None])[0]["kind"]] += 1
        expected = (1 - greediness) * odds + greediness * np.array([1, 0, 0])
        np.testing.assert_allclose(np.array(list(counts.values())) / 3000, expected, atol=0.03)


def test_pheromone_stays_between_its_bounds() -> None:
    optimizer = ACO(Space(n=Int(1, 5)), ants=4, evaporation=0.9)
    for _ in range(80):
        [candidate] = optimizer.ask()
        optimizer.tell([candidate.result(abs(candidate.config["n"] - 3))])
    optimizer.propose(80)
    tau = optimizer._tau["n"][0]
    assert tau.min() == pytest.approx(1 / 50)
    assert 0.99 < tau[2] <= 1


def test_levels_of_every_kind_are_found_again_from_coordinates() -> None:
    space = Space(
        x=Float(0, 1), s=Float(0, 1, step=0.25), wide=Int(1, 1000, log=True),
        few=Int(1, 5, log=True), kind=Categorical("a", "b", "c", weights=[1, 2, 7]),
    )  # fmt: skip
    optimizer = ACO(space, resolution=8)
    optimizer.propose(0)
    rng = np.random.default_rng(0)
    for name, tau in optimizer._tau.items():
        parameter, levels = space[name], tau.shape[1]
        assert levels == {"x": 8, "s": 5, "wide": 8, "few": 8, "kind": 3}[name]
        for level in range(levels):
            u = optimizer._coordinates(rng, parameter, np.array([level]), levels)
            assert optimizer._levels(parameter, u, levels).tolist() == [level]


def test_it_finds_the_shortest_tour() -> None:
    places = np.random.default_rng(2).random((7, 2))

    def tour(order: Any) -> float:
        return sum(
            math.dist(places[a], places[b]) for a, b in itertools.pairwise((*order, order[0]))
        )

    shortest = min(tour((0, *rest)) for rest in itertools.permutations(range(1, 7)))
    found = []
    for seed in range(3):
        optimizer = ACO(Space(t=Permutation(7)), seed=seed, ants=16)
        values = []
        for _ in range(960):
            [candidate] = optimizer.ask()
            values.append(tour(candidate.config["t"]))
            optimizer.tell([candidate.result(values[-1])])
        found.append(min(values))
    assert sorted(found)[1] <= 1.02 * shortest


def test_replay_in_another_order_with_strays_gives_the_same_state() -> None:
    first = ACO(mixed_space(), seed=1, ants=6)
    told_, running = [], list(first.ask(8))
    for step in range(60):
        done = running.pop((step * 5) % 8)
        told_.append(done.result(float(step * 7919 % 101)))
        first.tell(told_[-1:])
        running += first.ask()
    second = ACO(mixed_space(), seed=1, ants=6)
    second.tell(reversed(told_))
    second.tell(c.begun() for c in running)
    for number in (68, 69, 80):
        assert second.propose(number) == first.propose(number)


def test_failures_leave_nothing_and_wrong_options_are_explained() -> None:
    space = Space(n=Int(1, 3))
    optimizer = ACO(space, ants=4)
    for _ in range(8):
        [candidate] = optimizer.ask()
        optimizer.tell([candidate.result(Feedback(status="failed"))])
    optimizer.propose(8)
    np.testing.assert_allclose(optimizer._tau["n"], 1 / 3)
    wrong: dict[str, Any]
    for wrong in (
        *({"ants": 1}, {"evaporation": 0.0}, {"greediness": 2.0}),
        *({"alpha": -1.0}, {"beta": -1.0}, {"resolution": 1}),
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ACO(space, **wrong)
