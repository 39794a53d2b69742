"""Random search: independent draws, uniform in the unit cube of the space.

James Bergstra and Yoshua Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13, 2012.

::

    x_n ~ U[0, 1]^d from the stream of (seed, n);  config_n = decode(x_n)

A point that meets a forbidden clause is drawn again. Failed trials change nothing.

Differs from the paper: None. Time O(d) a proposal; memory O(1) beside the history.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sharpen.core.optimizer import Capabilities, Optimizer
from sharpen.core.space import random_stream

__all__ = ["Random"]


class Random(Optimizer):
    """Independent uniform draws; see the module for the method.

    Examples:
        >>> from sharpen.core.parameters import Float
        >>> from sharpen.core.space import Space
        >>> first, second = Random(Space(x=Float(0, 1)), seed=1).ask(2)
        >>> first.config != second.config
        True
    """

    name: ClassVar[str] = "random"
    capabilities: ClassVar[Capabilities] = Capabilities(multi_objective=True, constraints=True)

    def propose(self, number: int) -> dict[str, Any]:
        """See :meth:`Optimizer.propose`."""
        return self.space.draw(random_stream(self.seed, number))
