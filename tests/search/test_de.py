import itertools

import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Fixed, Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.de import DE, drawn_back
from sharpen.testing import OptimizerConformance


class TestDE(OptimizerConformance):
    optimizer = DE


def cube(d: int) -> Space:
    return Space({f"x{i}": Float(0, 1) for i in range(d)})


def told(number: int, x: list[float], value: float) -> Trial:
    config = {f"x{i}": v for i, v in enumerate(x)}
    feedback = Feedback(objectives={"value": value})
    return Trial(number=number, config=config, state="ok", feedback=feedback)


def test_a_trial_is_rand_1_bin_of_the_best_of_each_place() -> None:
    optimizer = DE(cube(6), seed=0, population=4, factor=0.7, crossover=0.5)
    rng = np.random.default_rng(0)
    x = rng.random((12, 6))
    values = rng.permutation(12).astype(float)
    optimizer.tell(told(n, x[n].tolist(), values[n]) for n in range(12))
    members = [x[place + 4 * np.argmin(values[place::4])] for place in range(4)]
    crossed = 0
    for number in range(12, 60):
        child = np.array(list(optimizer.propose(number).values()))
        parent = members[number % 4]
        others = [m for k, m in enumerate(members) if k != number % 4]
        mutants = [
            drawn_back(a + 0.7 * (b - c), parent) for a, b, c in itertools.permutations(others)
        ]
        matches = [
            np.isclose(child, mutant, atol=1e-12) | np.isclose(child, parent, atol=1e-12)
            for mutant in mutants
        ]
        assert any(m.all() for m in matches)
        changed = int((~np.isclose(child, parent, atol=1e-12)).sum())
        assert changed >= 1
        crossed += changed
    # 48 trials of 6 coordinates: one for certain, the other five with probability 1/2.
    assert 48 * 3.5 * 0.8 < crossed < 48 * 3.5 * 1.2


def test_mutants_beyond_a_bound_are_drawn_halfway_back() -> None:
    parent = np.array([0.2, 0.4, 0.6])
    np.testing.assert_allclose(
        drawn_back(np.array([-0.3, 0.5, 1.2]), parent), [0.1, 0.5, 0.8], rtol=1e-15
    )


def test_of_equal_trials_the_latest_holds_the_place_in_whatever_order_they_are_told() -> None:
    trials = [told(n, [n / 10] * 2, 1.0) for n in range(8)]
    proposals = []
    for order in (trials, trials[::-1], trials[4:] + trials[:4]):
        optimizer = DE(cube(2), seed=1, population=4)
        for trial in order:
            optimizer.tell([trial])
            optimizer.propose(9)
        assert [place[0][2] for _, place in sorted(optimizer._places.items())] == [-4, -5, -6, -7]
        proposals.append([optimizer.propose(n) for n in range(8, 14)])
    assert proposals[0] == proposals[1] == proposals[2]


def test_a_trial_that_is_told_again_with_another_value_loses_its_place() -> None:
    optimizer = DE(cube(2), seed=1, population=4)
    optimizer.tell(told(n, [n / 10] * 2, float(n)) for n in range(8))
    optimizer.propose(8)
    optimizer.tell([told(1, [0.1, 0.1], 99.0)])
    optimizer.propose(8)
    assert optimizer._places[1][0] == (0.0, 5.0, -5)


def test_it_solves_ill_conditioned_and_multimodal_functions() -> None:
    def rastrigin(x: np.ndarray) -> float:
        z = 5 * x - 2
        return float(10 * len(z) + (z**2 - 10 * np.cos(2 * np.pi * z)).sum())

    def ellipsoid(x: np.ndarray) -> float:
        return float(((x - 0.3) ** 2 * 10.0 ** (2 * np.arange(len(x)))).sum())

    for function, limit in ((rastrigin, 1e-3), (ellipsoid, 1e-3)):
        for seed in range(2):
            optimizer = DE(cube(3), seed=seed)
            values = []
            for _ in range(3000):
                [candidate] = optimizer.ask()
                values.append(function(np.array(list(candidate.config.values()))))
                optimizer.tell([candidate.result(values[-1])])
            assert min(values) < limit


def test_infeasible_members_give_way_to_less_infeasible_and_then_to_feasible_ones() -> None:
    limit = Constraint("c", "<=", 0.0)
    optimizer = DE(Space(x=Float(0, 1)), [Objective("value")], [limit], population=4)

    def trial(number: int, value: float, c: float) -> Trial:
        feedback = Feedback(objectives={"value": value}, constraints={"c": c})
        return Trial(number=number, config={"x": number / 100}, state="ok", feedback=feedback)

    optimizer.tell([trial(0, -9, 5), trial(4, 3, 2), trial(8, -5, 3)])
    optimizer.propose(12)
    assert optimizer._places[0][0] == (1.0, 2.0, -4)
    optimizer.tell([trial(12, 50, -1), trial(16, 60, -1)])
    optimizer.propose(20)
    assert optimizer._places[0][0] == (0.0, 50.0, -12)


def test_default_population_follows_dimensions_and_budget() -> None:
    assert DE(cube(3)).population == 30
    assert DE(cube(3), budget=1000).population == 20
    assert DE(cube(3), budget=200).population == 8


def test_a_space_without_choice_and_wrong_options() -> None:
    optimizer = DE(Space(a=Fixed(1)), population=4)
    for candidate in optimizer.ask(6):
        optimizer.tell([candidate.result(1.0)])
    assert optimizer.ask()[0].config == {"a": 1}
    for wrong in ({"population": 3}, {"factor": 0.0}, {"crossover": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            DE(Space(n=Int(1, 3)), **wrong)
