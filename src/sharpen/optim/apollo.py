"""APOLLO: learning rates of whole rows from a random low-rank copy of AdamW's states.

Zhu et al., APOLLO: SGD-like Memory, AdamW-level Performance, MLSys 2025 (arXiv 2412.05270),
Algorithm 1; the limiter is Fira's (Chen et al., 2024, arXiv 2410.01623). With R, N and a_t of
``lowrank.py``, P of normal numbers with variance 1 / r, and j along the long side::

    channel:  c_j = ||N_j|| / (||R_j|| + 1e-8)        each row (or column) as a whole
    tensor:   c = ||N|| / (||R|| + 1e-8)              APOLLO-Mini
    S = c G
    l = max(||S|| / (q + 1e-8), gamma) / gamma        S <- S / l,  q <- ||S||
    w <- (1 - lr wd) w - a_t sqrt(scale) S

Differs from the paper: channels are those of the side that is not compressed for every
``proj_side``; a step of norm 0 leaves the limiter unset, instead of holding back all that follow;
decay before the step (``wd_order="after"`` is the published code's). Memory of a matrix [m, n] with
long side L and short side s: 2 L r values, and s r for P where it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.adamw import AdamWRule
from sharpen.optim.engine import lowrank_native
from sharpen.optim.engine.base import Common, Params
from sharpen.optim.engine.lowrank import (
    FoldedAdamWRule,
    LowRankOptimizer,
    LowRankRule,
    OnRefresh,
    Subspace,
)
from sharpen.optim.engine.lowrank_native import MatrixStep
from sharpen.optim.engine.projector import Side
from sharpen.optim.engine.rule import Entry, Group, Rule, is_plain

__all__ = ["Apollo", "ApolloMini", "ApolloRule", "limit_growth"]

_TINY = 1e-8
_MOST_BYTES = 1 << 26  # of projected gradients that wait for native code


class ApolloRule(LowRankRule):
    """Scale the gradient by what Adam does in a random subspace."""

    name = "apollo"

    def direction(
        self, g: Tensor, space: Subspace, state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """See :meth:`LowRankRule.direction`."""
        step = g * scaling(space, group["scale_type"])
        factor = math.sqrt(group["scale"])
        if group["scale_front"]:
            step.mul_(factor)
        if group["norm_growth"] is not None:
            limit_growth(step, state["limiter"], group["norm_growth"])
        return step if group["scale_front"] else step.mul_(factor)

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`."""
        projector = self.projector(tuple(entry.parameter.shape), entry.group)
        if projector is None:
            return self.plain.can_fuse(entry)
        return (
            not projector.is_selection
            and entry.group["on_refresh"] != "rotate"
            and is_plain(entry)
            and all(
                isinstance(slot, Tensor) and slot.dtype == torch.float32 and slot.is_contiguous()
                for slot in entry.state.values()
            )
            and lowrank_native.available()
        )

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        bad, batch, held = 0, list[tuple[Entry, MatrixStep]](), 0
        plain = []
        for entry in entries:
            step = self._matrix_step(entry, scale)
            if step is None:
                plain.append(entry)
                continue
            batch.append((entry, step))
            held += 0 if step.tensors[-1] is None else step.tensors[-1].nbytes
            if held > _MOST_BYTES:
                bad += lowrank_native.take("apollo_step", batch)
                batch, held = [], 0
        if batch:
            bad += lowrank_native.take("apollo_step", batch)
        return bad + (self.plain.step_fused(plain, scale) if plain else 0)

    def _matrix_step(self, entry: Entry, scale: float) -> MatrixStep | None:
        """What the native code needs; None for what AdamW updates."""
        group, state = entry.group, entry.state
        projector = self.projector(tuple(entry.parameter.shape), group)
        if projector is None:
            return None
        g = entry.grad.view(projector.shape)
        tensors = {name: slot for name, slot in state.items() if isinstance(slot, Tensor)}
        basis = self.basis(projector, g, tensors, group, entry.t, entry.index)
        native = projector.rank == 1 and group["proj_dtype"] == "fp32"
        low = None
        if not native and group["proj_dtype"] == "bf16" and scale != 1.0:
            # What is rounded is the gradient after clipping, as in the reference.
            low = self.project(projector, g * scale, basis, group).div_(scale or 1.0)
        elif not native:
            low = self.project(projector, g, basis, group).contiguous()
        lr, factor = float(group["lr"]), math.sqrt(group["scale"])
        beta1, beta2 = group["betas"]
        front = group["scale_front"]
        return MatrixStep(
            tensors=(
                *(entry.parameter, g, basis if native else None),
                *(tensors["exp_avg"], tensors["exp_avg_sq"], tensors.get("limiter"), low),
            ),
            sizes=(
                *(*projector.shape, projector.rank, projector.right),
                *(group["scale_type"] == "tensor", group["skip_nonfinite"]),
            ),
            numbers=(
                -scale if group["maximize"] else scale,
                1 - lr * float(group["weight_decay"]),
                *(beta1, 1 - beta1, beta2, 1 - beta2),
                float(group["eps"]),
                self.rate(group, entry.t),
                *((factor, 1.0) if front else (1.0, factor)),
                group["norm_growth"] or 1.0,
            ),
        )


def scaling(space: Subspace, kind: str) -> Tensor:
    """c: of shape [m, 1] or [1, n], by channel of the long side, or [] for the tensor."""
    along = None if kind == "tensor" else 1 if space.projector.right else 0
    upper, lower = (
        torch.linalg.vector_norm(x, dim=along, keepdim=along is not None)
        for x in (space.normed, space.low)
    )
    c: Tensor = upper / (lower + _TINY)
    return c


def limit_growth(step: Tensor, last: Tensor, gamma: float) -> None:
    """Let the norm of ``step`` grow by at most ``gamma`` since the last one (Fira, section 4.2).

    Args:
        step: scaled in place.
        last: the norm before, 0 when there is none; becomes the new one.
        gamma: above 1.

    Examples:
        >>> last, step = torch.tensor(1.0), torch.tensor([0.0, 500.0])
        >>> limit_growth(step, last, 1.01)
        >>> round(float(last), 4), round(float(step[1]), 4)
        (1.01, 1.01)
    """
    norm = torch.linalg.vector_norm(step)
    growth = (norm / (last + _TINY)).clamp_(min=gamma) / gamma
    growth = torch.where(last > 0, growth, 1.0)
    step.div_(growth)
    last.copy_(norm / growth)


class Apollo(LowRankOptimizer):
    """APOLLO; its learning rate is about ten times AdamW's.

    Args:
        params: see :class:`~sharpen.optim.engine.base.Optimizer`; groups with ``rule="adamw"`` are
            updated by AdamW, the rest, if large enough for the rank, by APOLLO.
        lr: learning rate, of both.
        rank: r; or ``auto``, a quarter of the short side.
        scale_type: a factor for each channel, or one for the tensor.
        scale: the step is multiplied by its square root; for fine-tuning the width over the rank.
        scale_front: scale before the limiter.
        update_proj_gap: steps with one basis.
        proj: kind of basis, see ``projector.py``; ``random`` is ``gaussian``.
        proj_side: which side is compressed; ``std``, the short one.
        norm_growth: most that a step's norm grows by; None: no limit.
        on_refresh: what becomes of the moments with a new basis; the published way is ``keep``.
        cache_projection: keep P between steps; ``auto``: when it takes at most 1/16 of the weight's
            bytes, else it is made again in each step.
        proj_dtype: of the projection's product; ``auto``: bf16 where hardware has it.
        rng: ``torch`` draws the published code's random numbers.
        betas: decay rates of the moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled.
        common: options of every optimizer.

    Raises:
        ConfigError: an option is out of its range.

    Examples:
        >>> w = torch.nn.Parameter(torch.zeros(8, 4))
        >>> optimizer = Apollo([w], lr=0.1, rank=2)
        >>> w.grad = torch.ones(8, 4)
        >>> optimizer.step()
        >>> optimizer.state_bytes(), optimizer.state_bytes(include_projection=False)
        (128, 128)
    """

    rules: ClassVar[dict[str, Rule]] = {
        "apollo": ApolloRule(256),
        "adamw": AdamWRule(),
        "adamw_folded": FoldedAdamWRule(),
    }

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        *,
        rank: int | Literal["auto"] = 256,
        scale_type: Literal["channel", "tensor"] = "channel",
        scale: float = 1.0,
        scale_front: bool = False,
        update_proj_gap: int = 200,
        proj: str = "gaussian",
        proj_side: Side = "std",
        norm_growth: float | None = 1.01,
        on_refresh: OnRefresh = "keep",
        cache_projection: bool | Literal["auto"] = "auto",
        proj_dtype: Literal["fp32", "bf16", "auto"] = "fp32",
        rng: Literal["philox", "torch"] = "philox",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        defaults = {
            "lr": lr,
            "rank": rank,
            "scale_type": scale_type,
            "scale": scale,
            "scale_front": scale_front,
            "update_proj_gap": update_proj_gap,
            "proj": proj,
            "proj_side": proj_side,
            "norm_growth": norm_growth,
            "on_refresh": on_refresh,
            "cache_projection": cache_projection,
            "proj_dtype": proj_dtype,
            "rng": rng,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, common)

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        if group["proj"] == "random":
            group["proj"] = "gaussian"
        super().check(group)
        if group["scale_type"] not in ("channel", "tensor"):
            raise ConfigError(f"scale_type={group['scale_type']!r} must be 'channel' or 'tensor'.")


class ApolloMini(Apollo):
    """APOLLO-Mini: rank 1 and one factor a tensor, states of the size of SGD's.

    Args:
        params: see :class:`Apollo`.
        lr: learning rate.
        rank: 1 in the paper.
        scale_type: ``tensor`` in the paper.
        scale: 128 in the paper.
        options: those of :class:`Apollo` and of every optimizer.
    """

    rules: ClassVar[dict[str, Rule]] = {**Apollo.rules, "apollo": ApolloRule(1)}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        *,
        rank: int | Literal["auto"] = 1,
        scale_type: Literal["channel", "tensor"] = "tensor",
        scale: float = 128.0,
        **options: Any,
    ) -> None:
        super().__init__(params, lr, rank=rank, scale_type=scale_type, scale=scale, **options)
