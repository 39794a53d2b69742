"""Sharpen: a model from data to deployment at the limit of the hardware you have.

Names load on first use, so ``import sharpen`` is quick and pulls no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sharpen._version import __version__

if TYPE_CHECKING:
    from sharpen.core.collections import Permutation, Subset
    from sharpen.core.conditions import Between, Eq, Gt, In, Lt, Ne, P
    from sharpen.core.errors import SharpenError
    from sharpen.core.executor import Local
    from sharpen.core.feedback import Feedback, Trial
    from sharpen.core.lm.client import LM
    from sharpen.core.lm.scripted import Scripted
    from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Ordinal
    from sharpen.core.problem import Constraint, Fidelity, Objective, Problem, problem
    from sharpen.core.ray_executor import Ray
    from sharpen.core.recipe import load_recipe
    from sharpen.core.run import run
    from sharpen.core.run_folder import Run, load_run
    from sharpen.core.space import Space
    from sharpen.core.study import Budget, Study
    from sharpen.core.text_parameter import Text
    from sharpen.core.threads import Threads
    from sharpen.core.tune import tune

_EXPORTS = {
    "Between": "sharpen.core.conditions",
    "Bool": "sharpen.core.parameters",
    "Budget": "sharpen.core.study",
    "Categorical": "sharpen.core.parameters",
    "Constraint": "sharpen.core.problem",
    "Eq": "sharpen.core.conditions",
    "Feedback": "sharpen.core.feedback",
    "Fidelity": "sharpen.core.problem",
    "Fixed": "sharpen.core.parameters",
    "Float": "sharpen.core.parameters",
    "Gt": "sharpen.core.conditions",
    "In": "sharpen.core.conditions",
    "Int": "sharpen.core.parameters",
    "LM": "sharpen.core.lm.client",
    "Local": "sharpen.core.executor",
    "Lt": "sharpen.core.conditions",
    "Ne": "sharpen.core.conditions",
    "Objective": "sharpen.core.problem",
    "Ordinal": "sharpen.core.parameters",
    "P": "sharpen.core.conditions",
    "Permutation": "sharpen.core.collections",
    "Problem": "sharpen.core.problem",
    "Ray": "sharpen.core.ray_executor",
    "Run": "sharpen.core.run_folder",
    "Scripted": "sharpen.core.lm.scripted",
    "SharpenError": "sharpen.core.errors",
    "Space": "sharpen.core.space",
    "Study": "sharpen.core.study",
    "Subset": "sharpen.core.collections",
    "Text": "sharpen.core.text_parameter",
    "Threads": "sharpen.core.threads",
    "Trial": "sharpen.core.feedback",
    "load_recipe": "sharpen.core.recipe",
    "load_run": "sharpen.core.run_folder",
    "problem": "sharpen.core.problem",
    "run": "sharpen.core.run",
    "tune": "sharpen.core.tune",
}
_ROOMS = (
    "code",
    "compress",
    "core",
    "data",
    "eval",
    "models",
    "plan",
    "search",
    "serve",
    "testing",
    "text",
    "train",
)

__all__ = [
    "LM",
    "Between",
    "Bool",
    "Budget",
    "Categorical",
    "Constraint",
    "Eq",
    "Feedback",
    "Fidelity",
    "Fixed",
    "Float",
    "Gt",
    "In",
    "Int",
    "Local",
    "Lt",
    "Ne",
    "Objective",
    "Ordinal",
    "P",
    "Permutation",
    "Problem",
    "Ray",
    "Run",
    "Scripted",
    "SharpenError",
    "Space",
    "Study",
    "Subset",
    "Text",
    "Threads",
    "Trial",
    "__version__",
    "load_recipe",
    "load_run",
    "problem",
    "run",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Load a public name, or a room, on first use."""
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"sharpen.{name}")
    raise AttributeError(f"module 'sharpen' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names and rooms."""
    return sorted([*__all__, *_ROOMS])
