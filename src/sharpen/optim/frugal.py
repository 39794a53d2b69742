"""FRUGAL: an optimizer with states on a part of the weights, one without states on the rest.

Zmushko et al., FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable
Training, ICML 2025 (arXiv 2411.07837), Algorithms 1 and 2. Every ``update_gap`` steps a new part is
chosen, and its states start again (t_a counts from there)::

    R = down(G)        G_rest = G - up(R)
    lr_a = lr lr_scale                    lr_i = lr_a stateless_lr_scale
    w <- (1 - lr wd) w - up(AdamW(R, t_a; lr_a)) - lr_i sign(G_rest)

The part: whole tensors (``block``), columns, rows, entries (``randk``), or a subspace (``svd``,
``randsvd``, ``random``), in which sign(G_rest) has a share in every entry. Instead of AdamW: Lion,
or SGD with momentum; instead of the sign: the gradient itself, or nothing, which makes it BAdam
(``block``) and nearly GaLore (``svd``; there eps is outside of the bias correction).

Differs from the paper: blocks are chosen by their sizes, not their number, so that the density is
that of weights (``block_count="tensors"`` counts them as published); tensors of a group change
together, also where one had no gradient for a while. Memory: 2 density m n values, plus indices, or
s r for a basis.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal, Unpack, get_args

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.adamw import AdamWRule
from sharpen.optim.engine import fused, lowrank_native
from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.blocks import BlockUnit, BlockWalk, Order, units_of
from sharpen.optim.engine.lowrank_native import MatrixStep
from sharpen.optim.engine.projector import Projector, Side, param_seed, side_is_right
from sharpen.optim.engine.rule import Entry, Group, Rule, is_plain
from sharpen.optim.engine.sharded import local
from sharpen.optim.engine.slots import SlotSpec
from sharpen.optim.lion import LionRule

__all__ = ["BlockRule", "Frugal", "Select", "SplitRule"]

Select = Literal["block", "columns", "rows", "randk", "svd", "randsvd", "random", "permutation"]
Stateful = Literal["adamw", "lion", "sgdm"]
Stateless = Literal["sign", "sgd", "none"]

_CLOCK = "active_steps"

_logger = logging.getLogger(__name__)


class _Momentum(Rule):
    """m <- b1 m + g, d = lr m."""

    name = "sgdm"

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        return {"exp_avg": SlotSpec(shape, "signed")}

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        m: Tensor = state["exp_avg"].mul_(group["betas"][0]).add_(g)
        return m * float(group["lr"])


_STATEFUL: dict[str, Rule] = {"adamw": AdamWRule(), "lion": LionRule(), "sgdm": _Momentum()}


def _active(group: Group) -> dict[str, Any]:
    """Options of the rule with states."""
    return {**group, "lr": float(group["lr"]) * float(group["lr_scale"])}


def _rest_rate(group: Group) -> float:
    """Of the step without states."""
    return float(group["lr"]) * float(group["lr_scale"]) * float(group["stateless_lr_scale"])


def _stateless(g: Tensor, group: Group) -> Tensor:
    """The step without states: a new tensor."""
    rate = _rest_rate(group)
    if group["stateless"] == "sign":
        return g.sign().mul_(rate)
    return g * (rate if group["stateless"] == "sgd" else 0.0)


class BlockRule(Rule):
    """Of a whole tensor, which is active while it has states."""

    name = "frugal_block"

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """While it is active."""
        return {_CLOCK: SlotSpec(()), **_STATEFUL[group["stateful"]].slots(shape, group)}

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        if _CLOCK not in state:
            return _stateless(g, group)
        clock = int(state[_CLOCK].add_(1))
        return _STATEFUL[group["stateful"]].update(p, g, state, _active(group), clock, index)

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`."""
        states = _KERNELS[entry.group["stateful"]][1] if _CLOCK in entry.state else ()
        return fused.serves(entry, states)

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        parts: dict[str, list[Entry]] = {}
        for entry in entries:
            kind = entry.group["stateful" if _CLOCK in entry.state else "stateless"]
            parts.setdefault(kind, []).append(entry)
        return sum(
            fused.step(_KERNELS[kind][0], part, _KERNELS[kind][1], _NUMBERS[kind], scale)
            for kind, part in parts.items()
        )


# Native functions and the states they change; a sign step with rate 0 is the decay alone.
_KERNELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "adamw": ("adamw_step", ("exp_avg", "exp_avg_sq")),
    "lion": ("lion_step", ("exp_avg",)),
    "sgdm": ("momentum_step", ("exp_avg",)),
    "sign": ("sign_sgd_step", ()),
    "sgd": ("sgd_step", ()),
    "none": ("sign_sgd_step", ()),
}


def _decay(group: Group) -> float:
    return 1 - float(group["lr"]) * float(group["weight_decay"])


def _adamw_numbers(entry: Entry) -> list[float]:
    group, clock = entry.group, entry.state[_CLOCK]
    assert isinstance(clock, Tensor)
    t, (beta1, beta2) = int(clock.add_(1)), group["betas"]
    rate, root = _active(group)["lr"] / (1 - beta1**t), math.sqrt(1 - beta2**t)
    moments = beta1, 1 - beta1, beta2, 1 - beta2
    return [_decay(group), *moments, rate, 1 / root, float(group["eps"])]


def _lion_numbers(entry: Entry) -> list[float]:
    beta1, beta2 = entry.group["betas"]
    rate = _active(entry.group)["lr"]
    return [_decay(entry.group), beta1, 1 - beta1, beta2, 1 - beta2, rate]


def _momentum_numbers(entry: Entry) -> list[float]:
    group = entry.group
    return [_decay(group), 0.0, _active(group)["lr"], group["betas"][0], 1.0, 0.0]


_NUMBERS: dict[str, Callable[[Entry], list[float]]] = {
    "adamw": _adamw_numbers,
    "lion": _lion_numbers,
    "sgdm": _momentum_numbers,
    "sign": lambda entry: [_decay(entry.group), _rest_rate(entry.group)],
    "sgd": lambda entry: [_decay(entry.group), 0.0, _rest_rate(entry.group)],
    "none": lambda entry: [_decay(entry.group), 0.0],
}


@lru_cache(maxsize=4096, typed=True)  # a density of 1.0 is no rank of 1
def _part(
    shape: tuple[int, ...], select: Select, share: float | int, side: Side
) -> Projector | None:
    """The projector of a matrix for a density, or for a rank if that is an integer."""
    matrix = (shape[0], math.prod(shape[1:]))
    kind: Any = "orthogonal" if select == "random" else select
    right = side_is_right(side, matrix)
    full = Projector(kind, 1, matrix, right)
    total = math.prod(matrix) if kind == "randk" else full.width
    rank = share
    if isinstance(share, float):
        exact = share * total
        rank = int(exact) if select in ("columns", "rows", "randk") else round(exact)
    return Projector(kind, min(int(rank), total), matrix, right) if rank else None


class SplitRule(Rule):
    """Of a matrix, a part of which is active: columns, rows, entries or a subspace."""

    name = "frugal"
    mixes = True

    def projector(self, shape: tuple[int, ...], group: Group) -> Projector | None:
        """That of a parameter; None for no matrix, or a part of nothing."""
        if len(shape) < 2 or not math.prod(shape):
            return None
        share = float(group["density"]) if group["rank"] is None else group["rank"]
        return _part(shape, group["select"], share, group["proj_side"])

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """States of the part, and its indices or basis."""
        rule = _STATEFUL[group["stateful"]]
        projector = self.projector(shape, group)
        if projector is None:
            return rule.slots(shape, group) if len(shape) < 2 else {}
        basis = SlotSpec(
            projector.basis_shape,
            rows=False,
            projection=projector.is_random,
            integer=projector.is_selection,
        )
        return {"basis": basis, **rule.slots(projector.low_shape, group)}

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        rule, projector = _STATEFUL[group["stateful"]], self.projector(tuple(p.shape), group)
        if projector is None:
            if p.ndim < 2:
                return rule.update(p, g, state, _active(group), t, index)
            return _stateless(g, group)
        matrix, basis = g.reshape(projector.shape).contiguous(), state["basis"]
        clock = self.refresh(projector, matrix, state, group, t, index)
        low = projector.down(matrix, basis)
        step = rule.update(low, low, state, _active(group), clock, index)
        if projector.is_selection:  # the rest of a selected entry is 0, and so is its sign
            return projector.put(_stateless(matrix, group), step, basis).view_as(p)
        out = projector.up(step, basis)
        if group["stateless"] != "none":
            out += _stateless(matrix - projector.up(low, basis), group)
        return out.view_as(p)

    def refresh(
        self,
        projector: Projector,
        g: Tensor,
        state: dict[str, Tensor],
        group: Group,
        t: int,
        index: int,
    ) -> int:
        """Choose anew when it is time; tells the steps that the states count."""
        count, since = divmod(t - 1, group["update_gap"])
        resets = group["on_refresh"] == "reset"
        if since == 0:
            state["basis"].copy_(projector.make(g, param_seed(group["seed"], index), count))
            if resets:
                for name, value in state.items():
                    if name not in ("basis", "master"):
                        value.zero_()
        return since + 1 if resets else t

    def can_fuse(self, entry: Entry) -> bool:
        """See :meth:`Rule.can_fuse`; AdamW on columns or rows."""
        projector = self.projector(tuple(entry.parameter.shape), entry.group)
        return (
            projector is not None
            and projector.is_selection
            and projector.kind != "randk"
            and entry.group["stateful"] == "adamw"
            and is_plain(entry)
            and all(
                isinstance(slot, Tensor) and slot.dtype != torch.bfloat16
                for slot in entry.state.values()
            )
            and lowrank_native.available()
        )

    def step_fused(self, entries: Sequence[Entry], scale: float) -> int:
        """See :meth:`Rule.step_fused`."""
        batch = [(entry, self._matrix_step(entry, scale)) for entry in entries]
        return lowrank_native.take("split_step", batch)

    def _matrix_step(self, entry: Entry, scale: float) -> MatrixStep:
        group, t = entry.group, entry.t
        projector = self.projector(tuple(entry.parameter.shape), group)
        assert projector is not None
        state = {name: slot for name, slot in entry.state.items() if isinstance(slot, Tensor)}
        clock = self.refresh(projector, entry.grad, state, group, t, entry.index)
        beta1, beta2 = group["betas"]
        return MatrixStep(
            tensors=(
                *(entry.parameter, entry.grad),
                *(state["basis"], state["exp_avg"], state["exp_avg_sq"]),
            ),
            sizes=(
                *(*projector.shape, projector.rank, projector.right),
                *(group["stateless"] == "sign", group["skip_nonfinite"]),
            ),
            numbers=(
                -scale if group["maximize"] else scale,
                _decay(group),
                *(beta1, 1 - beta1, beta2, 1 - beta2, float(group["eps"])),
                _active(group)["lr"] / (1 - beta1**clock),
                math.sqrt(1 - beta2**clock),
                0.0 if group["stateless"] == "none" else _rest_rate(group),
            ),
        )


class Frugal(Optimizer):
    """FRUGAL; its learning rate is AdamW's.

    Args:
        params: see :class:`~sharpen.optim.engine.base.Optimizer`; groups with ``rule="adamw"`` have
            states throughout.
        lr: learning rate.
        density: share of the weights with states, from 0 to 1.
        update_gap: steps with one choice.
        select: what the part is made of.
        order: of blocks: ``random``, ``shuffle`` (each once before one comes again), ``ascending``,
            ``descending``, or ``mirror`` (pairs from both ends).
        block_unit: a block is a tensor, or all of a layer by the first number in names.
        block_count: blocks by ``size``; as many ``tensors`` as published; or a number of them.
        stateful: the optimizer of the active part; ``sgdm`` takes its momentum from ``betas[0]``.
        stateless: that of the rest.
        lr_scale: factor of the learning rate, for both.
        stateless_lr_scale: and of the rest's; 0.1 is advised for fine-tuning.
        on_refresh: whether states start again with a new choice.
        rank: of the part instead of the density.
        proj_side: side that ``svd``, ``randsvd``, ``random`` and ``permutation`` compress.
        betas: decay rates of the moments.
        eps: added to the corrected root of the second moment.
        weight_decay: decoupled, of all weights, with ``lr``.
        common: options of every optimizer.

    Raises:
        ConfigError: an option is out of its range.

    Examples:
        >>> ws = [torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(4)]
        >>> optimizer = Frugal(ws, lr=0.1, density=0.25)
        >>> for w in ws:
        ...     w.grad = torch.ones(2, 2)
        >>> optimizer.step()
        >>> [round(float(w.detach()[0, 0]), 3) for w in ws], optimizer.state_bytes()
        ([-0.1, -0.1, -0.1, -0.1], 32)
    """

    rules: ClassVar[dict[str, Rule]] = {
        "frugal": SplitRule(),
        "frugal_block": BlockRule(),
        "adamw": AdamWRule(),
    }
    fallback: ClassVar[str] = "adamw"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        density: float = 0.25,
        update_gap: int = 200,
        select: Select = "block",
        order: Order = "random",
        block_unit: BlockUnit = "tensor",
        block_count: Literal["size", "tensors"] | int = "size",
        stateful: Stateful = "adamw",
        stateless: Stateless = "sign",
        lr_scale: float = 1.0,
        stateless_lr_scale: float = 1.0,
        on_refresh: Literal["reset", "keep"] = "reset",
        rank: int | None = None,
        proj_side: Side = "std",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        # By the index of a group's first parameter; all but the first only spare work.
        self._choices: dict[int, int] = {}
        self._walks: dict[int, tuple[Any, BlockWalk]] = {}
        self._chosen: dict[int, tuple[Any, frozenset[Tensor]]] = {}
        defaults = {
            "lr": lr,
            "density": density,
            "update_gap": update_gap,
            "select": select,
            "order": order,
            "block_unit": block_unit,
            "block_count": block_count,
            "stateful": stateful,
            "stateless": stateless,
            "lr_scale": lr_scale,
            "stateless_lr_scale": stateless_lr_scale,
            "on_refresh": on_refresh,
            "rank": rank,
            "proj_side": proj_side,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, common)

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        choices = {
            "select": get_args(Select),
            "order": get_args(Order),
            "block_unit": get_args(BlockUnit),
            "stateful": get_args(Stateful),
            "stateless": get_args(Stateless),
            "on_refresh": ("reset", "keep"),
            "proj_side": get_args(Side),
        }
        for name, allowed in choices.items():
            if group[name] not in allowed:
                raise ConfigError(f"{name}={group[name]!r} must be one of {', '.join(allowed)}.")
        if not 0 <= group["density"] <= 1:
            raise ConfigError(f"density={group['density']} must be from 0 to 1.")
        if group["update_gap"] < 1:
            raise ConfigError(f"update_gap={group['update_gap']} must be at least 1 step.")
        for name in ("lr_scale", "stateless_lr_scale"):
            if not 0 <= group[name] < math.inf:
                raise ConfigError(f"{name}={group[name]} must be 0 or more, and finite.")
        count, rank = group["block_count"], group["rank"]
        if count not in ("size", "tensors") and (not isinstance(count, int) or count < 1):
            raise ConfigError(f"block_count={count!r} must be 'size', 'tensors' or at least 1.")
        if rank is not None and (not isinstance(rank, int) or rank < 1):
            raise ConfigError(f"rank={rank!r} must be an integer of at least 1, or None.")
        if group["rule"] == "frugal" and group["select"] == "block":
            group["rule"] = "frugal_block"

    def begin_step(self) -> None:
        """Choose blocks where it is time; see :meth:`Optimizer.begin_step`."""
        for group in self.param_groups:
            if group["rule"] != "frugal_block" or not group["params"]:
                continue
            done = self._steps_of(group["params"])
            self._choices[group["indices"][0]] = done // group["update_gap"]
            changes = done % group["update_gap"] == 0
            active = self.active(group)
            for p in group["params"]:
                state = self.state.get(p)
                if not state:
                    continue
                had, has = _CLOCK in state, p in active
                if had and (not has or (changes and group["on_refresh"] == "reset")):
                    for name in [n for n in state if n not in ("step", "master")]:
                        del state[name]
                    had = False
                if has and not had:
                    rows = local(p)
                    rule = self.rules["frugal_block"]
                    self.add_slots(p, group, rows, rule.slots(tuple(rows.shape), group))

    def _steps_of(self, params: list[Tensor]) -> int:
        """Steps of a group: the most of its parameters."""
        return max((int(self.state[p]["step"]) for p in params if p in self.state), default=0)

    def active(self, group: Group) -> frozenset[Tensor]:
        """The parameters of a group of blocks that have states now.

        Of a group that is spread over ranks, all its ``members`` are walked over.
        """
        params, index = group["params"], group["indices"][0]
        names = ("density", "order", "block_unit", "block_count", "seed")
        options = len(params), *(group[name] for name in names)
        number = self._choices.get(index, 0)
        known, found = self._chosen.get(index, (None, frozenset()))
        if known == (options, number):
            return found
        members = group.get("members") or [
            (self.name_of(p), i, p.numel()) for p, i in zip(params, group["indices"], strict=True)
        ]
        units = units_of([name for name, _, _ in members], group["block_unit"])
        known, walk = self._walks.get(index, (None, None))
        if walk is None or known != options:
            count = group["block_count"]
            if count == "tensors":
                count = round(len(units) * group["density"])
            walk = BlockWalk(
                [sum(members[i][2] for i in unit) for unit in units],
                group["density"],
                group["order"],
                None if count == "size" else count,
                group["seed"],
                members[0][1],
            )
            self._walks[index] = options, walk
        told = walk.overflowed
        chosen = {members[i][1] for unit in walk.chosen(number) for i in units[unit]}
        here = zip(params, group["indices"], strict=True)
        found = frozenset(p for p, i in here if i in chosen)
        self._chosen[index] = (options, number), found
        if walk.overflowed and not told:
            _logger.warning(
                "density=%s of %d weights is less than a single block; one at a time is active.",
                *(group["density"], sum(walk.sizes)),
            )
        return found

    def specs(self, p: Tensor, group: Group, shape: tuple[int, ...]) -> dict[str, SlotSpec]:
        """See :meth:`Optimizer.specs`; tensors that are not active have no states."""
        specs = super().specs(p, group, shape)
        if group["rule"] == "frugal_block" and p not in self.active(group):
            return {name: spec for name, spec in specs.items() if name == "master"}
        return specs

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`Optimizer.load_state_dict`."""
        before = dict(self._choices)
        for saved, ours in zip(state_dict["param_groups"], self.param_groups, strict=False):
            states = [state_dict["state"].get(number, {}) for number in saved["params"]]
            steps = [torch.as_tensor(state.get("step", 0)).flatten()[0] for state in states]
            last = max((int(step) for step in steps), default=0) - 1
            gap = saved.get("update_gap", ours["update_gap"])
            self._choices[ours["indices"][0]] = max(last, 0) // gap
        try:
            super().load_state_dict(state_dict)
        except ConfigError:
            self._choices = before
            raise
