"""Evaluate programs that a model wrote: whether they are right, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.code.evaluate.config import EvalConfig
    from sharpen.code.evaluate.run import evaluate
    from sharpen.code.evaluate.samples import read_samples

_MODULES = {"config": ["EvalConfig"], "run": ["evaluate"], "samples": ["read_samples"]}

__all__ = ["EvalConfig", "evaluate", "read_samples"]

__getattr__ = exports(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
