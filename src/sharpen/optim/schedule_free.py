"""Schedule-Free AdamW: an average of the weights in place of a decaying learning rate.

Defazio, Yang, Mehta, Mishchenko, Khaled & Cutkosky, The Road Less Scheduled, NeurIPS 2024 (arXiv
2405.15682). Gradients are taken at y, the base method moves z, and x is the average that is used::

    y_t = (1 - b1) z_t + b1 x_t
    d   = g / (sqrt(v / (1 - b2^t)) + eps) + wd y_t,   v the average of g^2 by b2
    z_(t+1) = z_t - lr_t d
    x_(t+1) = (1 - c) x_t + c z_(t+1),   c = w_t / (w_1 + ... + w_t),   w_t = t^r (max lr)^p
    lr_t = lr min(1, t / warmup_steps)

Differs from the paper: weights are those of the authors' code, with the largest learning rate so
far and p = 2. Only z and v are kept: the model holds y while it trains and x when it is used, and
the other one follows from z. Gradients are not written to. Memory: 8 bytes a parameter.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar, Unpack, cast

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.native.build import function, load
from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.rule import Entry, Group, Rule, is_plain
from sharpen.optim.engine.sharded import local
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["ScheduleFreeAdamW", "ScheduleFreeRule"]


class ScheduleFreeRule(Rule):
    """The rule of Schedule-Free AdamW; ``p`` is y."""

    name = "schedule_free_adamw"
    own_decay = True

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """z, v, the sum of averaging weights, and the largest learning rate so far."""
        return {
            "z": SlotSpec(shape, init="weights"),
            "exp_avg_sq": SlotSpec(shape, "unsigned"),
            "weight_sum": SlotSpec((), rows=False),
            "lr_max": SlotSpec((), rows=False),
        }

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        beta1, beta2 = group["betas"]
        z, v = state["z"], state["exp_avg_sq"]
        decay = float(group["weight_decay"])
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        d = g / v.div(1 - beta2**t).sqrt_().add_(float(group["eps"]))
        if decay and group["decoupled_wd"]:
            d.add_(p, alpha=decay)
        lr = _rate(group, t)
        share = _share(state, lr, group, t)
        # y' - y = c (z - y) + lr (b1 (1 - c) - 1) d
        step = (p - z).mul_(share).add_(d, alpha=lr * (1 - beta1 * (1 - share)))
        z.sub_(d, alpha=lr)
        return step

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`."""
        slots = (entry.state["z"], entry.state["exp_avg_sq"])
        return (
            is_plain(entry)
            and all(
                isinstance(slot, Tensor) and slot.dtype == torch.float32 and slot.is_contiguous()
                for slot in slots
            )
            and load("schedule_free") is not None
        )

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        library = load("schedule_free")
        assert library is not None
        bad = ctypes.c_int64()
        for entry in entries:
            group, state, t = entry.group, cast(dict[str, Tensor], entry.state), entry.t
            beta1, beta2 = group["betas"]
            lr = _rate(group, t)
            share = _share(state, lr, group, t)
            numbers = (
                *(-scale if group["maximize"] else scale, beta2, 1 - beta2, 1 / (1 - beta2**t)),
                *(float(group["eps"]), float(group["weight_decay"])),
                *(share, lr * (1 - beta1 * (1 - share)), lr),
            )
            _kernel(library)(
                entry.parameter.data_ptr(),
                entry.grad.data_ptr(),
                state["z"].data_ptr(),
                state["exp_avg_sq"].data_ptr(),
                entry.parameter.numel(),
                (ctypes.c_float * len(numbers))(*numbers),
                group["skip_nonfinite"],
                ctypes.byref(bad),
                torch.get_num_threads(),
            )
        return bad.value


@lru_cache(maxsize=4)
def _kernel(library: ctypes.CDLL) -> Any:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    types = (*[pointer] * 4, number, pointer, ctypes.c_int, pointer, ctypes.c_int)
    return function(library, "schedule_free_step", *types)


def _rate(group: Group, t: int) -> float:
    """The learning rate with warm-up."""
    rate: float = float(group["lr"]) * min(1.0, t / max(group["warmup_steps"], 1))
    return rate


def _share(state: dict[str, Tensor], lr: float, group: Group, t: int) -> float:
    """c: the share of z in the average; counts the weight of this step."""
    largest = max(float(state["lr_max"]), lr)
    weight = t ** group["r"] * largest ** group["weight_lr_power"]
    total = float(state["weight_sum"]) + weight
    state["lr_max"].fill_(largest)
    state["weight_sum"].fill_(total)
    return weight / total if total else 0.0


class ScheduleFreeAdamW(Optimizer):
    """AdamW without a schedule: call :meth:`eval` before the model is used, :meth:`train` after.

    No learning rate schedule is to be added; a longer run needs no other learning rate. Running
    statistics of batch norms belong to y: let some batches go through the model after
    :meth:`eval` to have those of x.

    Args:
        params: see :class:`Optimizer`.
        lr: learning rate, 1 to 10 times that of AdamW with a schedule.
        betas: share of x in y, not 0; decay rate of the second moment.
        eps: added to the corrected root of the second moment.
        weight_decay: decoupled, at y.
        warmup_steps: steps in which the learning rate rises.
        r: later steps weigh t^r more in the average.
        weight_lr_power: and by this power of the learning rate.
        common: options of every optimizer.

    Raises:
        ConfigError: an option is out of its range.

    Examples:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = ScheduleFreeAdamW([w], lr=0.1)
        >>> for _ in range(100):
        ...     w.square().sum().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        >>> with optimizer.eval_params():
        ...     bool((w.abs() < 0.2).all())
        True
    """

    rules: ClassVar[dict[str, Rule]] = {"schedule_free_adamw": ScheduleFreeRule()}

    def __init__(
        self,
        params: Params,
        lr: float = 2.5e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        **common: Unpack[Common],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
            "train_mode": True,
        }
        super().__init__(params, defaults, common)

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        if group["betas"][0] == 0:
            raise ConfigError(
                f"betas={group['betas']} must have a first value above 0: x is found by dividing "
                "by it. 0.9 is usual."
            )
        if group["warmup_steps"] < 0:
            raise ConfigError(f"warmup_steps={group['warmup_steps']} must be 0 or more.")
        for name in ("r", "weight_lr_power"):
            if not 0 <= group[name] < math.inf:
                raise ConfigError(f"{name}={group[name]} must be 0 or more, and finite.")
        if self.param_groups:
            group["train_mode"] = self.param_groups[0]["train_mode"]

    def step(
        self, closure: Callable[[], Any] | None = None, *, max_norm: float | None = None
    ) -> Any:
        """Take one step; see :meth:`Optimizer.step`.

        Raises:
            ConfigError: the model holds x.
        """
        if not self.param_groups[0]["train_mode"]:
            raise ConfigError(
                "the model holds the averaged weights, where no step can be taken. Call the "
                "optimizer's train() before the forward pass."
            )
        return super().step(closure, max_norm=max_norm)

    def eval(self) -> None:
        """Put x, the weights to use, into the model; nothing if they are there."""
        self._swap(train_mode=False)

    def train(self) -> None:
        """Put y, where gradients are taken, into the model; nothing if it is there."""
        self._swap(train_mode=True)

    @torch.no_grad()
    def _swap(self, *, train_mode: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] == train_mode:
                continue
            beta1 = group["betas"][0]
            share = 1 - beta1 if train_mode else 1 - 1 / beta1
            for p in group["params"]:
                if "z" in self.state[p]:
                    z, here = local(self.state[p]["z"]), local(p)
                    master = self.state[p].get("master")
                    full = here.to(z.dtype) if master is None else local(master)
                    mixed = full.lerp(z, share)
                    if master is not None:
                        full.copy_(mixed)
                    here.copy_(mixed)
            group["train_mode"] = train_mode

    @contextmanager
    def eval_params(self) -> Iterator[None]:
        """Have x in the model for a while; afterwards every bit is as before.

        Takes the memory of a copy of the weights.
        """
        was = self.param_groups[0]["train_mode"]
        ps = [p for group in self.param_groups for p in group["params"]]
        held = [x for p in ps for x in (p, self.state[p].get("master")) if x is not None]
        before = [local(x).detach().clone() for x in held] if was else []
        self.eval()
        try:
            yield
        finally:
            if was:
                with torch.no_grad():
                    for x, value in zip(held, before, strict=True):
                        local(x).copy_(value)
                for group in self.param_groups:
                    group["train_mode"] = True
