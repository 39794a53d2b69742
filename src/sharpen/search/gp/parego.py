"""ParEGO: several objectives, by Bayesian optimization of a random scalarization each time.

Joshua Knowles, "ParEGO: A Hybrid Algorithm With On-Line Landscape Approximation for Expensive
Multiobjective Optimization Problems", IEEE Transactions on Evolutionary Computation 10(1), 2006,
equation 2::

    w ~ Dirichlet(1, ..., 1) for each proposal
    f_j scaled to [0, 1] by the least and largest values seen
    loss(x) = max_j w_j f_j(x) + 0.05 sum_j w_j f_j(x)
    x = what GP proposes for that loss

The minima of such losses over all weights are the Pareto-optimal points, on parts of the front that
are not convex, too.

Differs from the paper: weights are drawn from the simplex, not from a lattice on it; the model and
its acquisition are those of :class:`~sharpen.search.gp.optimizer.GP`, so constraints, pending and
failed trials and every kind of space are taken. Time: hyper-parameters are fitted at every
proposal, O(n^3).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from sharpen.core.optimizer import Capabilities
from sharpen.search.gp.optimizer import GP

__all__ = ["ParEGO", "scalarize"]

Floats = npt.NDArray[np.float64]

_RHO = 0.05


def scalarize(losses: Floats, weights: Floats, low: Floats, high: Floats) -> Floats:
    """The augmented Tchebycheff loss, equation 2 of the paper.

    Args:
        losses: [n, m] objectives such that less is better.
        weights: [m] that sum to 1.
        low: [m] what is scaled to 0.
        high: [m] what is scaled to 1.

    Returns:
        [n].
    """
    scaled = (losses - low) / np.where(high > low, high - low, 1.0)
    weighted = scaled * weights
    loss: Floats = weighted.max(axis=1) + _RHO * weighted.sum(axis=1)
    return loss


class ParEGO(GP):
    """Bayesian optimization of several objectives; see the module for the method.

    Arguments are those of :class:`~sharpen.search.gp.optimizer.GP`, with any number of objectives.

    Examples:
        >>> from sharpen.core.parameters import Float
        >>> from sharpen.core.problem import Objective
        >>> from sharpen.core.space import Space
        >>> optimizer = ParEGO(Space(x=Float(0, 1)), (Objective("a"), Objective("b")), n_init=3)
        >>> for _ in range(5):
        ...     candidate = optimizer.ask()[0]
        ...     x = candidate.config["x"]
        ...     optimizer.tell([candidate.result({"a": x, "b": (1 - x) ** 2})])
        >>> len(optimizer.history)
        5
    """

    name: ClassVar[str] = "parego"
    takes_related: ClassVar[bool] = False
    covers_numbers: ClassVar[bool] = True
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True, multi_objective=True)

    def _losses(self, rng: np.random.Generator) -> Floats:
        losses = self.seen.imputed()
        weights = rng.dirichlet(np.ones(losses.shape[1]))
        known = losses[self.seen.ok & self._true]
        return scalarize(losses, weights, known.min(axis=0), known.max(axis=0))
