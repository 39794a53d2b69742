"""The choice behind ``optimizer="auto"``.

=======================================================  =============
SciPy is not installed                                   random
contexts, one objective, a model pays                    contextual-gp
other contexts                                           chebcb
one objective, a fidelity that is a ladder of rungs      bohb
another fidelity, or several objectives and a fidelity   tpe
several objectives, more than 300 trials planned         nsga2
fewer than 15 trials planned, at most 50 coordinates     sobol
one objective, a model pays                              gp
two or three objectives, a model pays                    ehvi
anything else                                            tpe
=======================================================  =============

A model pays for 15 to 300 planned trials and at most 20 coordinates (those of contexts with them),
where no parameter is a subset or a permutation and torch is installed. All handle conditions,
forbidden combinations and constraints. ``gp`` finds better configurations than ``tpe`` in as few
trials (``benchmarks/search/bench_bo.py`` and ``bench_tasks.py``), ``ehvi`` better fronts than
``tpe`` and ``nsga2``, and ``contextual-gp`` loses less than ``chebcb`` (``bench_auto.py``), for
some tens of milliseconds a suggestion, which grow with the trials; torch takes a second to import.
After 300 trials the front of ``nsga2`` is as a rule ahead of that of ``tpe``.
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

_FEW_TRIALS = 15  # too few for a model to learn from: cover the space evenly
_MODEL_TRIALS = 300  # beyond, the model's time grows while others, populations too, catch up
_MODEL_DIMENSIONS = 20
_MODEL_OBJECTIVES = 3  # beyond, the volume takes long
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
    about = [space] if contexts is None else [space, contexts]
    model_pays = (
        budget is not None
        and _FEW_TRIALS <= budget <= _MODEL_TRIALS
        and sum(each.dimensions for each in about) <= _MODEL_DIMENSIONS
        and not any(isinstance(p, Subset | Permutation) for each in about for p in each.values())
        and find_spec("torch") is not None
    )
    if find_spec("scipy") is None:
        name = "random"
    elif contexts is not None:
        name = "contextual-gp" if model_pays and len(objectives) == 1 else "chebcb"
        given["contexts"] = contexts
    elif fidelity is not None:
        name = "bohb" if len(objectives) == 1 and is_ladder(fidelity) else "tpe"
        given["fidelity"] = fidelity
    elif len(objectives) > 1 and (budget or 0) > _MODEL_TRIALS:
        name = "nsga2"
    elif budget is not None and budget < _FEW_TRIALS and space.dimensions <= _EVEN_DIMENSIONS:
        name = "sobol"
    elif model_pays and len(objectives) == 1:
        name = "gp"
    elif model_pays and len(objectives) <= _MODEL_OBJECTIVES:
        name = "ehvi"
    else:
        name = "tpe"
    return find_optimizer(name)(space, objectives, constraints, **given)
