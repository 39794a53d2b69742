import itertools
import math
import sys
from typing import Any

import numpy as np
import pytest

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Bool, Categorical, Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.cmaes import CMAES, num_bins
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import mixed_space


class TestCMAES(OptimizerConformance):
    optimizer = CMAES


def ellipsoid(x: Any) -> float:
    x = np.asarray(x)
    return float(np.sum((x - 1) ** 2 * 10.0 ** np.arange(len(x))))


def cube(d: int) -> Space:
    return Space({f"x{i}": Float(-5, 5) for i in range(d)})


def run(optimizer: CMAES, function: Any, trials: int) -> list[float]:
    values = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        values.append(function(list(candidate.config.values())))
        optimizer.tell([candidate.result(values[-1])])
    return values


@pytest.mark.parametrize("d", [2, 5])
def test_it_is_cma_with_the_same_seed(d: int) -> None:
    import cma

    options = {"seed": 3, "bounds": [0, 1], "verbose": -9, "verb_log": 0}
    strategy = cma.CMAEvolutionStrategy([0.5] * d, 0.25, options)
    theirs: list[float] = []
    while len(theirs) < 400:
        points = strategy.ask()
        values = [ellipsoid(np.array(p) * 10 - 5) for p in points]
        strategy.tell(points, values)
        theirs += values
    ours = run(CMAES(cube(d), seed=3, restarts="none"), ellipsoid, 400)
    np.testing.assert_allclose(ours, theirs[:400], rtol=1e-12)


def test_it_learns_the_shape_of_an_ill_conditioned_function() -> None:
    for seed in range(3):
        assert min(run(CMAES(cube(5), seed=seed), ellipsoid, 1500)) < 1e-6


def test_a_new_instance_told_in_another_order_goes_on_alike_with_strays_under_way() -> None:
    first = CMAES(mixed_space(), seed=1)
    told: list[Trial] = []
    running = list(first.ask(5))
    # Five workers: each new trial begins while four are under way.
    for step in range(60):
        done = running.pop((step * 7) % 5)
        told.append(done.result(float(step * 7919 % 101)))
        first.tell(told[-1:])
        running += first.ask()
    second = CMAES(mixed_space(), seed=1)
    second.tell(reversed(told))
    second.tell(c.begun() for c in running)
    for number in (65, 66, 80):
        assert second.propose(number) == first.propose(number)


def test_a_late_trial_of_a_generation_that_was_closed_without_it_counts_after_all() -> None:
    optimizer = CMAES(cube(2), seed=0)  # generations of 6
    lost, *others = optimizer.ask(18)
    optimizer.abandon([0])
    trials = [c.result(ellipsoid(list(c.config.values()))) for c in others]
    optimizer.tell(trials[:10])
    assert optimizer.propose(20) is not None
    assert optimizer._first == 0  # only five trials beyond the generation have ended
    optimizer.tell(trials[10:])
    optimizer.propose(20)
    assert optimizer._first >= 6
    late = lost.result(0.0)
    optimizer.tell([late])
    again = CMAES(cube(2), seed=0)
    again.tell([late, *trials])
    for number in range(18, 24):
        assert again.propose(number) == optimizer.propose(number)


def test_a_configuration_that_somebody_else_chose_moves_the_distribution() -> None:
    optimizer = CMAES(cube(2), seed=0)
    space = optimizer.space
    for candidate in optimizer.ask(6):
        config = {"x0": 4.0, "x1": 4.0} if candidate.number == 2 else candidate.config
        value = math.dist(tuple(config.values()), (4, 4))
        optimizer.tell([Trial(number=candidate.number, config=config, state="ok",
                              feedback=Feedback(objectives={"value": value}))])  # fmt: skip
    mean = space.encode([c.config for c in optimizer.ask(6)]).x.mean(axis=0)
    plain = CMAES(cube(2), seed=0)
    for candidate in plain.ask(6):
        value = math.dist(tuple(candidate.config.values()), (4, 4))
        plain.tell([candidate.result(value)])
    other = space.encode([c.config for c in plain.ask(6)]).x.mean(axis=0)
    assert mean.sum() > other.sum()


def test_it_starts_at_the_best_trial_from_elsewhere() -> None:
    optimizer = CMAES(cube(3), seed=0, sigma=1e-3)
    for number, x in ((-2, 4.0), (-1, -3.0)):
        optimizer.tell([Trial(number=number, config={"x0": x, "x1": x, "x2": x}, state="ok",
                              feedback=Feedback(objectives={"value": abs(x)}))])  # fmt: skip
    [candidate] = optimizer.ask()
    assert candidate.number == 0
    np.testing.assert_allclose(list(candidate.config.values()), -3, atol=0.05)


def test_bins_of_equal_width_are_integers_and_keep_moving() -> None:
    assert num_bins(Space(
        a=Float(0, 1), b=Float(0, 1, step=0.25), c=Int(1, 9), d=Int(1, 9, log=True),
        e=Bool(), f=Categorical("a", "b", weights=[1, 2]),
    )) == [0, 5, 9, 0, 2, 0]  # fmt: skip
    space = Space({f"n{i}": Int(0, 40) for i in range(6)})
    for seed in range(3):
        optimizer = CMAES(space, seed=seed)
        values = run(
            optimizer, lambda n: float(sum((v - 31 + i) ** 2 for i, v in enumerate(n))), 900
        )
        assert min(values) == 0


@pytest.mark.parametrize(("restarts", "grows"), [("none", False), ("ipop", True), ("bipop", True)])
def test_a_flat_function_makes_it_start_again(restarts: Any, grows: bool) -> None:
    optimizer = CMAES(cube(2), seed=0, restarts=restarts)
    run(optimizer, lambda x: 1.0, 400)
    optimizer.propose(400)
    assert optimizer._runs >= 2
    assert (optimizer._large > 0) == grows


def test_bipop_shares_trials_between_large_and_small_populations() -> None:
    optimizer = CMAES(cube(2), seed=0, restarts="bipop")
    run(optimizer, lambda x: float(np.sum(np.square(x) + 3 * np.cos(np.multiply(x, 9)))), 6000)
    used = optimizer._used
    assert min(used.values()) > 0
    assert used["small"] < 3 * used["large"]


def test_constraints_rank_infeasible_trials_after_feasible_ones() -> None:
    space, limit = cube(2), Constraint("c", "<=", 0.0)
    optimizer = CMAES(space, [Objective("value")], [limit], seed=1)
    for _ in range(300):
        [candidate] = optimizer.ask()
        x, y = candidate.config.values()
        outcome = {"value": x + y, "c": x**2 + y**2 - 1}  # optimum -sqrt 2 on the circle
        optimizer.tell([candidate.result(outcome)])
    assert optimizer.recommend().predicted["value"] == pytest.approx(-math.sqrt(2), abs=0.02)


def test_failures_everywhere_and_single_coordinates_are_no_error() -> None:
    optimizer = CMAES(Space(x=Float(0, 1)), seed=0)
    for _ in range(40):
        [candidate] = optimizer.ask()
        optimizer.tell([candidate.result(Feedback(status="failed"))])
    values = run(CMAES(Space(x=Float(0, 1)), seed=0), lambda x: (x[0] - 0.7) ** 2, 80)
    assert min(values) < 1e-4


def test_a_diagonal_matrix_is_learned_in_many_dimensions() -> None:
    optimizer = CMAES(cube(201), seed=0)
    run(optimizer, lambda x: float(np.sum(np.square(x))), 60)
    assert optimizer._strategy.opts["CMA_diagonal"] is True
    assert np.ptp(optimizer._strategy.sigma_vec.scaling) > 0


def test_wrong_options_and_a_missing_package_are_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for wrong in ({"population": 2}, {"sigma": 0.0}, {"restarts": "often"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            CMAES(cube(2), **wrong)
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(DependencyNotInstalled, match="search"):
        CMAES(cube(2))


def test_every_order_of_tells_gives_the_same_next_generation() -> None:
    reference: list[dict[str, Any]] = []
    for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 97):
        optimizer = CMAES(cube(2), seed=5)
        candidates = optimizer.ask(6)
        for k in order:
            config = candidates[k].config
            optimizer.tell([candidates[k].result(ellipsoid(list(config.values())))])
            optimizer.propose(6)
        found = [optimizer.propose(n) for n in range(6, 12)]
        reference = reference or found
        assert found == reference
