import sys
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.feedback import Feedback
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.scipy_solvers import COBYLA, LBFGSB, SLSQP, NelderMead, Powell
from sharpen.testing import OptimizerConformance


class TestNelderMead(OptimizerConformance):
    optimizer = NelderMead


class TestPowell(OptimizerConformance):
    optimizer = Powell


class TestCOBYLA(OptimizerConformance):
    optimizer = COBYLA


class TestLBFGSB(OptimizerConformance):
    optimizer = LBFGSB


class TestSLSQP(OptimizerConformance):
    optimizer = SLSQP


D = 4
CUBE = Space({f"x{i}": Float(0, 1) for i in range(D)})


def rosenbrock(x: Any) -> float:
    z = 3 * np.asarray(x) - 1
    return float((100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2).sum())


def play(optimizer: Any, function: Any, trials: int) -> np.ndarray:
    points = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        points.append(np.array(list(candidate.config.values())))
        optimizer.tell([candidate.result(function(points[-1]))])
    return np.array(points)


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        (NelderMead, "Nelder-Mead", {"xatol": 1e-6, "fatol": 1e-6, "adaptive": False}),
        (Powell, "Powell", {"xtol": 1e-4, "ftol": 1e-4}),
        (COBYLA, "COBYLA", {"rhobeg": 0.25, "tol": 1e-6}),
    ],
)
def test_the_first_run_is_scipys(kind: Any, method: str, options: dict[str, Any]) -> None:
    trials = 60
    optimizer = kind(CUBE, seed=2)
    ours = play(optimizer, rosenbrock, trials)
    order = optimizer._columns[0]
    assert order.tolist() != list(range(D))
    theirs: dict[bytes, Any] = {}

    class Enough(Exception):
        pass

    def function(z: Any) -> float:
        x = np.empty(D)
        x[order] = np.clip(z, 0, 1)
        theirs.setdefault(x.tobytes(), x)
        if len(theirs) > trials:
            raise Enough
        return rosenbrock(x)

    start = np.full(D, 0.5)
    if method == "Nelder-Mead":
        options["initial_simplex"] = np.concatenate([start[None], start + 0.25 * np.eye(D)])
    function(start)
    with pytest.raises(Enough):
        minimize(function, start, method=method, bounds=[(0, 1)] * D, options=options)
    np.testing.assert_allclose(ours, list(theirs.values())[:trials], atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "trials", "limit"),
    [
        *((NelderMead, 800, 1e-8), (Powell, 1200, 1e-6), (COBYLA, 800, 0.3)),
        *((LBFGSB, 400, 1e-4), (SLSQP, 400, 1e-4)),
    ],
)
def test_it_reaches_the_bottom_of_a_curved_valley(kind: Any, trials: int, limit: float) -> None:
    points = play(kind(CUBE, seed=0), rosenbrock, trials)
    assert min(rosenbrock(x) for x in points) < limit


@pytest.mark.parametrize("kind", [COBYLA, SLSQP])
def test_constraints_are_kept(kind: Any) -> None:
    space = Space(x=Float(-2, 2), y=Float(-2, 2))
    limits = [Constraint("circle", "<=", 1.0), Constraint("line", ">=", 0.2)]
    optimizer = kind(space, [Objective("value")], limits, seed=0)
    for _ in range(150):
        [candidate] = optimizer.ask()
        x, y = candidate.config["x"], candidate.config["y"]
        outcome = {"value": x + 2 * y, "circle": x**2 + y**2, "line": x - y + 1}
        optimizer.tell([candidate.result(outcome)])
    # The least of x + 2 y on the disc is -sqrt 5 at (-1, -2) / sqrt 5, where x - y + 1 > 0.2.
    assert optimizer.recommend().predicted["value"] == pytest.approx(-np.sqrt(5), abs=1e-3)


@pytest.mark.parametrize("kind", [NelderMead, Powell, LBFGSB])
def test_the_others_refuse_constraints(kind: Any) -> None:
    with pytest.raises(ConfigError, match="cannot handle constraints"):
        kind(CUBE, [Objective("value")], [Constraint("c")])


@pytest.mark.parametrize("kind", [LBFGSB, SLSQP])
def test_gradients_that_trials_bring_save_the_differences(kind: Any) -> None:
    optimizer = kind(CUBE, seed=0)
    values = []
    for _ in range(30):
        [candidate] = optimizer.ask()
        x = np.array(list(candidate.config.values()))
        values.append(float((np.arange(1, D + 1) * (x - 0.4) ** 2).sum()))
        slope = 2 * np.arange(1, D + 1) * (x - 0.4)
        gradients = {"value": dict(zip(candidate.config, slope.tolist(), strict=True))}
        feedback = Feedback(objectives={"value": values[-1]}, gradients=gradients)
        optimizer.tell([candidate.result(feedback)])
    assert min(values[:12]) < 1e-6


def test_failed_trials_do_not_stop_a_solver() -> None:
    for kind in (NelderMead, Powell, COBYLA, LBFGSB, SLSQP):
        optimizer = kind(CUBE, seed=0)
        best = np.inf
        for _ in range(300):
            [candidate] = optimizer.ask()
            x = np.array(list(candidate.config.values()))
            failed = candidate.number % 17 == 5
            outcome = Feedback(status="failed") if failed else float(((x - 0.4) ** 2).sum())
            optimizer.tell([candidate.result(outcome)])
            best = best if failed else min(best, float(((x - 0.4) ** 2).sum()))
        assert best < 0.05


def test_wrong_options_and_a_missing_package_are_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind, wrong in (
        (NelderMead, {"step": 0.0}),
        (COBYLA, {"step": 0.9}),
        (Powell, {"tolerance": 0.0}),
        (LBFGSB, {"difference": 0.0}),
        (SLSQP, {"tolerance": 1.5}),
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            kind(CUBE, **wrong)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(DependencyNotInstalled, match="search"):
        NelderMead(CUBE)
