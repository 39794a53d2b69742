"""Adafactor: second moments of matrices kept as a row and a column.

Shazeer & Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, ICML 2018 (arXiv
1804.04235).

::

    b(t) = 1 - t^-0.8
    R <- b R + (1 - b) row means of g^2,    C <- b C + (1 - b) column means of g^2
    V  = R C / mean(R);                     vectors: V <- b V + (1 - b) g^2
    u  = g / sqrt(V)
    w <- (1 - lr wd) w - a u / max(1, RMS(u) / d)
    a  = rho(t) max(eps2, RMS(w)),          rho(t) = min(lr, 1 / sqrt(t))

Differs from the paper: decay, and V is bounded from below by eps1 squared instead of eps1 in every
g^2, as in torch; no first moment. Memory: 4 (m + n) bytes for a matrix m x n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.engine import lowrank_native
from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.lowrank_native import MatrixStep
from sharpen.optim.engine.rule import Entry, Group, Rule, is_plain
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["Adafactor", "AdafactorRule"]


class AdafactorRule(Rule):
    """The rule of Adafactor."""

    name = "adafactor"
    mixes = True

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """Means of squares over rows and columns of the last two dimensions; vectors: squares."""
        if len(shape) < 2:
            return {"variance": SlotSpec(shape)}
        columns = shape[-1] if shape[-2] else 0  # none where no row is
        return {
            "row_var": SlotSpec(shape[:-1]),
            "col_var": SlotSpec((*shape[:-2], columns), rows=len(shape) > 2),
        }

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        share = t ** float(group["beta2_decay"])
        eps1 = _eps1(group, p.dtype)
        if p.ndim > 1:
            rows, columns = state["row_var"], state["col_var"]
            rows.lerp_(_mean_square(g, -1), share)
            columns.lerp_(_mean_square(g, -2), share)
            mean = rows.mean(-1, keepdim=True).clamp_(min=eps1)
            u = _over_root((rows / mean).unsqueeze(-1), columns.unsqueeze(-2), g, eps1 * eps1)
        else:
            variance = state["variance"].lerp_(g.square(), share)
            u = variance.clamp(min=eps1 * eps1).rsqrt_().mul_(g)
        limit = max(1.0, _size(u) / float(group["clip"]))
        rate = _rate(group, t)
        if group["scale_parameter"]:
            rate *= max(float(group["eps2"]), _size(p))
        return u.mul_(rate / limit)

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`."""
        states = entry.state.values()
        whole = all(isinstance(slot, Tensor) and slot.is_contiguous() for slot in states)
        return whole and is_plain(entry) and lowrank_native.available("adafactor")

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        batch = [(entry, _native(entry, scale)) for entry in entries]
        return lowrank_native.take("adafactor_step", batch, "adafactor")


def _native(entry: Entry, scale: float) -> MatrixStep:
    """What the native code needs."""
    group, p = entry.group, entry.parameter
    state = {name: slot for name, slot in entry.state.items() if isinstance(slot, Tensor)}
    rows, columns = (1, *p.shape)[-2:] if p.ndim else (1, 1)
    lr = float(group["lr"])
    return MatrixStep(
        tensors=(
            *(p, entry.grad),
            *(state.get("row_var"), state["col_var" if p.ndim > 1 else "variance"]),
        ),
        sizes=(
            *(p.numel() // (rows * columns), rows, columns),
            *(group["scale_parameter"], group["skip_nonfinite"]),
        ),
        numbers=(
            -scale if group["maximize"] else scale,
            1 - lr * float(group["weight_decay"]),
            entry.t ** float(group["beta2_decay"]),
            *(_eps1(group, p.dtype), float(group["eps2"])),
            *(_rate(group, entry.t), float(group["clip"])),
        ),
    )


def _eps1(group: Group, dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if group["eps1"] is None else float(group["eps1"])


def _mean_square(g: Tensor, dim: int) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(g, dim=dim)
    return norm.square_().div_(g.shape[dim])


def _over_root(rows: Tensor, columns: Tensor, g: Tensor, least: float) -> Tensor:
    """Gradients over the root of the product of rows and columns, which is ``least`` or more."""
    if float(rows.min()) * float(columns.min()) >= least:
        return (g * rows.rsqrt()).mul_(columns.rsqrt())  # without a third matrix
    return (rows * columns).clamp_(min=least).rsqrt_().mul_(g)


def _size(x: Tensor) -> float:
    """Root mean square."""
    return float(torch.linalg.vector_norm(x)) / math.sqrt(x.numel())


def _rate(group: Group, t: int) -> float:
    """Rho of the paper."""
    rate = float(group["lr"])
    if group["relative_step"]:
        rate = min(rate * t if group["warmup_init"] else rate, 1 / math.sqrt(t))
    return rate


class Adafactor(Optimizer):
    """Adafactor: next to no memory.

    Args:
        params: see :class:`Optimizer`.
        lr: largest relative step.
        beta2_decay: exponent of the decay rate, below 0.
        eps1: smallest root of the variance; None: the distance of 1 from the next number.
        eps2: smallest size of weights.
        clip: largest root mean square of a step, before it is scaled; d in the paper.
        weight_decay: decoupled.
        scale_parameter: multiply by the size of the weights.
        relative_step: let the rate fall as 1 / sqrt(t) when that is below ``lr``.
        warmup_init: with ``relative_step``, let the rate grow as ``lr`` t at first; take lr=1e-6.
        common: options of every optimizer.

    Raises:
        ConfigError: ``beta2_decay`` is not below 0, or ``clip`` not above.

    Examples:
        >>> w = torch.nn.Parameter(torch.ones(1000, 1000))
        >>> Adafactor([w]).state_bytes()
        8000
    """

    rules: ClassVar[dict[str, Rule]] = {"adafactor": AdafactorRule()}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        *,
        beta2_decay: float = -0.8,
        eps1: float | None = None,
        eps2: float = 1e-3,
        clip: float = 1.0,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
        **common: Unpack[Common],
    ) -> None:
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps1": eps1,
            "eps2": eps2,
            "clip": clip,
            "weight_decay": weight_decay,
            "scale_parameter": scale_parameter,
            "relative_step": relative_step,
            "warmup_init": warmup_init,
        }
        super().__init__(params, defaults, common)

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        if not group["beta2_decay"] < 0:
            raise ConfigError(f"beta2_decay={group['beta2_decay']} must be below 0, such as -0.8.")
        for name in ("eps1", "eps2"):
            if group[name] is not None and not group[name] >= 0:
                raise ConfigError(f"{name}={group[name]} must be 0 or more.")
        if not group["clip"] > 0:
            raise ConfigError(f"clip={group['clip']} must be above 0.")
