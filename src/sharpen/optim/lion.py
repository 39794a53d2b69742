"""Lion: the sign of an interpolated momentum.

Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023 (arXiv 2302.06675).

::

    c <- b1 m + (1 - b1) g
    w <- (1 - lr wd) w - lr sign(c)
    m <- b2 m + (1 - b2) g

Differs from the paper: none; the rounding is that of the package lion-pytorch. Memory: 4 bytes a
parameter, 1.02 with 8-bit states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from sharpen.optim.engine import fused
from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.rule import Entry, Group, Rule
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["Lion", "Lion8bit", "LionRule"]

_STATES = ("exp_avg", None)


class LionRule(Rule):
    """The rule of Lion."""

    name = "lion"

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """The momentum."""
        return {"exp_avg": SlotSpec(shape, "signed")}

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        beta1, beta2 = group["betas"]
        m = state["exp_avg"]
        step = m.mul(beta1).add_(g, alpha=1 - beta1).sign_().mul_(float(group["lr"]))
        m.mul_(beta2).add_(g, alpha=1 - beta2)
        return step

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
        ms = [state["exp_avg"] for state in states]
        steps: Any = torch._foreach_mul(ms, beta1)
        torch._foreach_add_(steps, gs, alpha=1 - beta1)
        torch._foreach_sign_(steps)
        torch._foreach_mul_(steps, float(group["lr"]))
        torch._foreach_mul_(ms, beta2)
        torch._foreach_add_(ms, gs, alpha=1 - beta2)
        found: list[Tensor] = list(steps)
        return found

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`."""
        return fused.serves(entry, _STATES)

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        return fused.step("lion_step", entries, _STATES, _numbers, scale)


def _numbers(entry: Entry) -> list[float]:
    """What the native kernel takes."""
    beta1, beta2 = entry.group["betas"]
    lr = float(entry.group["lr"])
    decay = 1 - lr * float(entry.group["weight_decay"])
    return [decay, beta1, 1 - beta1, beta2, 1 - beta2, lr]


class Lion(Optimizer):
    """Lion: every weight moves by the learning rate, in the direction of the momentum.

    Take a learning rate 3 to 10 times below AdamW's and a decay 3 to 10 times above, and large
    batches; ``betas=(0.95, 0.98)`` is steadier for language models (section 4.2 of the paper).

    Args:
        params: see :class:`Optimizer`.
        lr: learning rate.
        betas: weight of the momentum in the direction; its decay rate.
        weight_decay: decoupled.
        common: options of every optimizer.

    Examples:
        >>> w = torch.nn.Parameter(torch.zeros(3))
        >>> optimizer = Lion([w], lr=0.5)
        >>> (w * torch.tensor([2.0, -0.1, 0.0])).sum().backward()
        >>> optimizer.step()
        >>> w.tolist()
        [-0.5, 0.5, 0.0]
    """

    rules: ClassVar[dict[str, Rule]] = {"lion": LionRule()}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, defaults, common)


class Lion8bit(Lion):
    """Lion with an 8-bit state (Dettmers et al., 2022): 1.02 bytes a parameter; ``quant.py``."""

    preset: ClassVar[dict[str, Any]] = {"state_dtype": "q8"}
