"""Gradient optimizers and learning-rate schedules; names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.optim.adamw import make_adamw, split_decay
    from sharpen.optim.schedules import Schedule

__all__ = ["Schedule", "make_adamw", "split_decay"]

__getattr__ = exports(
    __name__,
    {
        "Schedule": "sharpen.optim.schedules",
        "make_adamw": "sharpen.optim.adamw",
        "split_decay": "sharpen.optim.adamw",
    },
)
