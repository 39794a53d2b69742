"""COSMOS: SOAP in the leading directions of a matrix, Muon in the rest.

Liu, Xu, Zhang, Kang, Li, Liang, Chen & Zhao, COSMOS: A Hybrid Adaptive Optimizer for
Memory-Efficient Training of LLMs, 2025 (arXiv 2502.17410). U spans r leading directions of the
inputs (n)::

    M <- b1 M + G
    U' = Q of qr(b2 U S + (1 - b2) G^T G U),   T = U^T U'
    S <- b2 T^T S T + (1 - b2) (G U')^T (G U'),   V <- b2 V + (1 - b2) (G U')^2
    N  = (G + b1 M) / (1 + b1 k1),   k1 = (1 - b1^t) / (1 - b1),   k2 = 1 - b2^t
    A  = (N U' / (sqrt(V / k2) + eps)) U'^T
    B  = orthogonalized N - N U' U'^T,   B <- sqrt(mn) B / ||B||_F
    C  = A + gamma B,   W <- (1 - lr wd) W - lr lr_ratio sqrt(mn) C / ||C||_F

so a step's root mean square is lr lr_ratio. The first U is the leading right singular vectors of G.

Differs from the paper: eps outside the root, as in the authors' code; momentum as a sum, the same
but for a factor; without Nesterov's momentum M, not G, is divided by k1; the first U by a random
range finder instead of the eigenvectors of an n x n matrix; gradients are not written to; embedding
and head are found by role, and take AdamW's step. Memory: 4 (mn + mr + nr + r^2) bytes.
"""

from __future__ import annotations

import logging
import math
from functools import lru_cache
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.adamw import AdamWRule
from sharpen.optim.engine.base import Common, Params
from sharpen.optim.engine.matrix import MatrixOptimizer, MatrixRule
from sharpen.optim.engine.orthogonal import check_orthogonal, frobenius, orthogonalize
from sharpen.optim.engine.philox import normal, philox, splitmix64
from sharpen.optim.engine.rule import Group, Rule
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["Cosmos", "CosmosRule"]

logger = logging.getLogger(__name__)
_OVERSAMPLE = 8


class CosmosRule(MatrixRule):
    """The rule of COSMOS."""

    name = "cosmos"

    def matrix_slots(
        self, shape: tuple[int, ...], matrix: tuple[int, ...], group: Group
    ) -> dict[str, SlotSpec]:
        """Momentum, the basis U, its eigenvalue matrix S, and second moments V within it."""
        lead, (m, n) = matrix[:-2], matrix[-2:]
        if _flips(m, n, group):
            m, n = n, m
        rank = min(group["rank"], m, n)
        if rank < group["rank"]:
            _tell_clamped(group["rank"], m, n)
        return {
            "momentum": SlotSpec(shape, "signed"),
            "basis": SlotSpec((*lead, n, rank), rows=False),
            "spectrum": SlotSpec((*lead, rank, rank), rows=False),
            "exp_avg_sq": SlotSpec((*lead, m, rank), "unsigned", rows=False),
        }

    def matrix_update(
        self, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`MatrixRule.matrix_update`; arrays as in the module."""
        beta1, beta2 = group["betas"]
        eps = float(group["eps"])
        momentum = state["momentum"].view(g.shape)
        torch.add(g, momentum, alpha=beta1, out=momentum)
        k1, k2 = (1 - beta1**t) / (1 - beta1), 1 - beta2**t
        # N without its factor, which counts only beside V.
        blend = g.add(momentum, alpha=beta1) if group["nesterov"] else momentum.clone()
        factor = 1 / (1 + beta1 * k1 if group["nesterov"] else k1)
        flips = _flips(g.shape[-2], g.shape[-1], group)
        if flips:
            g, blend = g.mT, blend.mT
        basis, v = state["basis"], state["exp_avg_sq"]
        if basis.numel():
            within = _turn(g, basis, state["spectrum"], group, t, index)
            v.mul_(beta2).addcmul_(within, within, value=1 - beta2)
            z = blend @ basis
            c = _orthogonal(_add_product(blend, z, basis.mT, -1.0), group)
            c.mul_(_unit(c, eps) * group["gamma"])
            lower = v.sqrt().div_(math.sqrt(k2)).add_(eps)
            _add_product(c, z.mul_(factor).div_(lower), basis.mT, 1.0)
        else:
            c = _orthogonal(blend, group)
        c.mul_(_unit(c, eps) * (float(group["lr"]) * group["lr_ratio"]))
        return c.mT if flips else c


def _orthogonal(x: Tensor, group: Group) -> Tensor:
    """What lies outside the basis, orthogonalized, in the type of ``x``."""
    return orthogonalize(x, steps=group["ns_steps"], dtype=group["ns_dtype"]).to(x.dtype)


def _flips(m: int, n: int, group: Group) -> bool:
    """Whether the basis is that of the outputs."""
    return group["side"] == "short" and m < n


def _add_product(x: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """Add a product in place."""
    return x.addmm_(a, b, alpha=alpha) if x.ndim == 2 else x.baddbmm_(a, b, alpha=alpha)


def _unit(x: Tensor, eps: float) -> Tensor:
    """The factor that gives each matrix a root mean square of 1; zeros stay zeros."""
    return math.sqrt(x.shape[-2] * x.shape[-1]) / (frobenius(x) + eps)


def _turn(g: Tensor, basis: Tensor, spectrum: Tensor, group: Group, t: int, index: int) -> Tensor:
    """Turn the basis to the gradient and update S, both in place; returns G U."""
    beta2 = group["betas"][1]
    if t == 1:
        basis.copy_(_leading(g, basis.shape[-1], group, index))
    within: Tensor = g @ basis
    if t > 1 and (t - 1) % group["basis_every"] == 0:
        target = (basis @ spectrum).mul_(beta2).add_(g.mT @ within, alpha=1 - beta2)
        turned = torch.linalg.qr(target).Q
        turn = basis.mT @ turned
        spectrum.copy_(turn.mT @ spectrum @ turn)
        basis.copy_(turned)
        within = g @ basis
    spectrum.mul_(beta2).add_(within.mT @ within, alpha=1 - beta2)
    spectrum.copy_((spectrum + spectrum.mT) / 2)
    return within


def _leading(g: Tensor, rank: int, group: Group, index: int) -> Tensor:
    """Leading right singular vectors [..., n, rank] of the gradient."""
    if group["init"] == "svd":
        rows: Tensor = torch.linalg.svd(g, full_matrices=False).Vh
        return rows[..., :rank, :].mT
    # Halko, Martinsson & Tropp, Finding Structure with Randomness, 2011: one power iteration.
    shape = *g.shape[:-1], min(rank + _OVERSAMPLE, *g.shape[-2:])
    count = math.prod(shape)
    counters = torch.arange(-(-count // 4), device=g.device)
    key = splitmix64(group["seed"] + index) & 0xFFFFFFFF
    noise = normal(philox((key, 0), (counters, 0, 0, 0))).view(-1)[:count]
    found = torch.linalg.qr(g.mT @ noise.view(shape).to(g.dtype)).Q
    found = torch.linalg.qr(g.mT @ (g @ found)).Q
    within = g @ found
    turn = torch.linalg.eigh(within.mT @ within).eigenvectors.flip(-1)
    leading: Tensor = found @ turn[..., :rank]
    return leading


@lru_cache(maxsize=64)
def _tell_clamped(rank: int, m: int, n: int) -> None:
    logger.warning("rank=%d is more than a matrix of %d x %d has; min(m, n) is used.", rank, m, n)


class Cosmos(MatrixOptimizer):
    """COSMOS for matrices, AdamW for the rest.

    Args:
        params: see :class:`Optimizer`; of :func:`sharpen.optim.param_groups`, embeddings and the
            head are AdamW's.
        lr: learning rate of what AdamW serves; matrices move by ``lr * lr_ratio`` a step.
        betas: decay rates of momentum and second moments.
        rank: leading directions r; 0 is Muon of fixed step size, a matrix's smaller side at most.
        gamma: weight of the rest against them.
        lr_ratio: see ``lr``.
        nesterov: look ahead.
        side: U of the inputs, or of the shorter side, which saves memory.
        basis_every: steps from one basis to the next.
        init: the first basis by a random range finder, or by a singular value decomposition.
        eps: added to roots and norms.
        weight_decay: decoupled.
        ns_steps: rounds of orthogonalization.
        ns_dtype: type of its products; ``auto`` takes the faster one of this device.
        common: options of every optimizer.

    Raises:
        ConfigError: an option is out of its range.

    Examples:
        >>> w = torch.nn.Parameter(torch.ones(4, 3))
        >>> optimizer = Cosmos([w], lr=0.1, rank=1, weight_decay=0)
        >>> w.square().sum().backward()
        >>> optimizer.step()
        >>> round(float((1 - w.detach()).square().mean().sqrt()), 4)  # lr * lr_ratio
        0.02
    """

    rules: ClassVar[dict[str, Rule]] = {"cosmos": CosmosRule(), "adamw": AdamWRule()}

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        rank: int = 64,
        gamma: float = 0.2,
        lr_ratio: float = 0.2,
        nesterov: bool = True,
        side: Literal["in", "short"] = "in",
        basis_every: int = 1,
        init: Literal["randsvd", "svd"] = "randsvd",
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        ns_steps: int = 5,
        ns_dtype: Literal["auto", "fp32", "bf16"] = "auto",
        **common: Unpack[Common],
    ) -> None:
        check_orthogonal(ns_steps, ns_dtype)
        for name, value, least in (("rank", rank, 0), ("basis_every", basis_every, 1)):
            if value < least:
                raise ConfigError(f"{name}={value} must be {least} or more.")
        for name, number in (("gamma", gamma), ("lr_ratio", lr_ratio)):
            if not 0 <= number < math.inf:
                raise ConfigError(f"{name}={number} must be 0 or more, and finite.")
        for name, choice, known in (
            ("side", side, ("in", "short")),
            ("init", init, ("randsvd", "svd")),
        ):
            if choice not in known:
                raise ConfigError(f"{name}={choice!r} must be one of {', '.join(known)}.")
        defaults = {
            "lr": lr,
            "betas": betas,
            "rank": rank,
            "gamma": gamma,
            "lr_ratio": lr_ratio,
            "nesterov": nesterov,
            "side": side,
            "basis_every": basis_every,
            "init": init,
            "eps": eps,
            "weight_decay": weight_decay,
            "ns_steps": ns_steps,
            "ns_dtype": ns_dtype,
        }
        super().__init__(params, defaults, common)
