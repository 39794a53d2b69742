"""Gradient descent that finds its own step size by backtracking.

Armijo, Minimization of Functions Having Lipschitz Continuous First Partial Derivatives, 1966; on
batches: Vaswani, Mishkin, Laradji, Schmidt, Gidel & Lacoste-Julien, Painless Stochastic Gradient:
Interpolation, Line-Search, and Convergence Rates, NeurIPS 2019 (arXiv 1905.09997)::

    a <- expand^(1 / batches_per_epoch) a_last
    while f(w - a g) > f(w) - c a ||g||^2:   a <- beta a
    w <- w - a g

Differs from the papers: when no step is accepted the weights stay as they were, instead of taking
the last, unchecked one. Memory: a copy of weights and gradients during a step. Time: a forward pass
for each step size that is tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.rule import Group, Rule
from sharpen.optim.engine.sharded import is_sharded
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["SLS", "ArmijoGD", "DescentRule"]


class DescentRule(Rule):
    """No states; the step is the optimizer's own."""

    name = "descent"

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """None."""
        return {}


class ArmijoGD(Optimizer):
    """Gradient descent with backtracking, for a function that stays the same between resets.

    The closure returns the loss and calls no ``backward``; gradients are taken here. It must give
    the same loss for the same weights: the same batch, and no dropout.

    Args:
        params: see :class:`Optimizer`; one step size for all of them.
        lr: step size before the first step, and after :meth:`reset`.
        c: share of the decrease that a linear function would have, to be accepted.
        beta: factor of a step size that is not accepted.
        expand: factor from an accepted step size to the next trial, over ``batches_per_epoch``
            steps.
        batches_per_epoch: see ``expand``.
        max_step: largest step size that is tried.
        trials: step sizes that are tried.
        min_step: smallest of them.
        min_grad: gradients with a smaller norm take no step.
        common: options of every optimizer; those of states have no effect.

    Raises:
        ConfigError: an option is out of its range, or a parameter is sharded.

    Examples:
        >>> w = torch.nn.Parameter(torch.tensor([4.0, 1.0]))
        >>> optimizer = ArmijoGD([w])
        >>> for _ in range(60):
        ...     loss = optimizer.step(lambda: (w * w * torch.tensor([1.0, 20.0])).sum())
        >>> bool(loss < 1e-3), optimizer.evals < 600
        (True, True)
    """

    rules: ClassVar[dict[str, Rule]] = {"descent": DescentRule()}

    def __init__(
        self,
        params: Params,
        lr: float = 10.0,
        *,
        c: float = 0.5,
        beta: float = 0.9,
        expand: float = 1.8,
        batches_per_epoch: int = 1,
        max_step: float = math.inf,
        trials: int = 100,
        min_step: float = 1e-6,
        min_grad: float = 1e-6,
        **common: Unpack[Common],
    ) -> None:
        self.evals = 0
        self.stalled = False
        defaults = {
            "lr": lr,
            "c": c,
            "beta": beta,
            "expand": expand,
            "batches_per_epoch": batches_per_epoch,
            "max_step": max_step,
            "trials": trials,
            "min_step": min_step,
            "min_grad": min_grad,
            "step_size": None,
        }
        super().__init__(params, defaults, common)

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        for name, low, high in (("c", 0.0, 1.0), ("beta", 0.0, 1.0)):
            if not low < group[name] < high:
                raise ConfigError(f"{name}={group[name]} must be above {low:g} and below {high:g}.")
        for name in ("batches_per_epoch", "trials", "expand"):
            if not group[name] >= 1:
                raise ConfigError(f"{name}={group[name]} must be at least 1.")
        for name in ("min_step", "min_grad"):
            if not group[name] >= 0:
                raise ConfigError(f"{name}={group[name]} must be 0 or more.")
        if not group["max_step"] > 0:
            raise ConfigError(f"max_step={group['max_step']} must be above 0.")
        for p in group["params"]:
            if is_sharded(p):
                raise ConfigError(
                    f"{self.name_of(p)} is sharded, which {type(self).__name__} does not support."
                )

    def reset(self) -> None:
        """Begin again with the first step size; for another function."""
        self.param_groups[0]["step_size"] = None
        self.stalled = False

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> float:  # type: ignore[override]
        """Take one step.

        Args:
            closure: returns the loss at the weights as they are.

        Returns:
            The loss before it. :attr:`stalled` tells whether the weights stayed,
            :attr:`evals` counts the closure's calls.
        """
        options = self.param_groups[0]
        sign = -1.0 if options["maximize"] else 1.0
        params = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        with torch.enable_grad():
            loss = sign * closure()
        self.evals += 1
        found = torch.autograd.grad(loss, params, allow_unused=True)
        grads: tuple[Tensor | None, ...] = found
        moved = [(p, g) for p, g in zip(params, grads, strict=True) if g is not None]
        before = float(loss)
        square = sum(float(g.square().sum(dtype=torch.float64)) for _, g in moved)
        self.stalled = True
        if not math.isfinite(before) or not math.isfinite(square):
            self._nonfinite += 1
            return sign * before
        if math.sqrt(square) <= options["min_grad"]:
            return sign * before
        last = options["lr"] if options["step_size"] is None else options["step_size"]
        size = last * options["expand"] ** (1 / options["batches_per_epoch"])
        size = min(float(size), options["max_step"])
        start = [p.clone() for p, _ in moved]
        for _ in range(options["trials"]):
            for (p, g), old in zip(moved, start, strict=True):
                p.copy_(old.add(g, alpha=-size))
            after = sign * float(closure())
            self.evals += 1
            if after <= before - options["c"] * size * square:
                self.stalled = False
                options["step_size"] = size
                return sign * before
            size *= options["beta"]
            if size < options["min_step"]:
                break
        for (p, _), old in zip(moved, start, strict=True):
            p.copy_(old)
        return sign * before


class SLS(ArmijoGD):
    """Stochastic line search: the step size grows slowly from batch to batch, at most to 10.

    Arguments as of :class:`ArmijoGD`, with the defaults of Vaswani et al.; ``batches_per_epoch`` is
    the number of batches in the data. The closure's batch must be the same throughout a step.

    Examples:
        >>> w = torch.nn.Parameter(torch.tensor([4.0, 1.0]))
        >>> optimizer = SLS([w], batches_per_epoch=20)
        >>> for _ in range(100):
        ...     loss = optimizer.step(lambda: (w * w * torch.tensor([1.0, 5.0])).sum())
        >>> bool(loss < 1e-3)
        True
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        *,
        c: float = 0.1,
        beta: float = 0.9,
        expand: float = 2.0,
        batches_per_epoch: int = 500,
        max_step: float = 10.0,
        trials: int = 100,
        min_step: float = 1e-6,
        min_grad: float = 1e-6,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(
            params,
            lr,
            c=c,
            beta=beta,
            expand=expand,
            batches_per_epoch=batches_per_epoch,
            max_step=max_step,
            trials=trials,
            min_step=min_step,
            min_grad=min_grad,
            **common,
        )
