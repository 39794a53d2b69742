"""Muon: momentum, orthogonalized (Jordan et al., 2024, kellerjordan.github.io/posts/muon).

::

    B <- mu B + (1 - mu) G
    N  = (1 - mu) G + mu B  with Nesterov's momentum, else B
    W <- (1 - lr wd) W - lr a O,   O = U V^T of N = U S V^T by five rounds of Newton and Schulz
    a  = sqrt(max(1, m / n))  (original),  or  0.2 sqrt(max(m, n))  (match_rms_adamw: steps as large
         as AdamW's, Liu et al., Muon is Scalable for LLM Training, 2025, arXiv 2502.16982)

Differs from the paper: momentum is an average, as in torch; a stack of matrices takes the step of
each; vectors, embeddings and the head take AdamW's in the same object. Memory: 4 bytes a weight of
a matrix.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.adamw import AdamWRule
from sharpen.optim.engine.base import Common, Params
from sharpen.optim.engine.matrix import MatrixOptimizer, MatrixRule, matrix_shape
from sharpen.optim.engine.orthogonal import Coefficients, check_orthogonal, orthogonalize
from sharpen.optim.engine.rule import Group, Rule
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["Muon", "MuonRule"]


class MuonRule(MatrixRule):
    """The rule of Muon."""

    name = "muon"

    def matrix_slots(
        self, shape: tuple[int, ...], matrix: tuple[int, ...], group: Group
    ) -> dict[str, SlotSpec]:
        """Momentum."""
        return {"momentum": SlotSpec(shape, "signed")}

    def matrix_update(
        self, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`MatrixRule.matrix_update`."""
        return _step(_blend(g, state, group), group)

    def update_many(
        self,
        ps: list[Tensor],
        gs: list[Tensor],
        states: list[dict[str, Tensor]],
        group: Group,
        t: int,
    ) -> list[Tensor] | None:
        """Matrices of one shape in one chain of batched products."""
        if any(p.ndim < 2 for p in ps):
            return None
        shapes = [matrix_shape(tuple(p.shape), group) for p in ps]
        blends = [
            _blend(g.reshape(shape), state, group)
            for g, state, shape in zip(gs, states, shapes, strict=True)
        ]
        alike = defaultdict(list)
        for i, shape in enumerate(shapes):
            alike[shape].append(i)
        steps: dict[int, Tensor] = {}
        for places in alike.values():
            found = _step(torch.stack([blends[i] for i in places]), group)
            steps.update(zip(places, found, strict=True))
        return [steps[i].reshape(p.shape) for i, p in enumerate(ps)]


def _blend(g: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
    """Updated momentum, looking ahead."""
    mu = group["momentum"]
    buffer = state["momentum"].view(g.shape)
    buffer.lerp_(g, 1 - mu)
    return g.lerp(buffer, mu) if group["nesterov"] else buffer


def _step(x: Tensor, group: Group) -> Tensor:
    m, n = x.shape[-2:]
    kind = group["adjust"]
    size = math.sqrt(max(1.0, m / n)) if kind == "original" else 0.2 * math.sqrt(max(m, n))
    o = orthogonalize(
        x, steps=group["ns_steps"], coefficients=group["coefficients"], dtype=group["ns_dtype"]
    )
    return o.to(x.dtype).mul_(float(group["lr"]) * size)


class Muon(MatrixOptimizer):
    """Muon for matrices, AdamW for the rest.

    Args:
        params: see :class:`Optimizer`; of :func:`sharpen.optim.param_groups`, embeddings and the
            head are AdamW's.
        lr: learning rate: about 0.02 with ``original``, that of AdamW with ``match_rms_adamw``.
        momentum: share of the old average.
        nesterov: look ahead.
        adjust: how large a step is, see the module.
        adamw_lr: learning rate of the groups that AdamW serves and that have none of their own;
            None: ``lr``.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: decoupled.
        ns_steps: rounds of the iteration.
        ns_dtype: type of its products; ``auto`` takes the faster one of this device.
        coefficients: of the iteration, see ``orthogonal.py``.
        common: options of every optimizer.

    Raises:
        ConfigError: an option is out of its range.

    Examples:
        >>> w = torch.nn.Parameter(torch.eye(2))
        >>> optimizer = Muon([w], lr=0.1, weight_decay=0, ns_dtype="fp32")
        >>> (w * torch.tensor([[1.0, 0.0], [0.0, 1e-2]])).sum().backward()
        >>> optimizer.step()
        >>> [round(x, 2) for x in w.diagonal().tolist()]  # both ways count, steep or flat
        [0.93, 0.93]
    """

    rules: ClassVar[dict[str, Rule]] = {"muon": MuonRule(), "adamw": AdamWRule()}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        adjust: Literal["original", "match_rms_adamw"] = "original",
        adamw_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        ns_steps: int = 5,
        ns_dtype: Literal["auto", "fp32", "bf16"] = "auto",
        coefficients: Coefficients = "quintic",
        **common: Unpack[Common],
    ) -> None:
        check_orthogonal(ns_steps, ns_dtype, coefficients)
        if adjust not in ("original", "match_rms_adamw"):
            raise ConfigError(f"adjust={adjust!r} must be 'original' or 'match_rms_adamw'.")
        if not 0 <= momentum < 1:
            raise ConfigError(f"momentum={momentum} must be 0 or more and below 1.")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "adjust": adjust,
            "adamw_lr": adamw_lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "ns_steps": ns_steps,
            "ns_dtype": ns_dtype,
            "coefficients": coefficients,
        }
        super().__init__(params, defaults, common)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.add_param_group`."""
        rate = param_group.get("adamw_lr", self.defaults["adamw_lr"])
        if param_group.get("rule") == "adamw" and rate is not None and "lr" not in param_group:
            param_group = {**param_group, "lr": rate}
        super().add_param_group(param_group)
