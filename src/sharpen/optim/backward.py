"""Updates inside the backward pass: gradients of one layer at a time instead of all.

Lv et al., Full Parameter Fine-Tuning with Limited Resources (LOMO), 2023 (arXiv 2306.09782). Each
parameter takes its step as soon as its gradient is whole, and the gradient is freed.

Differs from other implementations: micro-batches are counted, so that a step is taken at the last
of each ``accumulate``. A global gradient norm is known only after the backward pass, so clipping is
by parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.engine.rule import is_packed
from sharpen.optim.engine.sharded import is_sharded

__all__ = ["fuse_into_backward"]


def fuse_into_backward(
    optimizer: Optimizer, *, accumulate: int = 1, clip: float | None = None
) -> Callable[[], None]:
    """Let the backward pass take the optimizer's steps.

    The learning rate is read at each step; set it, or call a scheduler, between optimizer steps.

    Args:
        optimizer: its own ``step`` is not to be called any more.
        accumulate: backward passes a step.
        clip: largest norm of each parameter's gradient.

    Returns:
        A function that ends it.

    Raises:
        ConfigError: the optimizer has sharded parameters, or a method that needs all gradients.

    Examples:
        >>> from sharpen.optim import AdamW
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> stop = fuse_into_backward(AdamW([w], lr=0.5, weight_decay=0))
        >>> w.sum().backward()
        >>> w.tolist(), w.grad
        ([0.5000000596046448, 0.5000000596046448], None)
    """
    if accumulate < 1 or (clip is not None and not clip > 0):
        raise ConfigError(f"accumulate={accumulate} must be at least 1 and clip={clip} above 0.")
    if type(optimizer).begin_step is not Optimizer.begin_step:
        raise ConfigError(
            f"{type(optimizer).__name__} chooses among all parameters at each step; it cannot take "
            "steps inside the backward pass."
        )
    counts: dict[Tensor, int] = {}
    handles = []

    def arrived(p: Tensor, group: dict[str, Any]) -> None:
        counts[p] = counts.get(p, 0) + 1
        if counts[p] < accumulate:
            return
        counts[p] = 0
        assert p.grad is not None
        scale = 1.0
        if clip is not None:
            norm = float(torch.linalg.vector_norm(p.grad))
            scale = clip / (norm + 1e-6) if norm > clip else 1.0
        with torch.no_grad():
            weights = p.detach() if is_packed(p) else p.data
            optimizer.step_parameter(p, group, weights, p.grad, scale)
        p.grad = None

    for group in optimizer.param_groups:
        for p in group["params"]:
            if is_sharded(p):
                raise ConfigError(
                    f"{optimizer.name_of(p)} is sharded: its gradient is whole only after all "
                    "ranks have added theirs. Step the optimizer after the backward pass."
                )
            if p.requires_grad:
                hook = lambda p, group=group: arrived(p, group)  # noqa: E731
                handles.append(p.register_post_accumulate_grad_hook(hook))

    def stop() -> None:
        for handle in handles:
            handle.remove()

    return stop
