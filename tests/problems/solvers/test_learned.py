"""Sequences of systems, and solvers that learn on them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError, FileFormatError
from sharpen.problems.solvers import (
    LearnedSolver,
    LinearSequence,
    heat_equation,
    shifted_laplacians,
    sor,
    ssor_cg,
)
from sharpen.problems.solvers.sequences import solve_all

GRID = tuple(np.linspace(1.0, 1.95, 20))


def test_shifts_have_their_published_distributions() -> None:
    for variance, mean, spread in (("high", 0.0, 0.15), ("low", 0.0, 0.0866)):
        found = [s.context for s in shifted_laplacians(600, variance=variance, side=2)]  # type: ignore[arg-type]
        assert np.mean(found) == pytest.approx(mean, abs=4 * spread / np.sqrt(600))
        assert np.std(found) == pytest.approx(spread, rel=0.15)
    for system in shifted_laplacians(5):
        assert np.linalg.norm(system.b) <= 10
        assert np.linalg.eigvalsh(system.matrix.toarray()).min() > 0.16 + system.context


def costs(variance: Any, count: int, seed: int) -> tuple[Any, Any]:
    """[count, 20] iterations by omega, and contexts in [0, 1]."""
    systems = list(shifted_laplacians(count, variance=variance, seed=seed))
    table = [[sor(s.matrix, s.b, omega).iterations for omega in GRID] for s in systems]
    return np.array(table), np.array([(s.context + 0.15) / 0.6 for s in systems])


@pytest.mark.parametrize("variance", ["high", "low"])
def test_learning_omega_costs_little_more_than_the_best_fixed_and_with_contexts_less(
    variance: Any,
) -> None:
    from sharpen.search.bandits import ChebCB, TsallisINF

    table, contexts = costs(variance, 150, 5)
    best = table.mean(axis=0).min()
    for make, at_5000 in ((TsallisINF, 1.22), (ChebCB, 0.87)):
        policy, rng, total = make(20), np.random.default_rng(1), 0
        for _ in range(5000):
            i = int(rng.integers(len(table)))
            arm, p = policy.choose(float(rng.random()), contexts[i])
            policy.learn(arm, table[i, arm] - 1.0, p, contexts[i])
            total += table[i, arm]
        assert total / 5000 / best < at_5000


def test_the_heat_equation_is_solved_and_needs_each_solution() -> None:
    systems = heat_equation(30, side=6)
    solutions = solve_all(systems, lambda s: ssor_cg(s.matrix, s.b, 1.2, x0=s.x0, tolerance=1e-10))
    assert len(solutions) == 30
    assert all(s.converged for s in solutions)
    dense = heat_equation(30, side=6)
    system = next(dense)
    for solution in solutions[:-1]:
        exact = np.linalg.solve(system.matrix.toarray(), system.b)
        np.testing.assert_allclose(solution.x, exact, atol=1e-9)
        system = dense.send(exact)
    assert solutions[-1].x.min() >= 0
    assert solutions[-1].x.max() > 0.001
    with pytest.raises(ConfigError, match="needs the solution"):
        list(heat_equation(2, side=3))


@pytest.mark.parametrize("with_context", [False, True])
def test_a_solver_learns_saves_and_goes_on(with_context: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"seed": 3}
    if with_context:
        options |= {"context": lambda a, b: float(a[0, 0]) - 4, "interval": (-0.15, 0.45)}

    def run(solver: LearnedSolver, systems: list[Any]) -> list[int]:
        counts = []
        for system in systems:
            x, info = solver.solve(system.matrix, system.b)
            assert info == 0
            assert np.linalg.norm(system.b - system.matrix @ x) < 1e-7 * np.linalg.norm(system.b)
            assert solver.last is not None
            counts.append(solver.last.iterations)
        return counts

    systems = list(shifted_laplacians(400, variance="low"))
    whole = LearnedSolver("sor", **options)
    counts = run(whole, systems)
    assert np.mean(counts[200:]) < 0.8 * np.mean(counts[:100])
    first = LearnedSolver("sor", **options)
    assert run(first, systems[:200]) == counts[:200]
    first.save(tmp_path / "solver.json")
    second = LearnedSolver("sor", **{**options, "seed": 9})
    second.restore(tmp_path / "solver.json")
    assert second.rounds == 200
    assert run(second, systems[200:]) == counts[200:]
    with pytest.raises(ConfigError, match="not of this solver"):
        LearnedSolver("sor", grid=(1.0, 1.5), **options).restore(tmp_path / "solver.json")
    (tmp_path / "text").write_text("{")
    with pytest.raises(FileFormatError, match="no saved solver"):
        second.restore(tmp_path / "text")


def test_a_solver_of_ones_own_and_wrong_options() -> None:
    def mine(matrix: Any, b: Any, parameter: float, x0: Any = None) -> Any:
        return sor(matrix, b, parameter, x0=x0, max_iterations=1)

    solver = LearnedSolver(mine, grid=(1.0, 1.5))
    system = next(shifted_laplacians(1))
    assert solver.solve(system.matrix, system.b)[1] == 1
    for options, message in (
        ({"solver": "gmres"}, "must be sor, ssor_cg or a function"),
        ({"context": lambda a, b: 0.0}, "context and interval go together"),
        ({"context": lambda a, b: 0.0, "interval": (1, 1)}, "from less to more"),
    ):
        with pytest.raises(ConfigError, match=message):
            LearnedSolver(**options)


def test_a_study_finds_a_good_omega_for_each_shift() -> None:
    problem = LinearSequence("sor", variance="high")
    study = sh.Study(
        problem, optimizer="chebcb", store="sqlite://", budget=sh.Budget(trials=500), seed=1
    ).run()
    values = [t.value for t in study.trials()]
    assert np.mean(values[350:]) < 0.7 * np.mean(values[:100])
    assert all(-0.15 <= t.context["shift"] <= 0.45 for t in study.trials())
    for wrong in ({"solver": "cg"}, {"variance": "no"}):
        with pytest.raises(ConfigError, match="must be"):
            LinearSequence(**wrong)  # type: ignore[arg-type]
