"""Bytes that training with an optimizer takes, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from sharpen.optim.registry import create

__all__ = ["MemoryReport", "estimate"]


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Bytes a rank."""

    params: int
    """Trained weights."""

    grads: int
    """Their gradients."""

    states: int
    """What the optimizer remembers, without bases that could be made again."""

    projections: int
    """Those bases."""


def estimate(
    model: nn.Module, optimizer: str = "adamw", *, world_size: int = 1, **options: Any
) -> MemoryReport:
    """What a model's training keeps on each of ``world_size`` ranks that share everything.

    Args:
        model: may lie on the ``meta`` device.
        optimizer: a name of :func:`sharpen.optim.available`.
        world_size: ranks; the largest share counts as an equal one.
        options: as for :func:`sharpen.optim.create`.

    Examples:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = nn.Linear(1000, 1000, bias=False)
        >>> estimate(model, "adamw")
        MemoryReport(params=4000000, grads=4000000, states=8000000, projections=0)
    """
    made = create(optimizer, model, **options)
    trained = [p for group in made.param_groups for p in group["params"]]
    held = sum(p.numel() * p.element_size() for p in trained)
    states = made.state_bytes(predicted=True)
    bare = made.state_bytes(predicted=True, include_projection=False)
    share = -(-held // world_size)
    return MemoryReport(
        params=share,
        grads=share,
        states=-(-bare // world_size),
        projections=-(-(states - bare) // world_size),
    )
