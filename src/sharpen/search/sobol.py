"""Sobol search: a scrambled low-discrepancy sequence, which covers the space more evenly.

I. M. Sobol', "On the distribution of points in a cube and the approximate evaluation of integrals",
USSR Computational Mathematics and Mathematical Physics 7(4), 1967; scrambling: J. Matousek, "On the
L2-discrepancy for anchored boxes", Journal of Complexity 14(4), 1998 (as SciPy implements it).

::

    x_n = S_n xor scramble(seed), n = 0, 1, 2 ...;  config_n = decode(x_n)

The first 2^m points put exactly one in each of 2^m equal slices of every parameter. A point that
meets a forbidden clause has the parameters the clause names drawn at random from the stream of
(seed, n). Failed trials change nothing.

Differs from the papers: None. Time O(d) a proposal in order, O(n d) after a jump to point n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from sharpen.core.errors import DependencyNotInstalled
from sharpen.core.optimizer import Capabilities, Optimizer
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream

__all__ = ["Sobol"]


class Sobol(Optimizer):
    """Points of a scrambled Sobol sequence; see the module for the method.

    Raises:
        DependencyNotInstalled: SciPy is missing.
    """

    name: ClassVar[str] = "sobol"
    capabilities: ClassVar[Capabilities] = Capabilities(
        multi_objective=True, constraints=True, max_dimensions=21_201
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        seed: int = 0,
        **given: Any,
    ) -> None:
        super().__init__(space, objectives, constraints, seed=seed, **given)
        self.restart()

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        try:
            from scipy.stats.qmc import Sobol as Sequence_
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("the optimizer 'sobol'", "search") from None
        self._sequence = Sequence_(self.space.dimensions, scramble=True, rng=self.seed)
        self._position = 0

    def propose(self, number: int) -> dict[str, Any]:
        """See :meth:`Optimizer.propose`."""
        if number < self._position:
            self.restart()
        if number > self._position:
            self._sequence.fast_forward(number - self._position)
        point = self._sequence.random(1)[0]
        self._position = number + 1
        return self.space.settle(point, random_stream(self.seed, number))
