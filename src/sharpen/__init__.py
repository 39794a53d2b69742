"""Sharpen: a model from data to deployment at the limit of the hardware you have.

Names load on first use, so ``import sharpen`` is quick and pulls no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sharpen._version import __version__

if TYPE_CHECKING:
    from sharpen.core.errors import SharpenError
    from sharpen.core.recipe import load_recipe
    from sharpen.core.run import Run, load_run, run

_EXPORTS = {
    "Run": "sharpen.core.run",
    "SharpenError": "sharpen.core.errors",
    "load_recipe": "sharpen.core.recipe",
    "load_run": "sharpen.core.run",
    "run": "sharpen.core.run",
}
_ROOMS = (
    "compress",
    "core",
    "data",
    "eval",
    "models",
    "plan",
    "search",
    "serve",
    "testing",
    "train",
)

__all__ = [
    "Run",
    "SharpenError",
    "__version__",
    "load_recipe",
    "load_run",
    "run",
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
