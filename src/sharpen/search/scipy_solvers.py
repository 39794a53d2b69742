"""Classical local solvers, as SciPy implements them: simplex, directions, trust region, gradient.

::

    nelder-mead   John A. Nelder and Roger Mead, "A Simplex Method for Function Minimization", The
                  Computer Journal 7, 1965
    powell        Michael J. D. Powell, "An efficient method for finding the minimum of a function
                  of several variables without calculating derivatives", The Computer Journal 7,
                  1964
    cobyla        Powell, "A direct search optimization method that models the objective and
                  constraint functions by linear interpolation", 1994
    lbfgsb        Richard H. Byrd et al., "A Limited Memory Algorithm for Bound Constrained
                  Optimization", SIAM Journal on Scientific Computing 16(5), 1995
    slsqp         Dieter Kraft, "A software package for sequential quadratic programming", 1988

All run in the unit cube, from the space's default first and then from random points, through
:mod:`sharpen.search.blocking`, which says what becomes of failed trials and of trials side by side.
A coordinate that is cut into bins (integers, choices) is constant within each, so the gradient
solvers move it only by restarts. Constraints: ``cobyla`` and ``slsqp`` take them, others refuse.
Gradients: ``lbfgsb`` and ``slsqp`` use those that trials bring (``Feedback.gradients``), else
forward differences, whose points may be measured side by side.

Differs from the papers: as SciPy does; restarts. Time and memory of a proposal: O(d) for lbfgsb,
O(d^2) for nelder-mead and powell, up to O(d^3) for cobyla and slsqp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.blocking import BlockingOptimizer, Function
from sharpen.search.observations import Floats

__all__ = ["COBYLA", "LBFGSB", "SLSQP", "NelderMead", "Powell"]

_ENDLESS = 10**9  # steps: solvers end by their tolerance
Solver = Callable[[Function, Floats], Any]


class _Scipy(BlockingOptimizer):
    """A method of ``scipy.optimize.minimize``."""

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        tolerance: float = 1e-6,
        **given: Any,
    ) -> None:
        if not 0 < tolerance < 1:
            raise ConfigError(
                f"tolerance={tolerance} must be between 0 and 1 ({type(self).__name__})."
            )
        try:
            from scipy.optimize import minimize
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature(
                f"the optimizer '{self.name}'", "search"
            ) from None
        self._minimize = minimize
        self.tolerance = tolerance
        super().__init__(space, objectives, constraints, **given)


class _Stepping(_Scipy):
    """One whose first step is an option."""

    hyperparameters: ClassVar[Space | None] = Space(
        step=Float(0.02, 0.5, log=True), tolerance=Float(1e-8, 1e-2, log=True)
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        step: float = 0.25,
        **given: Any,
    ) -> None:
        if not 0 < step <= 0.5:
            raise ConfigError(
                f"step={step} must be positive and at most 0.5 ({type(self).__name__})."
            )
        self.step = step
        super().__init__(space, objectives, constraints, **given)


class NelderMead(_Stepping):
    """The downhill simplex; see the module.

    Args:
        space: what to search over.
        objectives: one.
        constraints: none; it refuses them.
        step: length of the first simplex's edges, as a part of each range.
        given: ``tolerance``, a run ends when the simplex and its losses differ by less; and those
            of :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
        DependencyNotInstalled: SciPy is missing.

    Examples:
        >>> optimizer = NelderMead(Space(x=Float(-1, 1)))
        >>> optimizer.ask()[0].config
        {'x': 0.0}
    """

    name: ClassVar[str] = "nelder-mead"

    def solver(self) -> Solver:
        """See :meth:`BlockingOptimizer.solver`."""
        minimize, step, tolerance = self._minimize, self.step, self.tolerance

        def solve(function: Function, start: Floats) -> None:
            edges = np.diag(np.where(start + step <= 1, step, -step))
            options = {
                "initial_simplex": np.concatenate([start[None], start + edges]),
                "adaptive": len(start) > 5,  # Gao and Han's parameters, for many dimensions
                "xatol": tolerance,
                "fatol": tolerance,
                "maxiter": _ENDLESS,
                "maxfev": _ENDLESS,
            }
            bounds = [(0.0, 1.0)] * len(start)
            minimize(function, start, method="Nelder-Mead", bounds=bounds, options=options)

        return solve


class Powell(_Scipy):
    """Powell's direction set method; see the module.

    Args:
        space: what to search over.
        objectives: one.
        constraints: none; it refuses them.
        tolerance: relative, of line searches and of a run.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
        DependencyNotInstalled: SciPy is missing.
    """

    name: ClassVar[str] = "powell"
    hyperparameters: ClassVar[Space | None] = Space(tolerance=Float(1e-6, 1e-1, log=True))

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        tolerance: float = 1e-4,
        **given: Any,
    ) -> None:
        super().__init__(space, objectives, constraints, tolerance=tolerance, **given)

    def solver(self) -> Solver:
        """See :meth:`BlockingOptimizer.solver`."""
        minimize, tolerance = self._minimize, self.tolerance

        def solve(function: Function, start: Floats) -> None:
            options = {
                "xtol": tolerance,
                "ftol": tolerance,
                "maxiter": _ENDLESS,
                "maxfev": _ENDLESS,
            }
            bounds = [(0.0, 1.0)] * len(start)
            minimize(function, start, method="Powell", bounds=bounds, options=options)

        return solve


class COBYLA(_Stepping):
    """Constrained optimization by linear approximations; see the module.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number.
        step: first radius of the trust region, as a part of each range.
        given: ``tolerance``, the last radius; and those of
            :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
        DependencyNotInstalled: SciPy is missing.
    """

    name: ClassVar[str] = "cobyla"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)

    def solver(self) -> Solver:
        """See :meth:`BlockingOptimizer.solver`."""
        minimize, step, tolerance = self._minimize, self.step, self.tolerance
        has_constraints = bool(self.constraints)

        def solve(function: Function, start: Floats) -> None:
            options = {"rhobeg": step, "tol": tolerance, "maxiter": _ENDLESS}
            limits = [{"type": "ineq", "fun": function.slack}] if has_constraints else []
            bounds = [(0.0, 1.0)] * len(start)
            minimize(
                function, start, method="COBYLA", bounds=bounds, constraints=limits, options=options
            )

        return solve


class _Differences(_Scipy):
    """One that needs gradients."""

    hyperparameters: ClassVar[Space | None] = Space(
        difference=Float(1e-7, 1e-2, log=True), tolerance=Float(1e-10, 1e-2, log=True)
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        difference: float = 1e-6,
        tolerance: float = 1e-8,
        **given: Any,
    ) -> None:
        if not 0 < difference <= 0.5:
            raise ConfigError(
                f"difference={difference} must be positive and at most 0.5 ({type(self).__name__})."
            )
        self.difference = difference
        super().__init__(space, objectives, constraints, tolerance=tolerance, **given)


class LBFGSB(_Differences):
    """L-BFGS-B; see the module.

    Args:
        space: what to search over.
        objectives: one.
        constraints: none; it refuses them.
        difference: step of finite differences, as a part of each range; larger under noise.
        tolerance: a run ends when the loss falls by less, relatively.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
        DependencyNotInstalled: SciPy is missing.
    """

    name: ClassVar[str] = "lbfgsb"

    def solver(self) -> Solver:
        """See :meth:`BlockingOptimizer.solver`."""
        minimize, tolerance = self._minimize, self.tolerance

        def solve(function: Function, start: Floats) -> None:
            minimize(
                function,
                start,
                method="L-BFGS-B",
                jac=function.gradient,
                bounds=[(0.0, 1.0)] * len(start),
                options={"ftol": tolerance, "maxiter": _ENDLESS, "maxfun": _ENDLESS},
            )

        return solve


class SLSQP(_Differences):
    """Sequential least squares programming; see the module.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number.
        difference: step of finite differences, as a part of each range; larger under noise.
        tolerance: a run ends when the loss falls by less.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
        DependencyNotInstalled: SciPy is missing.
    """

    name: ClassVar[str] = "slsqp"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)

    def solver(self) -> Solver:
        """See :meth:`BlockingOptimizer.solver`."""
        minimize, tolerance = self._minimize, self.tolerance
        has_constraints = bool(self.constraints)

        def solve(function: Function, start: Floats) -> None:
            limit = {"type": "ineq", "fun": function.slack, "jac": function.slack_gradient}
            minimize(
                function,
                start,
                method="SLSQP",
                jac=function.gradient,
                bounds=[(0.0, 1.0)] * len(start),
                constraints=[limit] if has_constraints else [],
                options={"ftol": tolerance, "maxiter": 10_000},
            )

        return solve
