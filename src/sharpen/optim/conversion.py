"""Moments of other packages' optimizers, brought over to Sharpen's.

A training that was begun with torch, bitsandbytes or lion-pytorch goes on with what its optimizer
remembers. Codes of bitsandbytes are taken as they are where codebook and blocks are the
same; else they are read and packed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.engine.quant import BlockQuantTensor, codebook
from sharpen.optim.engine.rule import Stored
from sharpen.optim.engine.sharded import is_sharded

__all__ = ["SOURCES", "convert"]

_BLOCKS = (256, 2048)  # of bitsandbytes, now and once
_ADAM = {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
_ADAM_RULES = {"adamw": _ADAM, "nadamw": _ADAM, "lamb": _ADAM}
_BNB_ADAM = {"exp_avg": "state1", "exp_avg_sq": "state2"}
_BNB_ADAM_RULES = {"adamw": _BNB_ADAM, "nadamw": _BNB_ADAM, "lamb": _BNB_ADAM}
_MOMENTUM = {"momentum_buffer": "momentum_buffer"}
_MIXED = {"exp_avg": "state1.0", "exp_avg_slow": "state1.1", "exp_avg_sq": "state2"}
_FACTORS = {name: name for name in ("row_var", "col_var", "variance")}

SOURCES: dict[str, dict[str, dict[str, str]]] = {
    "torch.Adam": _ADAM_RULES,
    "torch.AdamW": _ADAM_RULES,
    "torch.SGD": {"sgd": _MOMENTUM},
    "torch.Adagrad": {"adagrad": {"sum": "sum"}},
    "torch.Adafactor": {"adafactor": _FACTORS},
    "lion_pytorch.Lion": {"lion": {"exp_avg": "exp_avg"}},
    "bnb.Adam8bit": _BNB_ADAM_RULES,
    "bnb.AdamW": _BNB_ADAM_RULES,
    "bnb.AdamW8bit": _BNB_ADAM_RULES,
    "bnb.PagedAdamW8bit": _BNB_ADAM_RULES,
    "bnb.LAMB8bit": _BNB_ADAM_RULES,
    "bnb.Lion": {"lion": {"exp_avg": "state1"}},
    "bnb.Lion8bit": {"lion": {"exp_avg": "state1"}},
    "bnb.SGD8bit": {"sgd": {"momentum_buffer": "state1"}},
    "bnb.Adagrad8bit": {"adagrad": {"sum": "state1"}},
    "bnb.AdEMAMix8bit": {"ademamix": _MIXED},
}
"""Package and class: by the rule that takes over, the source of each slot."""


def convert(state_dict: Mapping[str, Any], *, src: str, dst: Optimizer) -> None:
    """Bring the moments and step counts of another package's optimizer over.

    Options (learning rate, betas and so on) stay those of ``dst``.

    Args:
        state_dict: of the other optimizer, over the same parameters in the same order.
        src: which it is, one of :data:`SOURCES`.
        dst: takes them over; its parameters are not yet sharded.

    Raises:
        ConfigError: the source is unknown, has other parameters, shapes or states, or remembers
            something else than ``dst`` does.

    Examples:
        >>> from sharpen.optim import AdamW8bit
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> old = torch.optim.AdamW([w])
        >>> w.grad = torch.ones(3)
        >>> old.step()
        >>> new = AdamW8bit([w])
        >>> convert(old.state_dict(), src="torch.AdamW", dst=new)
        >>> int(new.state[w]["step"]), [round(x, 3) for x in new.state[w]["exp_avg"].tolist()]
        (1, [0.1, 0.1, 0.1])
    """
    if src not in SOURCES:
        hint = did_you_mean(src, list(SOURCES))
        raise ConfigError(f"src={src!r} is no source.{hint} Known: {', '.join(sorted(SOURCES))}.")
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    pairs = [(p, group) for group in dst.param_groups for p in group["params"]]
    if len(numbers) != len(pairs):
        raise ConfigError(
            f"the state is of {len(numbers)} parameters and {type(dst).__name__} has {len(pairs)}. "
            "Make it over the same parameters, in the same order."
        )
    found = []
    for number, (p, group) in zip(numbers, pairs, strict=True):
        state = dict(state_dict["state"].get(number, {}))
        state |= state.pop("__bnb_optimizer_quant_state__", {})
        if state:
            found.append((p, group, _slots(dst, p, group, state, src), _step(state)))
    for p, group, slots, step in found:
        dst.state.pop(p, None)
        dst.init_state(p, group, p)
        dst.state[p]["step"].fill_(step)
        stored = dst.stored(p, group, tuple(p.shape))
        for slot, value in slots.items():
            _put(stored[slot], value)


def _step(state: Mapping[str, Any]) -> float:
    """Of the packages that count them; the others' rules do not ask."""
    return float(state.get("step", 1))


def _slots(
    dst: Optimizer, p: Tensor, group: dict[str, Any], state: dict[str, Any], src: str
) -> dict[str, Tensor | BlockQuantTensor]:
    """Values of all slots of a parameter."""
    name, rules = dst.name_of(p), SOURCES[src]
    if is_sharded(p):
        raise ConfigError(f"{name} is sharded; convert before the model is.")
    if group["rule"] not in rules:
        raise ConfigError(
            f"{name} follows the rule {group['rule']!r}, which remembers something else than {src}."
        )
    out = {}
    for slot, spec in dst.specs(p, group, tuple(p.shape)).items():
        key = rules[group["rule"]].get(slot, "")
        value = p.detach() if slot == "master" else _value(state, key, spec.code == "signed")
        if value is None:
            raise ConfigError(f"the state of {name} has no {key or slot}; is it that of {src}?")
        if isinstance(value, Tensor) and value.numel() == spec.numel:
            value = value.reshape(spec.shape)  # torch keeps dimensions of 1
        if tuple(value.shape) != spec.shape:
            raise ConfigError(
                f"{key} of {name} has shape {tuple(value.shape)}, and {slot} needs {spec.shape}."
            )
        out[slot] = value
    return out


def _value(state: dict[str, Any], key: str, signed: bool) -> Tensor | BlockQuantTensor | None:
    """A source's state; bitsandbytes' codes as such where they mean the same here."""
    key, _, part = key.partition(".")
    value, number = state.get(key), key.removeprefix("state")
    if value is None:
        return None
    absmax, book = state.get(f"absmax{number}"), state.get(f"qmap{number}")
    if part:
        value = value[int(part)]
        absmax = absmax[int(part)] if absmax is not None else None
    if absmax is None or book is None:
        plain: Tensor = value
        return plain
    sizes = [s for s in _BLOCKS if -(-value.numel() // s) == absmax.numel()]
    if not sizes:
        raise ConfigError(
            f"{key} has {value.numel()} codes and {absmax.numel()} scales; blocks must have "
            f"{' or '.join(map(str, _BLOCKS))} codes."
        )
    size = sizes[0]
    if torch.equal(book.cpu(), codebook(signed)):
        return BlockQuantTensor(
            value.reshape(-1), absmax.reshape(-1), tuple(value.shape), signed, block_size=size
        )
    scales = absmax.repeat_interleave(size)[: value.numel()].view(value.shape)
    read: Tensor = book[value.long()] * scales
    return read


def _put(slot: Stored, value: Tensor | BlockQuantTensor) -> None:
    if isinstance(value, BlockQuantTensor):
        same = isinstance(slot, BlockQuantTensor) and all(
            getattr(slot, name) == getattr(value, name) for name in ("bits", "block_size", "layout")
        )
        if same and isinstance(slot, BlockQuantTensor):
            slot.codes.copy_(value.codes)
            slot.absmax.copy_(value.absmax)
            return
        value = value.dequantize()
    slot.copy_(value)
