"""Programs of numbers and choices, each with a known optimum of 0.

- ``square``: the number x at which ``((x + a) * b - c) ** 2`` is smallest;
- ``fit``: a, b and c such that ``(x + a) * b - c`` goes through five points;
- ``valley``: Rosenbrock's function of two numbers;
- ``mixed``: which function, which power and which factor gave five points.

Constants are drawn by the seed. Every way has the same evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import sharpen.text as st
from sharpen.core.optimizer import make_optimizer
from sharpen.core.parameters import Categorical, Float, Int

__all__ = ["PROGRAMS", "numeric", "play"]

WAYS: dict[str, Any] = {"search": st.SearchProposer, "tpe": "tpe", "random": "random"}
_POINTS = (-2.0, -1.0, 0.0, 1.5, 3.0)


class Square(st.Module):
    """One number, a root inside its range."""

    def __init__(self, rng: np.random.Generator) -> None:
        root, self.b = rng.uniform(-9, 9), rng.uniform(0.5, 3)
        self.a = rng.uniform(-5, 5)
        self.c = (root + self.a) * self.b
        self.x = st.Parameter(float(rng.uniform(-10, 10)), space=Float(-10.0, 10.0))

    def forward(self) -> Any:
        return -(((self.x + self.a) * self.b - self.c) ** 2.0)


class Fit(st.Module):
    """Three numbers; many triples are right."""

    def __init__(self, rng: np.random.Generator) -> None:
        a, b, c = rng.uniform(-3, 3, size=3)
        self.points = [(x, (x + a) * b - c) for x in _POINTS]
        for name in "abc":
            setattr(self, name, st.Parameter(0.0, space=Float(-5.0, 5.0)))

    def forward(self) -> Any:
        a, b, c = self.a, self.b, self.c  # type: ignore[attr-defined]
        total: Any = 0.0
        for x, want in self.points:
            total = total - ((a + x) * b - c - want) ** 2.0
        return total / len(self.points)


class Valley(st.Module):
    """A curved valley."""

    def __init__(self, rng: np.random.Generator) -> None:
        x, y = rng.uniform(-2, 2, size=2)
        self.x = st.Parameter(float(x), space=Float(-2.0, 2.0))
        self.y = st.Parameter(float(y), space=Float(-2.0, 2.0))

    def forward(self) -> Any:
        return -((self.y - self.x**2.0) ** 2.0 * 100.0 + (self.x - 1.0) ** 2.0)


class Mixed(st.Module):
    """A choice, a whole number and a number."""

    functions: dict[str, Callable[[float], float]] = {  # noqa: RUF012 - a table, never changed
        "sine": np.sin,
        "cosine": np.cos,
        "line": lambda x: x,
        "root": lambda x: abs(x) ** 0.5,
    }

    def __init__(self, rng: np.random.Generator) -> None:
        self.right = (
            str(rng.choice(list(self.functions))),
            int(rng.integers(1, 5)),
            float(rng.uniform(-3, 3)),
        )
        self.kind = st.Parameter("line", kind="choice", space=Categorical(*self.functions))
        self.power = st.Parameter(1, space=Int(1, 4))
        self.factor = st.Parameter(0.0, space=Float(-3.0, 3.0))

    def forward(self) -> Any:
        return self.error(self.kind, self.power, self.factor)

    @st.op
    def error(self, kind: str, power: int, factor: float) -> float:
        """How far the points are from those of the right program."""
        wrong = [
            (self.value(kind, power, factor, x) - self.value(*self.right, x)) ** 2 for x in _POINTS
        ]
        return -float(np.mean(wrong))

    def value(self, kind: str, power: int, factor: float, x: float) -> float:
        return float(factor * self.functions[kind](x) ** power)


PROGRAMS: dict[str, tuple[type[st.Module], int]] = {
    "square": (Square, 100),
    "fit": (Fit, 400),
    "valley": (Valley, 400),
    "mixed": (Mixed, 400),
}
"""By name, the program and its evaluations."""


def play(
    problem: st.TextProblem, way: Any, seed: int, budget: int, most: float = np.inf
) -> tuple[list[float], dict[str, Any]]:
    """The score of each evaluation, and the best values; it ends at the highest score there is."""
    optimizer = make_optimizer(way, problem.space, problem.objectives, seed=seed)
    scores: list[float] = []
    best: dict[str, Any] = {}
    for _ in range(budget):
        (candidate,) = optimizer.ask()
        feedback = problem.evaluate(candidate.config)
        optimizer.tell([candidate.result(feedback)])
        score = feedback.objectives.get("score", -np.inf)
        if score > max(scores, default=-np.inf):
            best = dict(candidate.config)
        scores.append(score)
        if score >= most:
            break
    return scores, best


def numeric(seeds: Sequence[int], share: float = 1.0) -> dict[str, Any]:
    """The loss left after all evaluations, and those taken to 1e-3 and 1e-6, by program and way."""
    found: dict[str, Any] = {}
    for name, (program, evaluations) in PROGRAMS.items():
        budget = max(10, int(share * evaluations))
        ways: dict[str, Any] = {}
        for way, maker in WAYS.items():
            runs = []
            for seed in seeds:
                problem = st.TextProblem(program(np.random.default_rng([seed, 5])))
                scores, _ = play(problem, maker, seed, budget)
                runs.append([-score for score in np.maximum.accumulate(scores)])
            ways[way] = {
                "loss": [run[-1] for run in runs],
                "to_1e-3": [_reached(run, 1e-3) for run in runs],
                "to_1e-6": [_reached(run, 1e-6) for run in runs],
            }
        found[name] = {"evaluations": budget, "ways": ways}
    return found


def _reached(losses: Sequence[float], enough: float) -> int | None:
    return next((k for k, loss in enumerate(losses, start=1) if loss <= enough), None)
