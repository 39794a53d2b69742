"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners.

Vyas, Morwani, Zhao, Kwun, Shapira, Brandfonbrener, Janson & Kakade, SOAP: Improving and Stabilizing
Shampoo using Adam, ICLR 2025 (arXiv 2409.11321). With k = t - 1, since the first step only fills
L, R and their bases::

    G' = QL^T G QR
    M <- b1 M + (1 - b1) G'         V <- b2 V + (1 - b2) G'^2
    W <- W - lr sqrt(1 - b2^k) / (1 - b1^k) QL (M / (sqrt(V) + eps)) QR^T
    L <- b2 L + (1 - b2) G G^T      R <- b2 R + (1 - b2) G^T G
    every f steps:  QL <- Q of qr(L QL), columns sorted by diag(QL^T L QL) first, QR alike;
                    M is carried over into the new bases, V keeps its (sorted) places

Differs from the paper: decay comes before the step (``wd_order="after"`` for the authors' order);
M is carried over only when the bases change, which is the same but for rounding, and saves two
products in five. A side longer than ``max_precond_dim``, or ``max_precond_ratio`` times the other,
keeps its plain basis: of an adapter's long side it would cost more than all else. Memory: 8 bytes a
weight and 8 (m^2 + n^2). Time: 6 (m + n) operations a weight.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.adamw import AdamWRule
from sharpen.optim.engine.base import Common, Params
from sharpen.optim.engine.matrix import MatrixOptimizer, MatrixRule
from sharpen.optim.engine.moments import adam_rate, mix_moments
from sharpen.optim.engine.rule import Group, Rule
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["Soap", "SoapRule"]


class SoapRule(MatrixRule):
    """The rule of SOAP."""

    name = "soap"

    def fills(self, shape: tuple[int, ...]) -> int:
        """See :meth:`Rule.fills`: a matrix has no basis before its first gradient."""
        return 1 if len(shape) >= 2 else 0

    def matrix_slots(
        self, shape: tuple[int, ...], matrix: tuple[int, ...], group: Group
    ) -> dict[str, SlotSpec]:
        """Moments in the bases, the preconditioners and their bases."""
        slots = {"exp_avg": SlotSpec(shape, "signed"), "exp_avg_sq": SlotSpec(shape, "unsigned")}
        m, n = matrix[-2:]
        for side, length, other in (("left", m, n), ("right", n, m)):
            thin = length > group["max_precond_ratio"] * other
            if length <= group["max_precond_dim"] and not thin:
                square = SlotSpec((*matrix[:-2], length, length), rows=False)
                slots |= {side: square, f"{side}_basis": square}
        return slots

    def matrix_update(
        self, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`MatrixRule.matrix_update`."""
        m, v = state["exp_avg"].view(g.shape), state["exp_avg_sq"].view(g.shape)
        k = t - 1
        step = g
        if k:
            turned = _into(g, state)
            mix_moments(m, v, turned, group)
            found = (m / v.sqrt().add_(group["eps"])).mul_(adam_rate(group, k))
            step = _out_of(found, state)
        for side, x in (("left", g), ("right", g.mT)):
            if side in state:
                _mix(state[side], x, group["betas"][1])
        if k == 0:
            for side in ("left", "right"):
                if side in state:
                    values = torch.linalg.eigh(state[side])
                    state[f"{side}_basis"].copy_(values.eigenvectors.flip(-1))
        elif k % group["precondition_frequency"] == 0:
            plain = _out_of(m, state)
            for side, axis in (("left", -2), ("right", -1)):
                if side in state:
                    v.copy_(_refresh(state[side], state[f"{side}_basis"], v, axis))
            m.copy_(_into(plain, state))
        return step


def _mix(square: Tensor, x: Tensor, beta: float) -> None:
    """Square <- beta square + (1 - beta) x x^T, in place."""
    if x.ndim == 2:
        square.addmm_(x, x.mT, beta=beta, alpha=1 - beta)
    else:
        square.mul_(beta).add_(x @ x.mT, alpha=1 - beta)


def _refresh(square: Tensor, basis: Tensor, v: Tensor, axis: int) -> Tensor:
    """A power step of the basis, in place, largest first; returns ``v`` in the columns' order."""
    product = square @ basis
    order = (basis * product).sum(-2).argsort(dim=-1, descending=True, stable=True)
    columns = order.unsqueeze(-2).expand_as(product)
    basis.copy_(torch.linalg.qr(product.gather(-1, columns)).Q)
    places = order.unsqueeze(-1 if axis == -2 else -2).expand_as(v)
    return v.gather(axis, places)


def _into(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    left, right = state.get("left_basis"), state.get("right_basis")
    x = x if left is None else left.mT @ x
    return x if right is None else x @ right


def _out_of(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    left, right = state.get("left_basis"), state.get("right_basis")
    x = x if left is None else left @ x
    return x if right is None else x @ right.mT


class Soap(MatrixOptimizer):
    """SOAP for matrices, AdamW for the rest.

    Args:
        params: see :class:`Optimizer`.
        lr: learning rate.
        betas: decay rates of the moments; the second also of the preconditioners.
        eps: added to the root of the second moment.
        weight_decay: decoupled.
        precondition_frequency: steps from one basis to the next.
        max_precond_dim: longer sides keep their plain basis.
        max_precond_ratio: so do sides longer than so many times the other.
        common: options of every optimizer.

    Raises:
        ConfigError: an option is out of its range.

    Examples:
        >>> w = torch.nn.Parameter(torch.ones(2, 2))
        >>> optimizer = Soap([w], lr=0.1, weight_decay=0)
        >>> for _ in range(2):  # the first step looks only
        ...     (w @ torch.tensor([[3.0], [4.0]])).sum().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        >>> w.sum(1).tolist()[0] < 2
        True
    """

    rules: ClassVar[dict[str, Rule]] = {"soap": SoapRule(), "adamw": AdamWRule()}

    def __init__(
        self,
        params: Params,
        lr: float = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        max_precond_dim: int = 10000,
        max_precond_ratio: float = 16.0,
        **common: Unpack[Common],
    ) -> None:
        if precondition_frequency < 1:
            raise ConfigError(f"precondition_frequency={precondition_frequency} must be 1 or more.")
        if max_precond_dim < 0:
            raise ConfigError(f"max_precond_dim={max_precond_dim} must be 0 or more.")
        if not max_precond_ratio >= 1:
            raise ConfigError(f"max_precond_ratio={max_precond_ratio} must be 1 or more.")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "max_precond_dim": max_precond_dim,
            "max_precond_ratio": max_precond_ratio,
        }
        super().__init__(params, defaults, common)
