"""Sequences of linear systems that resemble each other, as simulations make them.

Mikhail Khodak et al., "Learning to Relax: Setting Solver Parameters Across a Sequence of Linear
System Instances", ICLR 2024, section 5.

::

    shifted Laplacian   A_t = five-point stencil (4, -1) on an inner grid + c_t I
                        c_t = -0.15 + 0.6 Beta(1/2, 3/2)  (high variance), or Beta(2, 6)  (low)
                        b_t = normal, drawn again while ||b_t|| > sqrt(n)
    heat equation       u' = kappa(t) (u_xx + u_yy) + f(t) on the unit square, zero on its border,
                        kappa(t) = max(0.1 sin 2 pi t, -10 sin 2 pi t), f a bump that moves
                        Crank-Nicolson: (I + h/2 kappa_{k+1} L) u_{k+1} = (I - h/2 kappa_k L) u_k
                        + h/2 (f_k + f_{k+1}),  L = minus the five-point Laplacian / (grid step)^2

The context of a system is the one number in which its matrix differs: c_t, or kappa at the step's
end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Float
from sharpen.core.problem import Objective, TrialContext
from sharpen.core.space import Space, random_stream
from sharpen.problems.solvers.relaxation import Floats, Solution, sor, ssor_cg

__all__ = ["LinearSequence", "System", "heat_equation", "shifted_laplacians", "solve_all"]

Variance = Literal["high", "low"]
_SHIFT = {"high": (0.5, 1.5), "low": (2.0, 6.0)}
_LEAST, _WIDTH = -0.15, 0.6


@dataclass(frozen=True, slots=True)
class System:
    """One system ``A x = b``."""

    matrix: Any
    """[n, n] sparse."""

    b: Floats
    """[n] right-hand side."""

    x0: Floats
    """[n] a guess of the solution."""

    context: float
    """What tells its matrix from the others'."""


def laplacian(side: int) -> Any:
    """Five-point stencil with 4 and -1 on a grid of ``side`` x ``side`` inner points, as CSR."""
    line = scipy.sparse.diags_array(
        [np.full(side - 1, -1.0), np.full(side, 2.0), np.full(side - 1, -1.0)], offsets=[-1, 0, 1]
    )
    one = scipy.sparse.eye_array(side)
    return scipy.sparse.csr_array(scipy.sparse.kron(line, one) + scipy.sparse.kron(one, line))


def draw_system(base: Any, context: float, rng: np.random.Generator) -> System:
    """``base + context I`` with a random right-hand side."""
    n = base.shape[0]
    b = rng.standard_normal(n)
    while np.linalg.norm(b) > math.sqrt(n):
        b = rng.standard_normal(n)
    matrix = scipy.sparse.csr_array(base + context * scipy.sparse.eye_array(n))
    return System(matrix, b, np.zeros(n), context)


def draw_shift(variance: Variance, rng: np.random.Generator) -> float:
    """A shift c of the published distributions."""
    if variance not in _SHIFT:
        raise ConfigError(f"variance={variance!r} must be high or low.")
    return _LEAST + _WIDTH * float(rng.beta(*_SHIFT[variance]))


def shifted_laplacians(
    count: int, *, variance: Variance = "high", side: int = 10, seed: int = 0
) -> Generator[System, Floats | None, None]:
    """Systems ``A + c I`` with random shifts; see the module. Solutions are not needed back.

    Args:
        count: how many.
        variance: of the shifts.
        side: inner points a side; n is its square.
        seed: of shifts and right-hand sides.
    """
    base = laplacian(side)
    for number in range(count):
        rng = random_stream(seed, number)
        yield draw_system(base, draw_shift(variance, rng), rng)


def heat_equation(
    steps: int, *, side: int = 25, step_s: float = 1e-3
) -> Generator[System, Floats | None, None]:
    """The systems of the heat equation's time steps; see the module.

    Each needs the solution of the one before: ``systems.send(x)`` gives the next system.

    Args:
        steps: how many.
        side: inner points a side; n is its square.
        step_s: length of a time step; kappa has the period 1.
    """
    spacing = 1.0 / (side + 1)
    stiffness = laplacian(side) / spacing**2
    one = scipy.sparse.eye_array(side**2)
    axis = spacing * np.arange(1, side + 1)
    x, y = np.meshgrid(axis, axis, indexing="ij")

    def kappa(t: float) -> float:
        wave = math.sin(2 * math.pi * t)
        return max(0.1 * wave, -10.0 * wave)

    def bump(t: float) -> Floats:
        centre = 0.5 + 0.25 * math.cos(2 * math.pi * t), 0.5 + 0.25 * math.sin(2 * math.pi * t)
        far = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
        return np.asarray(np.exp(-32.0 * far)).ravel()

    u = np.zeros(side**2)
    for k in range(steps):
        now, then = k * step_s, (k + 1) * step_s
        matrix = scipy.sparse.csr_array(one + 0.5 * step_s * kappa(then) * stiffness)
        b = u - 0.5 * step_s * kappa(now) * (stiffness @ u)
        b = b + 0.5 * step_s * (bump(now) + bump(then))
        solved = yield System(matrix, b, u, kappa(then))
        if solved is None:
            raise ConfigError("a step of the heat equation needs the solution of the one before.")
        u = np.array(solved)


def solve_all(
    systems: Generator[System, Floats | None, None], solve: Callable[[System], Solution]
) -> list[Solution]:
    """Solve a sequence, handing each solution to the system after it."""
    found: list[Solution] = []
    try:
        system = next(systems)
        while True:
            found.append(solve(system))
            system = systems.send(found[-1].x)
    except StopIteration:
        return found


class LinearSequence:
    """Shifted Laplacians as a problem: find omega, where each trial has its shift as context.

    The objective is the number of iterations.

    Args:
        solver: ``"sor"`` or ``"ssor_cg"``.
        variance: of the shifts.
        side: inner points a side.
        seed: of shifts.
        tolerance: of the residual.
    """

    def __init__(
        self,
        solver: Literal["sor", "ssor_cg"] = "sor",
        *,
        variance: Variance = "high",
        side: int = 10,
        seed: int = 0,
        tolerance: float = 1e-8,
    ) -> None:
        if solver not in ("sor", "ssor_cg"):
            raise ConfigError(f"solver={solver!r} must be sor or ssor_cg.")
        draw_shift(variance, random_stream(0, 0))
        self.name = f"{solver}-{variance}-{side}"
        self.space = Space(omega=Float(1.0, 1.95))
        self.contexts = Space(shift=Float(_LEAST, _LEAST + _WIDTH))
        self.objectives = (Objective("iterations"),)
        self.constraints = ()
        self._solve = sor if solver == "sor" else ssor_cg
        self._variance, self._side, self._seed = variance, side, seed
        self._tolerance = tolerance
        self._base = laplacian(side)

    def observe(self, number: int, seed: int) -> dict[str, float]:
        """The shift of a trial."""
        return {"shift": draw_shift(self._variance, random_stream(self._seed, number))}

    def evaluate(self, config: dict[str, Any], trial: TrialContext) -> dict[str, float]:
        """Iterations to solve the trial's system."""
        rng = np.random.default_rng(trial.seed)
        system = draw_system(self._base, float(trial.context["shift"]), rng)
        solution = self._solve(
            system.matrix, system.b, float(config["omega"]), tolerance=self._tolerance
        )
        return {"iterations": solution.iterations}
