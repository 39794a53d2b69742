"""The choice behind ``optimizer="auto"``.

============================================  =========
a space of at most 50 parameters, with SciPy  sobol
anything else                                 random
============================================  =========

Both handle conditions, forbidden combinations, constraints and several objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from sharpen.core.optimizer import Optimizer
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space
from sharpen.search.random import Random
from sharpen.search.sobol import Sobol

__all__ = ["choose"]

_EVEN_DIMENSIONS = 50  # beyond, the projections of a few hundred points are no longer even


def choose(
    space: Space,
    objectives: Sequence[Objective] = (Objective("value"),),
    constraints: Sequence[Constraint] = (),
    *,
    seed: int = 0,
    budget: int | None = None,
    fidelity: Fidelity | None = None,
    contexts: Space | None = None,
) -> Optimizer:
    """An optimizer that suits the problem; the module has the table."""
    kind: type[Optimizer] = Random
    if space.dimensions <= _EVEN_DIMENSIONS and find_spec("scipy") is not None:
        kind = Sobol
    return kind(
        space,
        objectives,
        constraints,
        seed=seed,
        budget=budget,
        fidelity=fidelity,
        contexts=contexts,
    )
