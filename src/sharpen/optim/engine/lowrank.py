"""What APOLLO, GaLore and Fira share: Adam's moments of a gradient in a subspace.

With R the projected gradient of ``projector.py``::

    t = 1, 1 + gap, 1 + 2 gap, ...: a new basis P, moments kept, reset or rotated
    M <- b1 M + (1 - b1) R          V <- b2 V + (1 - b2) R^2
    N = M / (sqrt(V) + eps)         a_t = lr sqrt(1 - b2^t) / (1 - b1^t)

A parameter with no side above the rank (vectors, small matrices) is updated by AdamW. Tensors of
more than two dimensions are matrices [first, the rest].
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.native.info import cpu_flags
from sharpen.optim.adamw import AdamWRule
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.engine.moments import adam_rate, mix_moments
from sharpen.optim.engine.projector import (
    ORTHONORMAL,
    SELECTIONS,
    Projector,
    Side,
    param_seed,
    side_is_right,
)
from sharpen.optim.engine.rule import Group, Rule
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["FoldedAdamWRule", "LowRankOptimizer", "LowRankRule", "OnRefresh", "Subspace"]

OnRefresh = Literal["keep", "reset", "rotate"]
"""What becomes of moments when the basis changes."""

_logger = logging.getLogger(__name__)


class FoldedAdamWRule(Rule):
    """AdamW with eps outside the bias correction, as published low-rank code updates the rest.

    For comparisons with that code::

        w <- w - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)
    """

    name = "adamw_folded"

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """Two moments."""
        return AdamWRule().slots(shape, group)

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        m, v = state["exp_avg"], state["exp_avg_sq"]
        return _normed(m, v, g, group) * adam_rate(group, t)


@dataclass(slots=True)
class Subspace:
    """A gradient in its subspace at one step."""

    projector: Projector
    basis: Tensor
    low: Tensor
    """R."""
    normed: Tensor
    """N."""
    rate: float
    """a_t."""


class LowRankRule(Rule):
    """Base of rules with moments in a subspace; a subclass has :meth:`direction`.

    Args:
        rank: where a group does not tell.
    """

    mixes = True
    plain: ClassVar[Rule] = AdamWRule()

    def __init__(self, rank: int | str) -> None:
        self.rank = rank

    def projector(self, shape: tuple[int, ...], group: Group) -> Projector | None:
        """That of a parameter; None where AdamW is used."""
        if len(shape) < 2 or not math.prod(shape):
            return None
        kind, side = group.get("proj", "gaussian"), group.get("proj_side", "std")
        return _projector(shape, group.get("rank", self.rank), kind, side, group.get("rng"))

    def serves(self, shape: tuple[int, ...], group: Group) -> bool:
        """Both sides are above the rank, and at least ``min_lowrank_dim``."""
        matrix = _matrix(shape)
        small = min(matrix) < group["min_lowrank_dim"]
        return not small and self.projector(shape, group) is not None

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """Two moments of R, the basis where it is kept, the limiter's last norm."""
        projector = self.projector(shape, group)
        if projector is None:
            return self.plain.slots(shape, group)
        slots = {
            "exp_avg": SlotSpec(projector.low_shape, "signed", rows=False),
            "exp_avg_sq": SlotSpec(projector.low_shape, "unsigned", rows=False),
        }
        if _is_kept(projector, group):
            random = projector.is_random
            slots["basis"] = SlotSpec(projector.basis_shape, rows=False, projection=random)
        if group.get("norm_growth") is not None:
            slots["limiter"] = SlotSpec((), rows=False)
        return slots

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        projector = self.projector(tuple(p.shape), group)
        if projector is None:
            return self.plain.update(p, g, state, group, t, index)
        g = g.reshape(projector.shape)
        space = self._enter(projector, g, state, group, t, index)
        return self.direction(g, space, state, group).mul_(space.rate).view_as(p)

    def direction(
        self, g: Tensor, space: Subspace, state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """The step in units of a_t: a new tensor [m, n]."""
        raise NotImplementedError

    def _enter(
        self,
        projector: Projector,
        g: Tensor,
        state: dict[str, Tensor],
        group: Group,
        t: int,
        index: int,
    ) -> Subspace:
        """Project, and update the moments."""
        m, v = state["exp_avg"], state["exp_avg_sq"]
        basis = self.basis(projector, g, state, group, t, index)
        low = self.project(projector, g, basis, group)
        return Subspace(projector, basis, low, _normed(m, v, low, group), self.rate(group, t))

    def basis(
        self,
        projector: Projector,
        g: Tensor,
        state: dict[str, Tensor],
        group: Group,
        t: int,
        index: int,
    ) -> Tensor:
        """The basis of step ``t``: a new one when it is time, for which moments are got ready."""
        count, since = divmod(t - 1, group["update_proj_gap"])
        kept = state.get("basis")
        if kept is not None and since:
            return kept
        seed = index if projector.rng == "torch" else param_seed(group["seed"], index)
        basis = projector.make(g, seed, count)
        if since == 0 and count:
            if group["on_refresh"] == "reset":
                state["exp_avg"].zero_()
                state["exp_avg_sq"].zero_()
            elif group["on_refresh"] == "rotate":
                old = projector.make(g, seed, count - 1) if kept is None else kept
                state["exp_avg"].copy_(projector.rotate(state["exp_avg"], old, basis))
        return basis if kept is None else kept.copy_(basis)

    def project(self, projector: Projector, g: Tensor, basis: Tensor, group: Group) -> Tensor:
        """R."""
        if group.get("proj_dtype") == "bf16":
            return projector.down(g.bfloat16(), basis.bfloat16()).to(g.dtype)
        return projector.down(g, basis)

    def rate(self, group: Group, t: int) -> float:
        """a_t."""
        gap = group["update_proj_gap"]
        return adam_rate(group, (t - 1) % gap + 1 if group["on_refresh"] == "reset" else t)


def _normed(m: Tensor, v: Tensor, g: Tensor, group: Group) -> Tensor:
    """N, after the moments took in ``g``."""
    mix_moments(m, v, g, group)
    return m / v.sqrt().add_(float(group["eps"]))


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], math.prod(shape[1:]))


@lru_cache(maxsize=4096)
def _projector(
    shape: tuple[int, ...], rank: int | str, kind: Any, side: Side, rng: Any
) -> Projector | None:
    matrix = _matrix(shape)
    if rank == "auto":
        rank = max(1, min(matrix) // 4)
    right = side_is_right(side, matrix)
    assert isinstance(rank, int)
    if not rank < min(matrix):
        return None
    return Projector(kind, rank, matrix, right, rng or "philox")


def _is_kept(projector: Projector, group: Group) -> bool:
    """Bases that come from a gradient always; others when small beside the weights."""
    asked = group.get("cache_projection", "auto")
    if not projector.is_random or asked is True:
        return True
    length = math.prod(projector.shape) // projector.width
    return bool(asked == "auto" and (projector.rank == 1 or 16 * projector.rank <= length))


class LowRankOptimizer(Optimizer):
    """Base of optimizers with a :class:`LowRankRule`: checks of their options."""

    fallback: ClassVar[str] = "adamw"

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        rank, gap, kind = group["rank"], group["update_proj_gap"], group["proj"]
        if rank != "auto" and (not isinstance(rank, int) or rank < 1):
            raise ConfigError(f"rank={rank!r} must be an integer of at least 1, or 'auto'.")
        if gap < 1:
            raise ConfigError(f"update_proj_gap={gap} must be at least 1 step.")
        if kind in SELECTIONS and kind != "permutation":
            raise ConfigError(
                f"proj={kind!r} keeps single {'entries' if kind == 'randk' else kind}; "
                f"{type(self).__name__} projects. Use Frugal with select={kind!r}."
            )
        for name, choices in (("proj_side", get_args(Side)), ("on_refresh", get_args(OnRefresh))):
            if group[name] not in choices:
                raise ConfigError(f"{name}={group[name]!r} must be one of {', '.join(choices)}.")
        if group["on_refresh"] == "rotate" and kind not in ORTHONORMAL:
            raise ConfigError(
                f"on_refresh='rotate' needs an orthonormal basis, and proj={kind!r} is none. "
                "Choose proj='orthogonal', 'randsvd' or 'svd'."
            )
        Projector(kind, 1, (1, 1), True, group.get("rng", "philox"))
        for name in ("scale", "alpha"):
            if name in group and not 0 < group[name] < math.inf:
                raise ConfigError(f"{name}={group[name]} must be above 0, and finite.")
        growth = group.get("norm_growth")
        if growth is not None and not growth > 1:
            raise ConfigError(f"norm_growth={growth} must be above 1, or None for no limit.")
        if group.get("proj_dtype", "fp32") not in ("fp32", "bf16", "auto"):
            raise ConfigError(
                f"proj_dtype={group['proj_dtype']!r} must be 'fp32', 'bf16' or 'auto'."
            )
        if group.get("proj_dtype") == "auto":
            group["proj_dtype"] = "bf16" if _bfloat16_is_fast(group["params"]) else "fp32"
        rule = self.rules[group["rule"]]
        if isinstance(rule, LowRankRule):
            matrices = [p for p in group["params"] if p.ndim > 1 and p.numel()]
            small = [p for p in matrices if rule.projector(tuple(p.shape), group) is None]
            if small:
                names = ", ".join(f"{self.name_of(p)} {tuple(p.shape)}" for p in small[:3])
                _logger.warning(
                    "rank=%s is not below both sides of %d matrices, which AdamW updates: %s%s",
                    *(rank, len(small), names, ", ..." if len(small) > 3 else ""),
                )


def _bfloat16_is_fast(params: list[Tensor]) -> bool:
    if params and params[0].is_cuda:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return "avx512_bf16" in cpu_flags()
