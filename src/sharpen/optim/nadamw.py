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

from typing import ClassVar

from torch import Tensor

from sharpen.optim.adamw import AdamW
from sharpen.optim.engine.moments import FusedMoments, corrected_root, corrections, mix_moments
from sharpen.optim.engine.rule import Group, Rule

__all__ = ["NAdamW", "NAdamWRule"]


class NAdamWRule(FusedMoments):
    """The rule of NAdamW."""

    name = "nadamw"
    kernel = "nadamw_step"

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        beta1 = group["betas"][0]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        mix_moments(m, v, g, group)
        ahead = m.mul(beta1).add_(g, alpha=1 - beta1)
        rate, _ = corrections(group, t)
        return ahead.mul_(rate).div_(corrected_root(v, group, t))


class NAdamW(AdamW):
    """NAdamW.

    Args:
        params: see :class:`~sharpen.optim.engine.base.Optimizer`.
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
