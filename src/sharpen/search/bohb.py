"""BOHB: Hyperband whose new configurations come from Parzen estimators.

Stefan Falkner, Aaron Klein and Frank Hutter, "BOHB: Robust and Efficient Hyperparameter
Optimization at Scale", ICML 2018, arXiv 1807.01774, section 3 and algorithm 2.

::

    with probability rho:  a random configuration
    else:                  the highest rung with at least d + 3 trials that ended well;
                           TPE on the trials of that rung              (sharpen.search.tpe)
                           where no rung has so many: a random configuration

d is the number of coordinates. What climbs, and when, is Hyperband's.

Differs from the paper: the kernels, bandwidths and split into good and bad are those of
:mod:`sharpen.search.tpe` (the paper takes at least d + 1 good ones, the bandwidths of one normal
distribution, and triples them to draw), running trials count as bad. So conditional parameters need
no imputation. rho is 0.1 and 24 candidates are drawn, not 1/3 and 64, with which regrets were a
third larger in ``benchmarks/search/bench_multi_fidelity.py``. Time and memory as TPE and Hyperband
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.hyperband import Hyperband
from sharpen.search.tpe import TPE

__all__ = ["BOHB"]


class BOHB(Hyperband, TPE):
    """Hyperband with a model of each rung; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number.
        random_share: of new configurations that are drawn at random, from 0 to 1.
        startup: trials that must have ended well on a rung to learn from it; None is d + 3.
        candidates: points drawn from the density of good trials for each proposal.
        share: of the trials of a rung that count as good, above 0 and at most 1.
        given: see :class:`~sharpen.search.tpe.TPE` and
            :class:`~sharpen.search.successive_halving.SuccessiveHalving`.

    Raises:
        ConfigError: an option is out of its range, or the fidelity is no ladder.
        DependencyNotInstalled: SciPy is missing.
    """

    name: ClassVar[str] = "bohb"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True, fidelity=True)
    hyperparameters: ClassVar[Space | None] = Space(
        eta=Int(2, 8, log=True, default=3),
        random_share=Float(0, 0.9, default=0.1),
        candidates=Int(4, 512, log=True, default=24),
        share=Float(0.02, 0.5, log=True, default=0.15),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        random_share: float = 0.1,
        startup: int | None = None,
        candidates: int = 24,
        share: float = 0.15,
        **given: Any,
    ) -> None:
        super().__init__(
            space,
            objectives,
            constraints,
            startup=space.dimensions + 3 if startup is None else startup,
            candidates=candidates,
            share=share,
            **given,
        )
        if not 0 <= random_share <= 1:
            raise ConfigError(f"random_share={random_share} must be from 0 to 1 (BOHB).")
        self.random_share = random_share

    def new_config(self, number: int) -> dict[str, Any]:
        """See :meth:`Climber.new_config`."""
        rng = random_stream(self.seed, number)
        if rng.random() < self.random_share:
            return self.space.draw(rng)
        for level in reversed(self.levels):
            counted = self.seen.fidelity == level
            if np.count_nonzero(counted & self.seen.ok) >= self.startup:
                return self.draw(rng, counted)
        return self.space.draw(rng)
