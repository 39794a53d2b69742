"""Fira: full-rank steps with the memory of a subspace.

Chen et al., Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank Constraint?, 2024
(arXiv 2410.01623), Algorithm 1. With R, N, P and a_t of ``lowrank.py``, j along the side that is
not compressed, and the limiter of ``apollo.py``::

    c_j = ||N_j|| / (||R_j|| + 1e-8)
    D = limit(c (G - back(R)))               what is outside of the subspace, scaled as inside
    w <- (1 - lr wd) w - a_t (alpha back(N) + D)

Differs from the paper: decay before the step (``wd_order="after"`` is the published code's). The
published code's way back has the factor alpha, so that it subtracts alpha back(R) in D:
``compat=True``. Memory of a matrix with sides L and s: 2 L r + s r values.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack

from torch import Tensor

from sharpen.optim.adamw import AdamWRule
from sharpen.optim.apollo import limit_growth, scaling
from sharpen.optim.engine.base import Common, Params
from sharpen.optim.engine.lowrank import (
    FoldedAdamWRule,
    LowRankOptimizer,
    LowRankRule,
    OnRefresh,
    Subspace,
)
from sharpen.optim.engine.projector import Side
from sharpen.optim.engine.rule import Group, Rule

__all__ = ["Fira", "FiraRule"]


class FiraRule(LowRankRule):
    """Adam's step in the subspace, and the rest of the gradient scaled alike."""

    name = "fira"

    def direction(
        self, g: Tensor, space: Subspace, state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """See :meth:`LowRankRule.direction`."""
        projector, alpha = space.projector, float(group["alpha"])
        subtracted = -alpha if group["compat"] else -1.0
        outside = projector.add_up(g, space.low, space.basis, subtracted)
        outside.mul_(scaling(space, "channel"))
        if group["norm_growth"] is not None:
            limit_growth(outside, state["limiter"], group["norm_growth"])
        return projector.add_up(outside, space.normed, space.basis, alpha)


class Fira(LowRankOptimizer):
    """Fira.

    Args:
        params: see :class:`~sharpen.optim.engine.base.Optimizer`.
        lr: learning rate.
        rank: r; or ``auto``, a quarter of the short side.
        update_proj_gap: steps with one basis.
        alpha: factor of the step inside the subspace.
        proj: kind of basis, see ``projector.py``; ``svd`` in the paper.
        proj_side: which side is compressed; ``std``, the short one.
        norm_growth: most that the norm of the step outside grows by; None: no limit.
        compat: subtract alpha back(R), as the published code does.
        on_refresh: what becomes of the moments with a new basis; the published way is ``keep``.
        betas: decay rates of the moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled.
        common: options of every optimizer.

    Raises:
        ConfigError: an option is out of its range.
    """

    rules: ClassVar[dict[str, Rule]] = {
        "fira": FiraRule(128),
        "adamw": AdamWRule(),
        "adamw_folded": FoldedAdamWRule(),
    }

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        *,
        rank: int | Literal["auto"] = 128,
        update_proj_gap: int = 200,
        alpha: float = 0.25,
        proj: str = "svd",
        proj_side: Side = "std",
        norm_growth: float | None = 1.01,
        compat: bool = False,
        on_refresh: OnRefresh = "keep",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        defaults = {
            "lr": lr,
            "rank": rank,
            "update_proj_gap": update_proj_gap,
            "alpha": alpha,
            "proj": proj,
            "proj_side": proj_side,
            "norm_growth": norm_growth,
            "compat": compat,
            "on_refresh": on_refresh,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, common)
