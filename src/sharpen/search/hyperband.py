"""Hyperband: successive halving from each of the fidelities, since none is right for all problems.

Lisha Li, Kevin Jamieson, Giulia DeSalvo, Afshin Rostamizadeh and Ameet Talwalkar, "Hyperband: A
Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 18(185), 2018, arXiv 1603.06560,
algorithm 1.

::

    for s = s_max .. 0:  bracket s of successive halving   (sharpen.search.successive_halving)

again and again. A bracket costs about (s_max + 1) R. Bracket 0 is random search in full.

Differs from the paper: None beside what :mod:`sharpen.search.successive_halving` says on workers.
"""

from __future__ import annotations

from typing import ClassVar

from sharpen.search.successive_halving import SuccessiveHalving

__all__ = ["Hyperband"]


class Hyperband(SuccessiveHalving):
    """Rounds of brackets that begin ever higher; see the module for the method.

    Examples:
        >>> from sharpen.core.problem import Fidelity
        >>> from sharpen.core.parameters import Float
        >>> from sharpen.core.space import Space
        >>> optimizer = Hyperband(Space(x=Float(0, 1)), fidelity=Fidelity("epochs", 1, 81))
        >>> optimizer.depths()
        [4, 3, 2, 1, 0]
    """

    name: ClassVar[str] = "hyperband"

    def depths(self) -> list[int]:
        """See :meth:`SuccessiveHalving.depths`."""
        return list(range(len(self.levels) - 1, -1, -1))
