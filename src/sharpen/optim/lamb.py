"""LAMB: Adam's direction, with a length that is a part of the layer's own norm.

You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 Minutes, ICLR 2020
(arXiv 1904.00962).

::

    m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2
    u  = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + wd w
    w <- w - lr phi(||w||) / ||u|| u,       phi(x) = min(x, 10)

The ratio is 1 where a norm is 0, and for vectors (biases and gains of norms).

Differs from the paper: none; the bound of phi is that of its published code. Memory: 8 bytes a
parameter, 2.03 with 8-bit states.
"""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.moments import FusedMoments, corrected_root, mix_moments, native_numbers
from sharpen.optim.engine.rule import Entry, Group, Rule

__all__ = ["Lamb", "Lamb8bit", "LambRule"]


class LambRule(FusedMoments):
    """The rule of LAMB."""

    name = "lamb"
    kernel = "lamb_step"
    mixes = True
    own_decay = True

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        m, v = state["exp_avg"], state["exp_avg_sq"]
        mix_moments(m, v, g, group)
        u = m.div(1 - group["betas"][0] ** t).div_(corrected_root(v, group, t))
        u.add_(p, alpha=float(group["weight_decay"]))
        return u.mul_(float(group["lr"]) * _ratio(p, u, float(group["max_norm_weight"])))

    def numbers(self, entry: Entry) -> list[float]:
        """See :meth:`FusedMoments.numbers`."""
        group, is_matrix = entry.group, entry.parameter.ndim > 1
        numbers = native_numbers(entry)
        numbers[0], numbers[5] = float(group["weight_decay"]), float(group["lr"])
        correction = 1 / (1 - group["betas"][0] ** entry.t)
        return [*numbers, correction, float(group["max_norm_weight"]), float(is_matrix)]


def _ratio(p: Tensor, u: Tensor, largest: float) -> float:
    """Of norms: weights, bounded, to step."""
    if p.ndim <= 1:
        return 1.0
    weight, step = (float(torch.linalg.vector_norm(x)) for x in (p, u))
    return min(weight, largest) / step if weight > 0 and step > 0 else 1.0


class Lamb(Optimizer):
    """LAMB: each matrix moves by a part of its own norm, for batches of many thousands.

    Args:
        params: see :class:`Optimizer`.
        lr: learning rate: the part of its norm by which a matrix changes.
        betas: decay rates of the two moments.
        eps: added to the corrected root of the second moment.
        weight_decay: added to the step before its norm is taken.
        max_norm_weight: weights' norms count as this at most.
        common: options of every optimizer.

    Raises:
        ConfigError: ``max_norm_weight`` is not above 0.

    Examples:
        >>> w = torch.nn.Parameter(torch.ones(2, 2))  # of norm 2
        >>> optimizer = Lamb([w], lr=0.1, weight_decay=0)
        >>> w.sum().backward()
        >>> optimizer.step()
        >>> round(float(torch.linalg.vector_norm(w.detach() - 1)), 4)
        0.2
    """

    rules: ClassVar[dict[str, Rule]] = {"lamb": LambRule()}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_norm_weight: float = 10.0,
        **common: Unpack[Common],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "max_norm_weight": max_norm_weight,
        }
        super().__init__(params, defaults, common)

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        if not group["max_norm_weight"] > 0:
            raise ConfigError(f"max_norm_weight={group['max_norm_weight']} must be above 0.")


class Lamb8bit(Lamb):
    """LAMB with 8-bit states (Dettmers et al., 2022): 2.03 bytes a parameter; see ``quant.py``."""

    preset: ClassVar[dict[str, Any]] = {"state_dtype": "q8"}
