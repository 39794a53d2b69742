from functools import partial

import numpy as np
import pytest

from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search import Random
from sharpen.search.gp.parego import ParEGO, scalarize
from sharpen.search.pareto import hypervolume
from sharpen.testing import OptimizerConformance

SPACE = Space({f"x{i}": Float(0, 1) for i in range(4)})
TWO = (Objective("a"), Objective("b"))


class TestParEGO(OptimizerConformance):
    optimizer = partial(ParEGO, samples=64, restarts=3)
    evaluations = 25
    regret = 0.3


def zdt2(config: dict[str, float]) -> dict[str, float]:
    """A front that is not convex: b = 1 - a^2 where all other coordinates are 0."""
    x = list(config.values())
    g = 1 + 9 * sum(x[1:]) / (len(x) - 1)
    return {"a": x[0], "b": g * (1 - (x[0] / g) ** 2)}


def front(optimizer: ParEGO | Random, trials: int) -> np.ndarray:
    points = []
    for _ in range(trials):
        candidate = optimizer.ask()[0]
        values = zdt2(candidate.config)
        points.append([values["a"], values["b"]])
        optimizer.tell([candidate.result(values)])
    return np.array(points)


def test_the_loss_is_the_augmented_tchebycheff_one() -> None:
    losses = np.array([[0.0, 10.0], [2.0, 4.0]])
    got = scalarize(losses, np.array([0.25, 0.75]), np.array([0.0, 4.0]), np.array([2.0, 10.0]))
    np.testing.assert_allclose(got, [0.75 + 0.05 * 0.75, 0.25 + 0.05 * 0.25])


def test_every_weight_has_its_own_best_point_of_a_concave_front() -> None:
    a = np.linspace(0, 1, 1001)
    losses = np.stack([a, 1 - a**2], axis=1)
    best = [
        a[scalarize(losses, np.array([w, 1 - w]), np.zeros(2), np.ones(2)).argmin()]
        for w in np.linspace(0.05, 0.8, 16)
    ]
    assert len(set(best)) == 16
    assert (np.diff(best) < 0).all()


def test_covers_a_concave_front_that_random_search_does_not_reach() -> None:
    reference = np.array([1.1, 1.1])
    for seed in range(2):
        ours = front(ParEGO(SPACE, TWO, seed=seed, n_init=9), 35)
        random = front(Random(SPACE, TWO, seed=seed), 35)
        reached = hypervolume(ours, reference)
        # The front dominates 1.1^2 - 2/3 = 0.54 of the box.
        assert reached > 0.3
        assert reached > hypervolume(random, reference) + 0.2


def test_directions_and_constraints_are_kept() -> None:
    constraint = Constraint("sum", "<=", 1.0)
    optimizer = ParEGO(SPACE, (Objective("a", "max"), Objective("b")), (constraint,), n_init=6)
    for _ in range(20):
        candidate = optimizer.ask()[0]
        values = zdt2(candidate.config)
        values["sum"] = sum(candidate.config.values())
        optimizer.tell([candidate.result(values)])
    late = optimizer.seen.good[10:]
    assert late.mean() > 0.4
    good = optimizer.seen.loss[optimizer.seen.good]
    assert good[:, 0].min() < -0.7  # a was made large


def test_one_objective_is_recommended_and_several_are_not() -> None:
    with pytest.raises(Exception, match="Pareto"):
        ParEGO(SPACE, TWO).recommend()
