"""Halton search: a low-discrepancy sequence of any length.

John H. Halton, "On the efficiency of certain quasi-random sequences of points in evaluating
multi-dimensional integrals", Numerische Mathematik 2, 1960; scrambling: Art B. Owen, "A randomized
Halton algorithm in R", 2017, arXiv:1706.02808 (as SciPy implements it).

::

    x_nj = sum_i pi_ji(digit_i of n in base p_j) p_j^(-i-1)      p_j the j-th prime number

Unlike Sobol's, no number of points is better than another. Beyond some 20 coordinates the bases are
so large that a few hundred points are no more even than random ones. A point that meets a forbidden
clause has the parameters the clause names drawn at random from the stream of (seed, n). Failed
trials change nothing.

Differs from the papers: None. Time O(d log n) a proposal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from sharpen.core.errors import DependencyNotInstalled
from sharpen.core.optimizer import Capabilities, Optimizer
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream

__all__ = ["Halton"]


class Halton(Optimizer):
    """Points of a scrambled Halton sequence; see the module for the method.

    Raises:
        DependencyNotInstalled: SciPy is missing.
    """

    name: ClassVar[str] = "halton"
    capabilities: ClassVar[Capabilities] = Capabilities(multi_objective=True, constraints=True)

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        **given: Any,
    ) -> None:
        super().__init__(space, objectives, constraints, **given)
        self.restart()

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        try:
            from scipy.stats import qmc
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("the optimizer 'halton'", "search") from None
        self._sequence = qmc.Halton(self.space.dimensions, scramble=True, rng=self.seed)

    def propose(self, number: int) -> dict[str, Any]:
        """See :meth:`Optimizer.propose`."""
        self._sequence.reset()
        self._sequence.fast_forward(number)
        point = self._sequence.random(1)[0]
        return self.space.settle(point, random_stream(self.seed, number))
