"""NAdamW: AdamW with Nesterov's look ahead.

Dozat, Incorporating Nesterov Momentum into Adam, ICLR workshop 2016; in the form of the baselines
of Dahl et al., Benchmarking Neural Network Training Algorithms, 2023 (arXiv 2306.07179).

::

    m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2
    w <- (1 - lr wd) w - lr / (1 - b1^t) (b1 m + (1 - b1) g) / (sqrt(v / (1 - b2^t)) + eps)

Differs from the paper: the first correction is 1 - b1^t with a constant b1, as in the baselines;
``torch.optim.NAdam`` changes b1 by step, and is another rule. Memory: 8 bytes a parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Unpack

from torch import Tensor

from sharpen.optim import fused
from sharpen.optim.adamw import STATES, native_numbers
from sharpen.optim.base import Common, Optimizer, Params
from sharpen.optim.rule import Entry, Group, Rule
from sharpen.optim.slots import SlotSpec

__all__ = ["NAdamW", "NAdamWRule"]


class NAdamWRule(Rule):
    """The rule of NAdamW."""

    name = "nadamw"

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """Two moments."""
        return {
            "exp_avg": SlotSpec(shape, "signed"),
            "exp_avg_sq": SlotSpec(shape, "unsigned"),
        }

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        beta1, beta2 = group["betas"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        ahead = m.mul(beta1).add_(g, alpha=1 - beta1)
        lower = v.sqrt().div_(math.sqrt(1 - beta2**t)).add_(float(group["eps"]))
        return ahead.mul_(float(group["lr"]) / (1 - beta1**t)).div_(lower)

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`."""
        return fused.serves(entry, STATES)

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        return fused.step("nadamw_step", entries, STATES, native_numbers, scale)


class NAdamW(Optimizer):
    """NAdamW.

    Args:
        params: see :class:`Optimizer`.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to the corrected root of the second moment.
        weight_decay: decoupled.
        common: options of every optimizer.

    Examples:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = NAdamW([w], lr=0.1, weight_decay=0)
        >>> w.sum().backward()
        >>> optimizer.step()
        >>> [round(x, 3) for x in w.tolist()]  # 1.9 learning rates: the step, and the one ahead
        [0.81, 0.81]
    """

    rules: ClassVar[dict[str, Rule]] = {"nadamw": NAdamWRule()}

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
