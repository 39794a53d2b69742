"""Optimizers made by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.optim.groups import param_groups
from sharpen.optim.names import find

if TYPE_CHECKING:
    from sharpen.optim.engine.base import Optimizer, Params

__all__ = ["create", "parse_options"]


def create(
    name: str, model: nn.Module | Params, lr: float | None = None, **options: Any
) -> Optimizer:
    """An optimizer over a model's trainable parameters, in groups by their role.

    Args:
        name: of :func:`available`.
        model: whose parameters; or parameters or groups of them, which stay as they are, all with
            the method's own rule.
        lr: learning rate; default the method's.
        options: the method's and those of :func:`sharpen.optim.param_groups`.

    Examples:
        >>> optimizer = create("adamw", nn.Linear(2, 2), lr=1e-3, weight_decay=0.1)
        >>> [(g["role"], g["weight_decay"]) for g in optimizer.param_groups]
        [('matrix', 0.1), ('vector', 0.0)]
    """
    kind = find(name)
    if lr is not None:
        options["lr"] = lr
    if not isinstance(model, nn.Module):
        return kind(model, **options)
    grouping = ("no_decay", "overrides", "min_lowrank_dim", "conv_as_matrix")
    chosen = {key: options.pop(key) for key in grouping if key in options}
    chosen |= {
        key: options[key] for key in ("rank", "state_dtype", "min_quant_size") if key in options
    }
    return kind(param_groups(model, kind, **chosen), **options)


def parse_options(text: str) -> dict[str, Any]:
    """Options written as in transformers' ``optim_args``.

    Examples:
        >>> parse_options("rank=1,proj=random,scale=128.0,scale_front=True")
        {'rank': 1, 'proj': 'random', 'scale': 128.0, 'scale_front': True}
    """
    out: dict[str, Any] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ConfigError(f"{part!r} is no option; write name=value, separated by commas.")
        out[name.strip()] = _value(value.strip())
    return out


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
