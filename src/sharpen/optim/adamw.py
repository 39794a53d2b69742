"""AdamW with decay only where it belongs (Loshchilov & Hutter, 2017, arXiv 1711.05101).

::

    m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2
    w <- w - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay w)

The update is torch's fused kernel. Differs from the paper: norms, biases and embeddings are not
decayed. Memory: 8 bytes a trained parameter beside the parameter and its gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sharpen.core.errors import ConfigError

__all__ = ["make_adamw", "split_decay"]


def split_decay(
    named_parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups: matrices decayed; vectors, embeddings and a tied head not.

    Args:
        named_parameters: as ``model.named_parameters()``; frozen ones are left out.
        weight_decay: for the first group.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            matrix = parameter.ndim >= 2 and "embed" not in name
            (decayed if matrix else kept).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_adamw(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
) -> torch.optim.AdamW:
    """Torch's fused AdamW over the trainable parameters.

    Args:
        named_parameters: as ``model.named_parameters()``.
        lr: peak learning rate, above 0.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled decay, 0 or more.

    Raises:
        ConfigError: nothing is trainable.
    """
    groups = split_decay(named_parameters, weight_decay)
    if not groups:
        raise ConfigError("no parameter is trainable: every one is frozen.")
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
