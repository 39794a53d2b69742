"""AdamW with decoupled decay (Loshchilov & Hutter, ICLR 2019, arXiv 1711.05101).

::

    m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2
    w <- (1 - lr wd) w - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)

Differs from the paper: the decay is scaled by the learning rate, as in torch. Memory: 8 bytes a
parameter, 2.03 with 8-bit and 1.06 with 4-bit states.
"""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.moments import FusedMoments, corrections, mix_moments
from sharpen.optim.engine.rule import Group, Rule

__all__ = ["AdamW", "AdamW4bit", "AdamW8bit", "AdamWRule"]


class AdamWRule(FusedMoments):
    """The rule of AdamW; also that of what other methods do not serve."""

    name = "adamw"
    kernel = "adamw_step"

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        m, v = state["exp_avg"], state["exp_avg_sq"]
        mix_moments(m, v, g, group)
        rate, root = corrections(group, t)
        return (m * rate).div_(v.sqrt().div_(root).add_(float(group["eps"])))

    def update_many(
        self,
        ps: list[Tensor],
        gs: list[Tensor],
        states: list[dict[str, Tensor]],
        group: Group,
        t: int,
    ) -> list[Tensor]:
        """See :meth:`Rule.update_many`."""
        beta1, beta2 = group["betas"]
        ms, vs = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        torch._foreach_mul_(ms, beta1)
        torch._foreach_add_(ms, gs, alpha=1 - beta1)
        torch._foreach_mul_(vs, beta2)
        torch._foreach_addcmul_(vs, gs, gs, value=1 - beta2)
        rate, root = corrections(group, t)
        lower: Any = torch._foreach_sqrt(vs)
        torch._foreach_div_(lower, root)
        torch._foreach_add_(lower, float(group["eps"]))
        steps: Any = torch._foreach_mul(ms, rate)
        torch._foreach_div_(steps, lower)
        found: list[Tensor] = list(steps)
        return found


class AdamW(Optimizer):
    """AdamW.

    Args:
        params: see :class:`Optimizer`.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to the corrected root of the second moment.
        weight_decay: decoupled.
        common: options of every optimizer.

    Examples:
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = AdamW([w], lr=0.1, weight_decay=0)
        >>> w.sum().backward()
        >>> optimizer.step()
        >>> [round(x, 6) for x in w.tolist()]
        [0.9, 0.9, 0.9]
    """

    rules: ClassVar[dict[str, Rule]] = {"adamw": AdamWRule()}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        **common: Unpack[Common],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, common)


class AdamW8bit(AdamW):
    """AdamW with 8-bit states (Dettmers et al., 2022): 2.03 bytes a parameter; see ``quant.py``."""

    preset: ClassVar[dict[str, Any]] = {"state_dtype": "q8"}


class AdamW4bit(AdamW):
    """AdamW with 4-bit states (Li et al., 2023), blocks of 128: 1.06 bytes; see ``quant.py``."""

    preset: ClassVar[dict[str, Any]] = {"state_dtype": "q4", "block_size": 128}
