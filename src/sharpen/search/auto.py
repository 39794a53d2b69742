"""The choice behind ``optimizer="auto"``.

=======================================================  ======
SciPy is not installed                                   random
contexts                                                 chebcb
one objective, a fidelity that is a ladder of rungs      bohb
another fidelity, or several objectives and a fidelity   tpe
several objectives, more than 500 trials planned         nsga2
fewer than 15 trials planned, at most 50 coordinates     sobol
one objective, 15 to 300 trials planned, at most 20
coordinates, no subset or permutation, torch installed   gp
anything else                                            tpe
=======================================================  ======

All handle conditions, forbidden combinations and constraints. ``gp`` finds better configurations
than ``tpe`` in as few trials (``benchmarks/search/bench_bo.py`` and ``bench_tasks.py``), for some
tens of milliseconds a suggestion, which grow with the trials; torch takes a second to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from sharpen.core.collections import Permutation, Subset
from sharpen.core.optimizer import Optimizer, find_optimizer
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space
from sharpen.search.rungs import is_ladder

__all__ = ["choose"]

_MANY_TRIALS = 500  # from here on, a population catches up with models
_FEW_TRIALS = 15  # too few for a model to learn from: cover the space evenly
_MODEL_TRIALS = 300  # beyond, the model's time grows while the others catch up
_MODEL_DIMENSIONS = 20
_EVEN_DIMENSIONS = 50  # beyond, the projections of a few points are no longer even


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
    given: dict[str, Any] = {"seed": seed, "budget": budget}
    if find_spec("scipy") is None:
        name = "random"
    elif contexts is not None:
        name = "chebcb"
        given["contexts"] = contexts
    elif fidelity is not None:
        name = "bohb" if len(objectives) == 1 and is_ladder(fidelity) else "tpe"
        given["fidelity"] = fidelity
    elif len(objectives) > 1 and (budget or 0) > _MANY_TRIALS:
        name = "nsga2"
    elif budget is not None and budget < _FEW_TRIALS and space.dimensions <= _EVEN_DIMENSIONS:
        name = "sobol"
    elif (
        len(objectives) == 1
        and budget is not None
        and budget <= _MODEL_TRIALS
        and space.dimensions <= _MODEL_DIMENSIONS
        and not any(isinstance(p, Subset | Permutation) for p in space.values())
        and find_spec("torch") is not None
    ):
        name = "gp"
    else:
        name = "tpe"
    return find_optimizer(name)(space, objectives, constraints, **given)
