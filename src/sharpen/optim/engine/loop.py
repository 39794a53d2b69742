"""A step of one parameter, the reference, and of many by torch's lists of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.optim.engine.philox import round_bfloat16, splitmix64
from sharpen.optim.engine.quant import BlockQuantTensor
from sharpen.optim.engine.rule import Entry, Rule, is_packed

__all__ = ["is_listable", "step_many", "step_one"]


def step_one(entry: Entry, rule: Rule, scale: float) -> tuple[int, bool]:
    """Take the step of one parameter with plain tensors.

    Returns:
        How many gradient entries were not finite, and whether the step was taken.
    """
    group, weights = entry.group, entry.parameter
    work = torch.promote_types(weights.dtype, torch.float32)
    g = entry.grad.to(work)
    if scale != 1.0:
        g = g * scale
    if group["maximize"]:
        g = -g
    finite, bad = None, 0
    # A sum is quicker than a look at each entry, and finite only if all are.
    if group["skip_nonfinite"] and not math.isfinite(float(g.sum())):
        finite = g.isfinite()
        bad = finite.numel() - int(finite.sum())
        if not bad:
            finite = None
        elif rule.mixes:
            return bad, False
        else:
            g = torch.where(finite, g, 0.0)
    master = entry.state.get("master")
    packed: Any = weights if is_packed(weights) else None
    w = weights.dequantize().to(work) if packed is not None else weights.to(work)
    if isinstance(master, Tensor):
        w = master
    if not group["decoupled_wd"] and not rule.own_decay:
        g = g.add(w, alpha=float(group["weight_decay"]))
    values = _values(entry, work)
    before = None
    if finite is not None:
        before = {n: v.clone() for n, v in values.items() if v.shape == w.shape}
    step = rule.update(w, g, values, group, entry.t, entry.index)
    if entry.t <= rule.fills(tuple(w.shape)):
        _keep(entry, values)
        return bad, True
    if group["cautious"]:
        agree = (step * g > 0).to(work)
        step = step * (agree / agree.mean().clamp(min=1e-3))
    lr = float(group["lr"])
    if group["update_rms_clip"] is not None and lr:
        size = float(step.square().mean().sqrt()) / lr
        step = step / max(1.0, size / group["update_rms_clip"])
    decay = 1 - lr * float(group["weight_decay"])
    decays = group["decoupled_wd"] and not rule.own_decay and decay != 1
    new = w if finite is None else w.clone()
    if decays and group["wd_order"] == "before":
        new.mul_(decay)
    new.sub_(step)
    if decays and group["wd_order"] == "after":
        new.mul_(decay)
    if finite is not None:
        new = torch.where(finite, new, w)
        for name, old in (before or {}).items():
            values[name].copy_(torch.where(finite, values[name], old))
    if isinstance(master, Tensor) and new is not master:
        master.copy_(new)
    if packed is not None:
        packed.requantize_(new, _key(entry))
    elif new is not weights:
        weights.copy_(_rounded(new, entry))
    _keep(entry, values)
    return bad, True


def _values(entry: Entry, work: torch.dtype) -> dict[str, Tensor]:
    """The states in the working type; those kept in it are the kept tensors themselves."""
    return {
        name: slot.dequantize(floor=entry.group["v_floor"])
        if isinstance(slot, BlockQuantTensor)
        else (slot.to(work) if slot.is_floating_point() else slot)
        for name, slot in entry.state.items()
        if name != "master"
    }


def _keep(entry: Entry, values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        kept = entry.state[name]
        if isinstance(kept, BlockQuantTensor):
            kept.copy_(value, rounding=entry.group["code_rounding"])
        elif kept.data_ptr() != value.data_ptr():
            kept.copy_(value)


def _rounded(new: Tensor, entry: Entry) -> Tensor:
    rounds = entry.group["stochastic_round"]
    if rounds is None:
        rounds = "master" not in entry.state
    if entry.parameter.dtype != torch.bfloat16 or not rounds:
        return new
    return round_bfloat16(new, _key(entry))


def _key(entry: Entry) -> tuple[int, int]:
    """Of the random numbers that round a parameter at this step."""
    return splitmix64(entry.group["seed"] + entry.index) & 0xFFFFFFFF, entry.t


def is_listable(entry: Entry) -> bool:
    """Whether lists of tensors can do without temporaries in another type."""
    group, p = entry.group, entry.parameter
    plain = group["decoupled_wd"] and group["wd_order"] == "before" and not group["cautious"]
    return (
        plain
        and not is_packed(p)
        and group["update_rms_clip"] is None
        and p.dtype in (torch.float32, torch.float64)
        and entry.grad.dtype == p.dtype
        and all(isinstance(s, Tensor) and s.dtype == p.dtype for s in entry.state.values())
    )


def step_many(entries: Sequence[Entry], rule: Rule, scale: float) -> bool:
    """Take the steps of parameters of one group, type and step count by lists of tensors.

    Returns:
        Whether it was done; not when a gradient is not finite, or the rule has no such form.
    """
    group, t = entries[0].group, entries[0].t
    gs: Any = [entry.grad for entry in entries]
    if group["maximize"]:
        gs = torch._foreach_neg(gs)
    if scale != 1.0:
        gs = torch._foreach_mul(gs, scale)
    if group["skip_nonfinite"] and not torch.stack([g.isfinite().all() for g in gs]).all():
        return False
    states: list[dict[str, Any]] = [dict(entry.state) for entry in entries]
    ws = [entry.parameter for entry in entries]
    steps = rule.update_many(ws, gs, states, group, t)
    if steps is None:
        return False
    decay = 1 - float(group["lr"]) * float(group["weight_decay"])
    if decay != 1 and not rule.own_decay:
        torch._foreach_mul_(ws, decay)
    torch._foreach_sub_(ws, steps)
    return True
