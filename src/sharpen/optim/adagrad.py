"""Adagrad: steps over the root of the sum of squared gradients.

Duchi, Hazan & Singer, Adaptive Subgradient Methods for Online Learning and Stochastic Optimization,
JMLR 12, 2011.

::

    g <- g + wd w
    s <- s + g^2
    w <- w - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)

Differs from the paper: the diagonal form only, and as in torch the learning rate may fall and decay
is added to gradients unless ``decoupled_wd``. Memory: 4 bytes a parameter, 1.02 with an 8-bit
state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.engine import fused
from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.rule import Entry, Group, Rule
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["Adagrad", "Adagrad8bit", "AdagradRule"]

_STATES = (None, "sum")


class AdagradRule(Rule):
    """The rule of Adagrad."""

    name = "adagrad"

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """The sum of squared gradients."""
        return {"sum": SlotSpec(shape, "unsigned", init=float(group["initial_accumulator_value"]))}

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        total = state["sum"].addcmul_(g, g)
        return (g * _rate(group, t)).div_(total.sqrt().add_(float(group["eps"])))

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`."""
        return fused.serves(entry, _STATES, coupled=True)

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        return fused.step("adagrad_step", entries, _STATES, _numbers, scale)


def _rate(group: Group, t: int) -> float:
    """The learning rate of a step."""
    return float(group["lr"]) / (1 + (t - 1) * float(group["lr_decay"]))


def _numbers(entry: Entry) -> list[float]:
    """What the native kernel takes."""
    group = entry.group
    decay = float(group["weight_decay"])
    shrink, coupled = 1 - float(group["lr"]) * decay, 0.0
    if not group["decoupled_wd"]:
        shrink, coupled = 1.0, decay
    return [shrink, coupled, _rate(group, entry.t), float(group["eps"])]


class Adagrad(Optimizer):
    """Adagrad: rare features keep large steps.

    Args:
        params: see :class:`Optimizer`.
        lr: learning rate.
        lr_decay: by which the rate falls, a step.
        eps: added to the root of the sum.
        weight_decay: added to the gradient, times the weight; with ``decoupled_wd=True`` as
            AdamW's.
        initial_accumulator_value: of the sum of squares, 0 or more.
        common: options of every optimizer.

    Raises:
        ConfigError: ``lr_decay`` or ``initial_accumulator_value`` is below 0.

    Examples:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = Adagrad([w], lr=0.5)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     w.sum().backward()
        ...     optimizer.step()
        >>> round(w.item(), 4)  # 1 - 0.5 - 0.5 / sqrt(2)
        0.1464
    """

    rules: ClassVar[dict[str, Rule]] = {"adagrad": AdagradRule()}
    preset: ClassVar[dict[str, Any]] = {"decoupled_wd": False}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        *,
        lr_decay: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
        }
        super().__init__(params, defaults, common)

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        for name in ("lr_decay", "initial_accumulator_value"):
            if not group[name] >= 0:
                raise ConfigError(f"{name}={group[name]} must be 0 or more.")


class Adagrad8bit(Adagrad):
    """Adagrad with an 8-bit sum (Dettmers et al., 2022): 1.02 bytes a parameter; ``quant.py``."""

    preset: ClassVar[dict[str, Any]] = {"decoupled_wd": False, "state_dtype": "q8"}
