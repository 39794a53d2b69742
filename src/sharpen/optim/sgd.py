"""Stochastic gradient descent, with momentum, and by sign.

Polyak, Some Methods of Speeding up the Convergence of Iteration Methods, 1964; Nesterov's form:
Sutskever et al., On the Importance of Initialization and Momentum in Deep Learning, ICML 2013; by
sign: Bernstein et al., signSGD: Compressed Optimisation for Non-Convex Problems, ICML 2018 (arXiv
1802.04434).

::

    g <- g + wd w
    m <- mu m + (1 - dampening) g       the first m is g
    w <- w - lr m                       Nesterov: w - lr (g + mu m)

    by sign: w <- (1 - lr wd) w - lr sign(g)

Differs from the papers: as in torch, the learning rate is no part of the momentum, and decay is
added to gradients unless ``decoupled_wd``. Memory: 4 bytes a parameter with momentum, 1.02 with an
8-bit state; else none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.engine import fused
from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.rule import Entry, Group, Rule
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["SGD", "SGD8bit", "SGDRule", "SignSGD", "SignSGDRule"]

_STATES = ("momentum_buffer", None)
_NONE = (None, None)


class SGDRule(Rule):
    """The rule of SGD."""

    name = "sgd"

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """The momentum, if there is one."""
        return {"momentum_buffer": SlotSpec(shape, "signed")} if group["momentum"] else {}

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        momentum, lr = float(group["momentum"]), float(group["lr"])
        if not momentum:
            return g * lr
        m = state["momentum_buffer"]
        m.mul_(momentum).add_(g, alpha=_share(group, t))
        return g.add(m, alpha=momentum).mul_(lr) if group["nesterov"] else m * lr

    def update_many(
        self,
        ps: list[Tensor],
        gs: list[Tensor],
        states: list[dict[str, Tensor]],
        group: Group,
        t: int,
    ) -> list[Tensor]:
        """See :meth:`Rule.update_many`."""
        momentum, steps = float(group["momentum"]), gs
        if momentum:
            steps = [state["momentum_buffer"] for state in states]
            torch._foreach_mul_(steps, momentum)
            torch._foreach_add_(steps, gs, alpha=_share(group, t))
        if momentum and group["nesterov"]:
            steps = list(torch._foreach_add(gs, steps, alpha=momentum))
        found: list[Tensor] = list(torch._foreach_mul(steps, float(group["lr"])))
        return found

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`."""
        return fused.serves(entry, _STATES if entry.group["momentum"] else _NONE, coupled=True)

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        plain = [entry for entry in entries if not entry.group["momentum"]]
        heavy = [entry for entry in entries if entry.group["momentum"]]
        bad = fused.step("sgd_step", plain, _NONE, _plain_numbers, scale) if plain else 0
        if heavy:
            bad += fused.step("momentum_step", heavy, _STATES, _numbers, scale)
        return bad


def _share(group: Group, t: int) -> float:
    """Of the gradient in the momentum."""
    return 1.0 if t == 1 else 1 - float(group["dampening"])


def _plain_numbers(entry: Entry) -> list[float]:
    """What the native kernel without momentum takes."""
    group = entry.group
    lr, decay = float(group["lr"]), float(group["weight_decay"])
    return [1 - lr * decay, 0.0, lr] if group["decoupled_wd"] else [1.0, decay, lr]


def _numbers(entry: Entry) -> list[float]:
    """What the native kernel with momentum takes."""
    group = entry.group
    momentum = [float(group["momentum"]), _share(group, entry.t), float(group["nesterov"])]
    return _plain_numbers(entry) + momentum


class SGD(Optimizer):
    """SGD with momentum; without options the plain form.

    Args:
        params: see :class:`Optimizer`.
        lr: learning rate.
        momentum: decay rate of the momentum; 0 for none.
        dampening: of the gradient in the momentum, after the first step.
        nesterov: look one step ahead.
        weight_decay: added to the gradient, times the weight; with ``decoupled_wd=True`` as
            AdamW's.
        common: options of every optimizer.

    Raises:
        ConfigError: ``nesterov`` without momentum, or with dampening.

    Examples:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = SGD([w], lr=0.25, momentum=0.5)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     w.sum().backward()
        ...     optimizer.step()
        >>> w.tolist()
        [0.375, 0.375]
    """

    rules: ClassVar[dict[str, Rule]] = {"sgd": SGDRule()}
    preset: ClassVar[dict[str, Any]] = {"decoupled_wd": False}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, common)

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise ConfigError(
                f"nesterov=True needs momentum above 0 and dampening=0, not "
                f"momentum={group['momentum']} and dampening={group['dampening']}."
            )


class SGD8bit(SGD):
    """SGD with an 8-bit momentum (Dettmers et al., 2022): 1.02 bytes a parameter; ``quant.py``."""

    preset: ClassVar[dict[str, Any]] = {"decoupled_wd": False, "state_dtype": "q8"}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        momentum: float = 0.9,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(
            params,
            lr,
            momentum=momentum,
            dampening=dampening,
            nesterov=nesterov,
            weight_decay=weight_decay,
            **common,
        )


class SignSGDRule(Rule):
    """The rule of signSGD."""

    name = "sign_sgd"

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """Nothing."""
        return {}

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        return g.sign().mul_(float(group["lr"]))

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`."""
        return fused.serves(entry, _NONE)

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        return fused.step("sign_sgd_step", entries, _NONE, _sign_numbers, scale)


def _sign_numbers(entry: Entry) -> list[float]:
    """What the native kernel takes."""
    lr = float(entry.group["lr"])
    return [1 - lr * float(entry.group["weight_decay"]), lr]


class SignSGD(Optimizer):
    """SignSGD: every weight moves by the learning rate against its gradient; no memory at all.

    Args:
        params: see :class:`Optimizer`.
        lr: learning rate; as Lion's.
        weight_decay: decoupled.
        common: options of every optimizer.

    Examples:
        >>> w = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = SignSGD([w], lr=0.5)
        >>> (w * torch.tensor([2.0, -0.1])).sum().backward()
        >>> optimizer.step()
        >>> w.tolist(), optimizer.state_bytes()
        ([-0.5, 0.5], 0)
    """

    rules: ClassVar[dict[str, Rule]] = {"sign_sgd": SignSGDRule()}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        *,
        weight_decay: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay}, common)
