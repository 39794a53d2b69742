"""NSGA-II, NSGA-III, MOEA/D and SMS-EMOA against their formulas, known fronts and pymoo."""

import math
from typing import Any, ClassVar

import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.moead import MOEAD
from sharpen.search.multiobjective import constrained_ranks, das_dennis, directions_for
from sharpen.search.nsga2 import NSGA2, crowding_distance
from sharpen.search.nsga3 import NSGA3, _normalized
from sharpen.search.pareto import hypervolume
from sharpen.search.sms_emoa import SMSEMOA, least_contributor
from sharpen.testing import OptimizerConformance

KINDS: dict[str, Any] = {"nsga2": NSGA2, "nsga3": NSGA3, "moead": MOEAD, "sms-emoa": SMSEMOA}
GOALS = (Objective("a"), Objective("b"))


class TestNSGA2(OptimizerConformance):
    optimizer = NSGA2
    evaluations: ClassVar[int] = 150


class TestNSGA3(OptimizerConformance):
    optimizer = NSGA3
    evaluations: ClassVar[int] = 150


class TestMOEAD(OptimizerConformance):
    optimizer = MOEAD
    evaluations: ClassVar[int] = 150


class TestSMSEMOA(OptimizerConformance):
    optimizer = SMSEMOA
    evaluations: ClassVar[int] = 150


def zdt1(x: Any) -> list[float]:
    g = 1 + 9 * float(np.mean(x[1:]))
    return [float(x[0]), g * (1 - math.sqrt(x[0] / g))]


def zdt2(x: Any) -> list[float]:
    g = 1 + 9 * float(np.mean(x[1:]))
    return [float(x[0]), g * (1 - (x[0] / g) ** 2)]


def dtlz2(x: Any) -> list[float]:
    g = float(((x[2:] - 0.5) ** 2).sum())
    s, t = x[0] * math.pi / 2, x[1] * math.pi / 2
    return [
        (1 + g) * math.cos(s) * math.cos(t),
        (1 + g) * math.cos(s) * math.sin(t),
        (1 + g) * math.sin(s),
    ]


def front(kind: Any, function: Any, d: int, m: int, trials: int, seed: int, population: int) -> Any:
    """[n, m] values that an optimizer finds."""
    space = Space({f"x{i:02d}": Float(0, 1) for i in range(d)})
    goals = [Objective(f"f{j}") for j in range(m)]
    optimizer = kind(space, goals, seed=seed, population=population)
    found = []
    for _ in range(trials // optimizer.population):
        told = []
        for candidate in optimizer.ask(optimizer.population):
            values = function(np.array(list(candidate.config.values())))
            found.append(values)
            told.append(candidate.result(dict(zip((o.name for o in goals), values, strict=True))))
        optimizer.tell(told)
    return np.array(found)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("function", "least"), [(zdt1, 0.855), (zdt2, 0.52)], ids=["convex", "concave"]
)
def test_fronts_of_two_objectives_are_found(name: str, function: Any, least: float) -> None:
    """Of the whole hypervolume of 0.8767 and 0.5433 up to (1.1, 1.1)."""
    found = front(KINDS[name], function, 6, 2, 4000, 1, 50)
    assert hypervolume(found, np.array([1.1, 1.1])) > least


@pytest.mark.parametrize("name", KINDS)
def test_a_front_of_three_objectives_is_found(name: str) -> None:
    """The whole hypervolume up to 1.1 is 1.331 less an eighth of the unit ball."""
    # One by one, a child comes from better parents, so fewer do.
    trials, population = (1200, 30) if name == "sms-emoa" else (4000, 92)
    found = front(KINDS[name], dtlz2, 7, 3, trials, 1, population)
    whole = 1.331 - math.pi / 6
    assert hypervolume(found, np.full(3, 1.1)) > 0.89 * whole


@pytest.mark.peer
@pytest.mark.parametrize("name", KINDS)
def test_as_much_is_found_as_pymoo_finds(name: str) -> None:
    from pymoo.algorithms.moo.moead import MOEAD as TheirMOEAD
    from pymoo.algorithms.moo.nsga2 import NSGA2 as TheirNSGA2
    from pymoo.algorithms.moo.nsga3 import NSGA3 as TheirNSGA3
    from pymoo.algorithms.moo.sms import SMSEMOA as TheirSMSEMOA
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.indicators.hv import HV
    from pymoo.optimize import minimize
    from pymoo.util.ref_dirs import get_reference_directions

    d, m, trials = (8, 3, 3000) if name == "nsga3" else (8, 2, 3000)
    function = dtlz2 if m == 3 else zdt1
    seen: list[Any] = []

    class Theirs(ElementwiseProblem):
        def __init__(self) -> None:
            super().__init__(n_var=d, n_obj=m, xl=0.0, xu=1.0)

        def _evaluate(self, x: Any, out: Any, *args: Any, **kwargs: Any) -> None:
            out["F"] = function(x)
            seen.append(out["F"])

    directions = get_reference_directions("das-dennis", m, n_partitions=12 if m == 3 else 49)
    ratios = []
    for seed in range(3):
        seen.clear()
        algorithm = {
            "nsga2": lambda: TheirNSGA2(pop_size=50),
            "nsga3": lambda: TheirNSGA3(directions),
            "moead": lambda: TheirMOEAD(directions, n_neighbors=15),
            "sms-emoa": lambda: TheirSMSEMOA(pop_size=50),
        }[name]()
        minimize(Theirs(), algorithm, ("n_eval", trials), seed=seed)
        reference = np.full(m, 1.1)
        theirs = np.array(seen[:trials])
        ours = front(KINDS[name], function, d, m, trials, seed, len(directions))
        assert hypervolume(theirs, reference) == pytest.approx(
            float(HV(ref_point=reference)(theirs)), rel=1e-9
        )
        ratios.append(hypervolume(ours, reference) / hypervolume(theirs, reference))
    # Theirs breeds each child of MOEA/D from all before it, which no parallel search can.
    assert sorted(ratios)[1] > (0.94 if name == "moead" else 0.985)


def test_directions_are_all_that_there_are() -> None:
    found = das_dennis(3, 4)
    assert len(found) == math.comb(6, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert len({tuple(row) for row in found.tolist()}) == len(found)
    assert (found * 4 % 1 == 0).all()
    assert len(directions_for(2, 50)) == 50
    assert len(directions_for(3, 92)) == 91
    assert directions_for(1, 40).tolist() == [[1.0]]


def test_crowding_is_the_side_of_the_cuboid_between_neighbours() -> None:
    losses = np.array([[0.0, 4.0], [1.0, 2.5], [3.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(
        crowding_distance(losses), [np.inf, 3 / 4 + 3 / 4, 3 / 4 + 2.5 / 4, np.inf]
    )


def test_the_least_contributor_is_what_the_volume_misses_least() -> None:
    two = np.array([[0.0, 4.0], [1.0, 2.0], [1.1, 1.9], [3.0, 1.0], [4.0, 0.0]])
    assert least_contributor(two) == 2  # 1.9 * 0.1 against 0.1 * 2 of its neighbour, and ends stay
    assert least_contributor(two * [1e6, 1e-6]) == 2
    rng = np.random.default_rng(0)
    three = np.abs(rng.normal(size=(30, 3)))
    three /= np.linalg.norm(three, axis=1, keepdims=True)
    scaled = (three - three.min(axis=0)) / np.ptp(three, axis=0)
    left = [hypervolume(np.delete(scaled, i, 0), np.full(3, 2.0)) for i in range(30)]
    assert least_contributor(three) == int(np.argmax(left))


def test_of_several_ranks_the_most_dominated_goes() -> None:
    optimizer = SMSEMOA(Space(x=Float(0, 1)), GOALS, population=4)
    losses = np.array([[0.0, 2.0], [2.0, 0.0], [1.0, 1.0], [1.5, 3.0], [3.0, 1.5], [0, 0], [0, 0]])
    keys = np.array([[0, 0.0]] * 5 + [[1, 0.5], [2, 0.0]])
    rng = np.random.default_rng(0)
    kept = optimizer.survive(losses, keys, rng)
    assert sorted(kept.tolist())[:3] == [0, 1, 2]  # the failed, the infeasible, then a beaten one
    one = np.array([[0.0, 2.0], [2.0, 0.0], [1.0, 1.0], [0.5, 5.0], [3.0, 3.0]])
    assert sorted(optimizer.survive(one, np.zeros((5, 2)), rng).tolist()) == [0, 1, 2, 3]


def test_ranks_put_feasible_members_first_and_failed_ones_last() -> None:
    losses = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [-9.0, -9.0], [-9.0, -9.0], [0, 0]])
    keys = np.array([[0, 0.0], [0, 1.0], [0, 1.0], [1, 0.5], [1, 0.2], [2, 0.0]])
    assert constrained_ranks(losses, keys).tolist() == [0, 0, 1, 3, 2, 4]


def test_nsga3_normalizes_by_the_plane_of_the_extreme_points() -> None:
    plane = np.array([[2.0, 0, 0], [0, 4, 0], [0, 0, 8], [1, 1, 2]])
    scaled = _normalized(plane + 5, np.ones(4, dtype=bool))
    np.testing.assert_allclose(scaled, plane / [2, 4, 8])
    flat = _normalized(np.array([[0.0, 1.0], [0.0, 1.0]]), np.ones(2, dtype=bool))
    np.testing.assert_allclose(flat, 0)


@pytest.mark.parametrize("name", KINDS)
def test_constraints_bound_the_front(name: str) -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1))
    limit = Constraint("c", "<=", 0.3)
    optimizer = KINDS[name](space, GOALS, [limit], seed=2, population=20)
    kept = []
    for number in range(400):
        (candidate,) = optimizer.ask()
        x, y = candidate.config["x"], candidate.config["y"]
        values = {"a": x, "b": 1 - x + y, "c": x}
        if number % 17 == 0:
            values["b"] = float("nan")
        optimizer.tell([candidate.result(values)])
        kept.append(x <= 0.3)
    assert np.mean(kept[300:]) > 0.6


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (NSGA2, {"population": 3}, "population=3"),
        (NSGA2, {"crossover": 1.5}, "crossover=1.5"),
        (MOEAD, {"neighbours": 1}, "neighbours=1"),
        (MOEAD, {"delta": -0.1}, "delta=-0.1"),
    ],
)
def test_options_out_of_range_are_refused(kind: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(Space(x=Float(0, 1)), GOALS, **options)
