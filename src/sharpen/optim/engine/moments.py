"""The two moments of Adam (Kingma & Ba, ICLR 2015), which many rules keep.

::

    m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from sharpen.optim.engine import fused
from sharpen.optim.engine.rule import Entry, Group, Rule
from sharpen.optim.engine.slots import SlotSpec

__all__ = [
    "FusedMoments",
    "TwoMoments",
    "adam_rate",
    "corrected_root",
    "corrections",
    "mix_moments",
    "native_numbers",
]

_STATES = ("exp_avg", "exp_avg_sq")


class TwoMoments(Rule):
    """Base of rules that keep m and v in the parameter's shape."""

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """See :meth:`Rule.slots`."""
        return {"exp_avg": SlotSpec(shape, "signed"), "exp_avg_sq": SlotSpec(shape, "unsigned")}


class FusedMoments(TwoMoments):
    """Those with native code that takes both corrections ready made."""

    kernel: ClassVar[str]

    def numbers(self, entry: Entry) -> list[float]:
        """What the kernel takes."""
        return native_numbers(entry)

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`."""
        return fused.serves(entry, _STATES, coupled=self.own_decay)

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        return fused.step(self.kernel, entries, _STATES, self.numbers, scale, whole=self.mixes)


def mix_moments(m: Tensor, v: Tensor, g: Tensor, group: Group) -> None:
    """Take a gradient into both moments, in place."""
    beta1, beta2 = group["betas"][:2]
    m.mul_(beta1).add_(g, alpha=1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)


def corrected_root(v: Tensor, group: Group, t: int) -> Tensor:
    """sqrt(v / (1 - b2^t)) + eps."""
    return v.sqrt().div_(math.sqrt(1 - group["betas"][1] ** t)).add_(float(group["eps"]))


def corrections(group: Group, t: int) -> tuple[float, float]:
    """Learning rate over the first moment's correction; root of the second's."""
    beta1, beta2 = group["betas"][:2]
    return float(group["lr"]) / (1 - beta1**t), math.sqrt(1 - beta2**t)


def adam_rate(group: Group, t: int) -> float:
    """Learning rate with both corrections, for rules whose eps is added to the plain root of v."""
    beta1, beta2 = group["betas"]
    rate: float = float(group["lr"]) * math.sqrt(1 - beta2**t) / (1 - beta1**t)
    return rate


def native_numbers(entry: Entry) -> list[float]:
    """What the native kernels of AdamW and its kin take."""
    group = entry.group
    beta1, beta2 = group["betas"][:2]
    rate, root = corrections(group, entry.t)
    decay = 1 - float(group["lr"]) * float(group["weight_decay"])
    return [decay, beta1, 1 - beta1, beta2, 1 - beta2, rate, 1 / root, float(group["eps"])]
