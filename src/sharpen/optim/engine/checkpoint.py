"""Loading an optimizer's state, checked against the parameters it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.engine.slots import quantized_shapes, stored_kind

if TYPE_CHECKING:
    from sharpen.optim.engine.base import Optimizer

__all__ = ["expected_shapes", "load_state_dict"]

_OF_THE_MODEL = ("params", "optimizer", "indices", "shapes")


def expected_shapes(
    optimizer: Optimizer, p: Tensor, group: dict[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Names and whole shapes of the tensors that an optimizer keeps of a parameter."""
    out: dict[str, tuple[int, ...]] = {"step": ()}
    for name, spec in optimizer.specs(p, group, tuple(p.shape)).items():
        kind = stored_kind(spec, group)
        if kind in ("q8", "q4"):
            bits = 8 if kind == "q8" else 4
            codes, scales = quantized_shapes(spec.shape, bits, group["block_size"], group["layout"])
            out |= {f"{name}_codes": codes, f"{name}_absmax": scales}
        else:
            out[name] = spec.shape
    return out


def load_state_dict(optimizer: Optimizer, found: dict[str, Any]) -> None:
    """Restore options and states; types stay as they were saved.

    Raises:
        ConfigError: of another optimizer, or other parameters, shapes or states.
    """
    kind = type(optimizer).__name__
    groups, saved = optimizer.param_groups, found["param_groups"]
    others = {str(g.get("optimizer", "an optimizer that is not Sharpen's")) for g in saved} - {kind}
    if others:
        raise ConfigError(
            f"the state is that of {', '.join(sorted(others))}, not of {kind}. "
            "sharpen.optim.convert brings moments over where they mean the same."
        )
    sizes = [len(g["params"]) for g in saved], [len(g["params"]) for g in groups]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"the state has groups of {sizes[0]} parameters and the optimizer of {sizes[1]}. Make "
            "the optimizer over the same parameters."
        )
    for theirs, ours in zip(saved, groups, strict=True):
        names = theirs.get("param_names"), ours.get("param_names")
        if None not in names and names[0] != names[1]:
            a, b = next(pair for pair in zip(*names, strict=True) if pair[0] != pair[1])  # type: ignore[arg-type]
            raise ConfigError(f"the state has the parameter {a} where the optimizer has {b}.")
        for shape, p in zip(theirs.get("shapes", ()), ours["params"], strict=False):
            if tuple(shape) != tuple(p.shape):
                raise ConfigError(
                    f"the state is of a parameter of shape {tuple(shape)} where "
                    f"{optimizer.name_of(p)} has {tuple(p.shape)}."
                )
    merged = []
    states: dict[Tensor, dict[str, Tensor]] = {}
    for theirs, ours in zip(saved, groups, strict=True):
        kept = {k: v for k, v in theirs.items() if k not in _OF_THE_MODEL}
        group = {**ours, **kept}
        merged.append(group)
        for number, p in zip(theirs["params"], ours["params"], strict=True):
            slots = found["state"].get(number)
            if slots:
                states[p] = _checked(optimizer, p, group, slots)
    for ours, group in zip(groups, merged, strict=True):
        ours.update(group)
    optimizer.state.clear()
    optimizer.state.update(states)


def _checked(
    optimizer: Optimizer, p: Tensor, group: dict[str, Any], slots: dict[str, Any]
) -> dict[str, Tensor]:
    """Copies of a parameter's states, on its device."""
    wanted = expected_shapes(optimizer, p, group)
    shapes = {name: tuple(torch.as_tensor(value).shape) for name, value in slots.items()}
    for name in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(name) != shapes.get(name):
            raise ConfigError(
                f"the state of {optimizer.name_of(p)} has {name} of shape "
                f"{shapes.get(name, 'none')}, and {type(optimizer).__name__} with these options "
                f"needs {wanted.get(name, 'none')}."
            )
    return {
        name: value.clone() if name == "step" else value.to(p.device, copy=True)
        for name, value in slots.items()
    }
