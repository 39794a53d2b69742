"""AdEMAMix: Adam with a second, slow average of gradients.

Pagliardini, Ablin & Grangier, The AdEMAMix Optimizer: Better, Faster, Older, 2024 (arXiv
2409.03137).

::

    m1 <- b1 m1 + (1 - b1) g        m2 <- b3(t) m2 + (1 - b3(t)) g       v <- b2 v + (1 - b2) g^2
    w  <- (1 - lr wd) w - lr (m1 / (1 - b1^t) + a(t) m2) / (sqrt(v / (1 - b2^t)) + eps)

    a(t)  = min(t / T_alpha, 1) alpha
    b3(t) = min(exp(ln b1 ln b3 / ((1 - t / T_beta3) ln b3 + t / T_beta3 ln b1)), b3)

Differs from the paper: none; both warm-ups are off unless their lengths are given. Memory: 12 bytes
a parameter, 3.05 with 8-bit states.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.engine import fused
from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.moments import corrected_root, mix_moments, native_numbers
from sharpen.optim.engine.rule import Entry, Group, Rule
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["AdEMAMix", "AdEMAMix8bit", "AdEMAMixRule", "mixing"]

_STATES = ("exp_avg", "exp_avg_sq", "exp_avg_slow")


def mixing(group: Group, t: int) -> tuple[float, float]:
    """The slow average's weight and decay rate at step t (equations 4 and 5 of the paper).

    Examples:
        >>> group = {"betas": (0.9, 0.999, 0.9999), "alpha": 5.0, "t_alpha": 100, "t_beta3": 100}
        >>> alpha, beta3 = mixing(group, 50)
        >>> alpha, round(beta3, 4)
        (2.5, 0.9998)
    """
    beta1, _, beta3 = group["betas"]
    alpha = float(group["alpha"])
    if group["t_alpha"]:
        alpha = min(t / group["t_alpha"], 1.0) * alpha
    if group["t_beta3"]:
        part, slow, fast = t / group["t_beta3"], math.log(beta3), math.log(beta1)
        if part < 1:
            beta3 = min(math.exp(fast * slow / ((1 - part) * slow + part * fast)), beta3)
    return alpha, beta3


class AdEMAMixRule(Rule):
    """The rule of AdEMAMix."""

    name = "ademamix"

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """The fast and the slow average, and the second moment."""
        return {
            "exp_avg": SlotSpec(shape, "signed"),
            "exp_avg_slow": SlotSpec(shape, "signed"),
            "exp_avg_sq": SlotSpec(shape, "unsigned"),
        }

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        beta1 = group["betas"][0]
        alpha, beta3 = mixing(group, t)
        m1, m2, v = state["exp_avg"], state["exp_avg_slow"], state["exp_avg_sq"]
        mix_moments(m1, v, g, group)
        m2.mul_(beta3).add_(g, alpha=1 - beta3)
        upper = m1.div(1 - beta1**t).add_(m2, alpha=alpha)
        return upper.div_(corrected_root(v, group, t)).mul_(float(group["lr"]))

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`."""
        return fused.serves(entry, _STATES)

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        return fused.step("ademamix_step", entries, _STATES, _numbers, scale)


def _numbers(entry: Entry) -> list[float]:
    """What the native kernel takes."""
    group, beta1 = entry.group, entry.group["betas"][0]
    alpha, beta3 = mixing(group, entry.t)
    # AdamW's rate is over the fast average's correction, which the slow one does not have.
    correction = 1 - beta1**entry.t
    return [*native_numbers(entry), beta3, 1 - beta3, alpha * correction]


class AdEMAMix(Optimizer):
    """AdEMAMix: old gradients stay useful for tens of thousands of steps.

    Args:
        params: see :class:`Optimizer`.
        lr: learning rate.
        betas: decay rates of the fast average, the second moment and the slow average.
        alpha: weight of the slow average; 4 to 10 in the paper.
        t_alpha: steps in which ``alpha`` grows from 0; None for none. The paper takes the whole
            training.
        t_beta3: steps in which the slow rate grows from the fast one; None for none.
        eps: added to the corrected root of the second moment.
        weight_decay: decoupled.
        common: options of every optimizer.

    Raises:
        ConfigError: not three ``betas``, ``alpha`` below 0, or a warm-up from ``betas`` of 0.

    Examples:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = AdEMAMix([w], lr=0.1, weight_decay=0)
        >>> w.sum().backward()
        >>> optimizer.step()
        >>> [round(x, 5) for x in w.tolist()]
        [0.89995, 0.89995]
    """

    rules: ClassVar[dict[str, Rule]] = {"ademamix": AdEMAMixRule()}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0,
        t_alpha: int | None = None,
        t_beta3: int | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        **common: Unpack[Common],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "alpha": alpha,
            "t_alpha": t_alpha,
            "t_beta3": t_beta3,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, common)

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        betas = group["betas"]
        if len(betas) != 3:
            raise ConfigError(f"betas={betas} must be three numbers: fast, squares, slow.")
        if not group["alpha"] >= 0:
            raise ConfigError(f"alpha={group['alpha']} must be 0 or more.")
        if group["t_beta3"] and not (betas[0] > 0 and betas[2] > 0):
            raise ConfigError(f"t_beta3={group['t_beta3']} needs betas above 0, not {betas}.")


class AdEMAMix8bit(AdEMAMix):
    """AdEMAMix with 8-bit states (Dettmers et al., 2022): 3.05 bytes a parameter; ``quant.py``."""

    preset: ClassVar[dict[str, Any]] = {"state_dtype": "q8"}
