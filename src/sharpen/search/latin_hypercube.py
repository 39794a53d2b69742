"""Latin hypercube sampling: each of n points has a slice of every parameter to itself.

Michael D. McKay, Richard J. Beckman and William J. Conover, "A Comparison of Three Methods for
Selecting Values of Input Variables in the Analysis of Output from a Computer Code", Technometrics
21(2), 1979.

::

    x_ij = (pi_j(i) + u_ij) / n          pi_j a random permutation of 0 .. n - 1, u ~ U[0, 1]

After n points another design of n begins. A point that meets a forbidden clause has the parameters
the clause names drawn at random from the stream of (seed, number). Failed trials change nothing.

Differs from the paper: None. Time O(d) a proposal, and O(n d) once a design; memory O(n d).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities, Optimizer
from sharpen.core.parameters import Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.observations import Floats

__all__ = ["LatinHypercube"]

_POINTS = 32  # of a design where no budget is known
_LATER = 2**62  # streams of designs; trials have the numbers below


class LatinHypercube(Optimizer):
    """Latin hypercube designs, one after another; see the module for the method.

    Args:
        space: what to search over.
        objectives: any number.
        constraints: any number.
        points: n; None is the budget, or 32.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: fewer than one point.
    """

    name: ClassVar[str] = "lhs"
    capabilities: ClassVar[Capabilities] = Capabilities(multi_objective=True, constraints=True)
    hyperparameters: ClassVar[Space] = Space(points=Int(4, 1024, log=True))

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        points: int | None = None,
        **given: Any,
    ) -> None:
        if points is not None and points < 1:
            raise ConfigError(f"points={points} must be at least 1 (LatinHypercube).")
        super().__init__(space, objectives, constraints, **given)
        self.points = points or self.budget or _POINTS
        self.restart()

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        self._design: tuple[int, Floats] | None = None

    def propose(self, number: int) -> dict[str, Any]:
        """See :meth:`Optimizer.propose`."""
        which, place = divmod(number, self.points)
        if self._design is None or self._design[0] != which:
            rng = random_stream(self.seed, _LATER + which)
            d = self.space.dimensions
            slices = np.array([rng.permutation(self.points) for _ in range(d)]).reshape(d, -1).T
            self._design = which, (slices + rng.random(slices.shape)) / self.points
        return self.space.settle(self._design[1][place], random_stream(self.seed, number))
