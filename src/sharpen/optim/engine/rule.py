"""The contract of an update rule: what it remembers, and the step it takes.

An optimizer is a set of rules over parameter groups; the engine (``base.py``) does everything that
is the same for all of them: precision, weight decay, clipping, entries that are not finite, states
in few bits, saving and sharding. A rule sees tensors of at least float32 and returns the step that
is to be subtracted::

    d = update(w, g, state)          w <- (1 - lr weight_decay) w - d

So a new method is a class with two functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sharpen.optim.engine.quant import BlockQuantTensor
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["Entry", "Group", "Rule", "Stored", "is_packed", "is_plain"]

Group = Mapping[str, Any]
"""A parameter group: learning rate and options."""

Stored = Tensor | BlockQuantTensor
"""A slot as it is kept."""


@dataclass(slots=True)
class Entry:
    """A parameter at one step, its rows on this rank."""

    parameter: Tensor
    """The weights."""

    grad: Tensor
    """Of the same shape; never written to."""

    state: dict[str, Stored]
    """By slot."""

    group: Group
    """Its options."""

    t: int
    """Steps of this parameter, this one included."""

    index: int
    """Of the parameter in the whole model, from 1; seeds what is random."""

    clock: Tensor
    """Where ``t`` is kept: a rule that takes no step after all sets it back by one."""


class Rule:
    """Base of the rules.

    A rule whose step at one element depends on others (``mixes``) needs whole parameters: where
    they are sharded, one rank has a parameter whole and takes its step.
    """

    name: ClassVar[str]
    """By which a group chooses the rule."""

    mixes: ClassVar[bool] = False
    """Whether elements depend on each other."""

    own_decay: ClassVar[bool] = False
    """The rule itself applies ``weight_decay``."""

    def serves(self, shape: tuple[int, ...], group: Group) -> bool:
        """Whether :func:`sharpen.optim.param_groups` gives this rule a matrix of this shape."""
        return True

    def fills(self, shape: tuple[int, ...]) -> int:
        """So many first steps of a parameter only fill its state; weights stay, without decay."""
        return 0

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """The state of a parameter of this shape, with its options."""
        raise NotImplementedError

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """The step to subtract, of the shape of ``p``; changes ``state`` in place.

        Args:
            p: weights before decay; not changed.
            g: gradient; not changed.
            state: the slots, in the type of ``p`` unless they hold whole numbers.
            group: options; ``lr`` may be a tensor.
            t: steps of this parameter, this one included.
            index: of the parameter, from 1.
        """
        raise NotImplementedError

    def update_many(
        self,
        ps: list[Tensor],
        gs: list[Tensor],
        states: list[dict[str, Tensor]],
        group: Group,
        t: int,
    ) -> list[Tensor] | None:
        """The same for many parameters by ``torch._foreach``; None where there is no such form."""
        return None

    def can_fuse(self, entry: Entry) -> bool:
        """Whether :meth:`step_fused` takes this entry."""
        return False

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """Take the whole step of all entries, decay included, with native code.

        Args:
            entries: all accepted by :meth:`can_fuse`.
            scale: factor of the gradients.

        Returns:
            How many gradient entries were not finite.
        """
        raise NotImplementedError


def is_packed(p: Tensor) -> bool:
    """Whether weights are kept as codes, and written by ``requantize_``."""
    return hasattr(p, "requantize_")


def is_plain(entry: Entry, *, coupled: bool = False) -> bool:
    """Float32 on the CPU, contiguous, and none of the options that need temporaries.

    Args:
        entry: of which parameter.
        coupled: ``decoupled_wd=False`` is no obstacle.
    """
    group, p, g = entry.group, entry.parameter, entry.grad
    return (
        p.device.type == "cpu"
        and not is_packed(p)
        and p.dtype == g.dtype == torch.float32
        and p.is_contiguous()
        and g.is_contiguous()
        and (coupled or group["decoupled_wd"])
        and group["wd_order"] == "before"
        and not group["cautious"]
        and group["update_rms_clip"] is None
    )
