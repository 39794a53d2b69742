"""GaLore: Adam in the leading singular directions of each gradient.

Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection, ICML 2024
(arXiv 2403.03507), Algorithm 2. With N, P and a_t of ``lowrank.py``, P of the r largest singular
vectors of the gradient at a refresh::

    w <- (1 - lr wd) w - a_t scale back(N)

What the gradient has outside of the subspace is dropped. Differs from the paper: decay before the
step (``wd_order="after"`` is the published code's); ``proj="randsvd"`` finds nearly the same
subspace without the stall of an SVD. Memory of a matrix with sides L and s: 2 L r + s r values.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Unpack

from torch import Tensor

from sharpen.optim.adamw import AdamWRule
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

__all__ = ["GaLore", "GaLore8bit", "GaLoreRule"]


class GaLoreRule(LowRankRule):
    """Adam's step in the subspace, brought back."""

    name = "galore"

    def direction(
        self, g: Tensor, space: Subspace, state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """See :meth:`LowRankRule.direction`."""
        return space.projector.up(space.normed, space.basis).mul_(group["scale"])


class GaLore(LowRankOptimizer):
    """GaLore.

    Args:
        params: see :class:`~sharpen.optim.engine.base.Optimizer`.
        lr: learning rate.
        rank: r; or ``auto``, a quarter of the short side.
        update_proj_gap: steps with one basis.
        scale: of the step; the paper's alpha.
        proj: kind of basis, see ``projector.py``; ``svd`` in the paper.
        proj_side: which side is compressed; ``std``, the short one.
        on_refresh: what becomes of the moments with a new basis; the published way is ``keep``.
        betas: decay rates of the moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled.
        common: options of every optimizer.

    Raises:
        ConfigError: an option is out of its range.
    """

    rules: ClassVar[dict[str, Rule]] = {
        "galore": GaLoreRule(128),
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
        scale: float = 0.25,
        proj: str = "svd",
        proj_side: Side = "std",
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
            "scale": scale,
            "proj": proj,
            "proj_side": proj_side,
            "on_refresh": on_refresh,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, common)


class GaLore8bit(GaLore):
    """GaLore with 8-bit states in the subspace; see ``quant.py``."""

    preset: ClassVar[dict[str, Any]] = {"state_dtype": "q8"}
