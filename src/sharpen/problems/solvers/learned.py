"""A linear solver that learns its parameter while it is used.

Mikhail Khodak et al., "Learning to Relax: Setting Solver Parameters Across a Sequence of Linear
System Instances", ICLR 2024: each call plays one arm of a bandit over a grid of omegas and learns
from the iterations it took, so that a program that solves many related systems needs no tuning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, FileFormatError
from sharpen.core.files import atomic_write_text
from sharpen.core.space import random_stream
from sharpen.problems.solvers.relaxation import Floats, Solution, sor, ssor_cg
from sharpen.search.bandits.chebcb import ChebCB
from sharpen.search.bandits.policy import Policy
from sharpen.search.bandits.tsallis_inf import TsallisINF

__all__ = ["LearnedSolver"]

_SOLVERS = {"sor": sor, "ssor_cg": ssor_cg}
_GRID = tuple(np.linspace(1.0, 1.95, 20))


class LearnedSolver:
    """Solves systems one after another, and chooses omega better and better.

    Args:
        solver: ``"sor"``, ``"ssor_cg"``, or a function like them of ``(A, b, parameter, x0=...)``.
        grid: values of the parameter to choose from.
        context: tells a number of each system, ``context(A, b)``, on which the best value depends.
        interval: the least and the largest context; needed with one.
        policy: makes the bandit from the number of arms; default Tsallis-INF, or ChebCB with a
            context.
        seed: of the choices.

    Examples:
        >>> from sharpen.problems.solvers import shifted_laplacians
        >>> solver = LearnedSolver("sor", seed=1)
        >>> for system in shifted_laplacians(50, variance="low"):
        ...     x, info = solver.solve(system.matrix, system.b)
        >>> info, solver.rounds
        (0, 50)
    """

    def __init__(
        self,
        solver: Literal["sor", "ssor_cg"] | Callable[..., Solution] = "ssor_cg",
        *,
        grid: Sequence[float] = _GRID,
        context: Callable[[Any, Any], float] | None = None,
        interval: tuple[float, float] | None = None,
        policy: Callable[[int], Policy] | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(solver, str) and solver not in _SOLVERS:
            raise ConfigError(f"solver={solver!r} must be sor, ssor_cg or a function.")
        if (context is None) != (interval is None):
            raise ConfigError("context and interval go together.")
        if interval is not None and not interval[0] < interval[1]:
            raise ConfigError(f"interval={interval} must go from less to more.")
        self._solve = _SOLVERS[solver] if isinstance(solver, str) else solver
        self.grid = tuple(float(value) for value in grid)
        self._context, self._interval = context, interval
        make = policy or (TsallisINF if context is None else ChebCB)
        self.policy = make(len(self.grid))
        self.seed = seed
        self.last: Solution | None = None

    @property
    def rounds(self) -> int:
        """Systems solved so far."""
        return self.policy.rounds

    def solve(
        self, matrix: Any, b: npt.ArrayLike, x0: npt.ArrayLike | None = None
    ) -> tuple[Floats, int]:
        """Solve ``A x = b``, and learn from it.

        Returns:
            [n] the solution, and 0 where it converged, else the number of iterations, as SciPy's
            solvers tell it. :attr:`last` has the details.
        """
        context = 0.0
        if self._context is not None and self._interval is not None:
            low, high = self._interval
            context = min(max((self._context(matrix, b) - low) / (high - low), 0.0), 1.0)
        u = float(random_stream(self.seed, self.rounds).random())
        arm, probability = self.policy.choose(u, context)
        solution = self._solve(matrix, b, self.grid[arm], x0=x0)
        # The least there can be is one iteration.
        self.policy.learn(arm, max(solution.iterations - 1, 0), probability, context)
        self.last = solution
        return solution.x, 0 if solution.converged else max(solution.iterations, 1)

    def save(self, path: str | Path) -> None:
        """Write what was learnt to a JSON file."""
        state = {"format": 1, "grid": self.grid, "seed": self.seed, **self._policy_state()}
        atomic_write_text(Path(path), json.dumps(state))

    def _policy_state(self) -> dict[str, Any]:
        return {"policy": type(self.policy).__name__, "state": self.policy.state_dict()}

    def restore(self, path: str | Path) -> None:
        """Go on from what :meth:`save` wrote.

        Raises:
            FileFormatError: it is no such file.
            ConfigError: it is of another grid or policy.
        """
        try:
            kept: Mapping[str, Any] = json.loads(Path(path).read_text())
            told = (tuple(kept["grid"]), kept["policy"], kept["state"], int(kept["seed"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"{path} is no saved solver: {error}.") from None
        grid, name, state, seed = told
        if grid != self.grid or name != type(self.policy).__name__:
            raise ConfigError(f"{path} is of {len(grid)} arms of {name}, not of this solver.")
        self.policy.load_state_dict(state)
        self.seed = seed
