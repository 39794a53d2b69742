"""Families of problems for benchmarks of search: conditional, mixed, real numbers, real tasks.

Those of one family differ in kind: three branches with minima of their own and whole learning
pipelines; switches, and the training of one network; six functions of BBOB, from each of its groups
one or two (3 and 8 separable and moderate, 14 ill-conditioned, 15 and 17 wavy with a structure, 21
without), in 5, 10 and 20 dimensions, the instance chosen by the seed; gradient boosting on two
tables and DuckDB's settings, both searched through models of what was measured
(:mod:`benchmarks.search.tables`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.search import tables
from benchmarks.search.digits import Network, Pipelines

from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.problems import synthetic

__all__ = ["TASKS", "Task", "make_task"]

_FUNCTIONS = (3, 8, 14, 15, 17, 21)
_DIMENSIONS = (5, 10, 20)


@dataclass(frozen=True)
class Task:
    """One loss to minimize, the same for every method."""

    family: str
    space: Space
    loss: Callable[[dict[str, Any]], float]
    """Of a configuration; the regret itself where the minimum is known."""

    is_regret: bool = True
    objectives: tuple[Objective, ...] = (Objective("value"),)
    constraints: tuple[Constraint, ...] = ()


def _synthetic(family: str, name: str) -> Callable[[int], Task]:
    problem = synthetic(name)
    return lambda seed: Task(family, problem.space, problem.regret)


def _digits(family: str, maker: Any) -> Callable[[int], Task]:
    problem = maker()
    return lambda seed: Task(family, problem.space, problem.loss, is_regret=False)


def _bbob(function: int, d: int) -> Callable[[int], Task]:
    def make(seed: int) -> Task:
        import ioh

        problem = ioh.get_problem(function, instance=seed + 1, dimension=d)
        least = float(problem.optimum.y)
        space = Space({f"x{i}": Float(-5, 5) for i in range(d)})
        return Task("BBOB", space, lambda config: float(problem(list(config.values()))) - least)

    return make


def _table(name: str) -> Callable[[int], Task]:
    def make(seed: int) -> Task:
        table = tables.load(name)
        return Task("real", table.space, table.loss, is_regret=False)

    return make


TASKS: dict[str, Callable[[int], Task]] = {
    "branches": _synthetic("conditional", "conditional"),
    "pipelines": _digits("conditional", Pipelines),
    "mixed-ackley": _synthetic("mixed", "mixed_ackley"),
    "network": _digits("mixed", Network),
    **{name: _table(name) for name in tables.TABLES},
    **{f"f{f}-{d}d": _bbob(f, d) for d in _DIMENSIONS for f in _FUNCTIONS},
}
"""How each is made, from a seed."""


def make_task(name: str, seed: int) -> Task:
    """The task of a name for a seed."""
    return TASKS[name](seed)
