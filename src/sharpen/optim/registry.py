"""Optimizers by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from torch import nn

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.optim.groups import param_groups

if TYPE_CHECKING:
    from sharpen.optim.base import Optimizer

__all__ = ["available", "create", "find", "parse_options"]

# Name: module and class.
_CLASSES = {
    "adamw": "adamw.AdamW",
    "adamw_8bit": "adamw.AdamW8bit",
    "adamw_4bit": "adamw.AdamW4bit",
    "apollo": "apollo.Apollo",
    "apollo_mini": "apollo.ApolloMini",
    "fira": "fira.Fira",
    "galore": "galore.GaLore",
    "galore_8bit": "galore.GaLore8bit",
    "muon": "muon.Muon",
    "soap": "soap.Soap",
    "cosmos": "cosmos.Cosmos",
}
# Names that transformers' trainer has, and short ones.
_ALIASES = {
    "adamw8": "adamw_8bit",
    "adamw8bit": "adamw_8bit",
    "adamw4bit": "adamw_4bit",
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_torch_4bit": "adamw_4bit",
    "adamw_torch_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "apollo_adamw": "apollo",
    "galore_adamw": "galore",
    "galore_adamw_8bit": "galore_8bit",
}


def available() -> list[str]:
    """Names that :func:`create` takes."""
    return sorted(_CLASSES)


def find(name: str) -> type[Optimizer]:
    """The class of a name; ``-`` and ``_`` are the same.

    Raises:
        ConfigError: there is none; the message has the nearest.

    Examples:
        >>> find("adamw-8bit").__name__
        'AdamW8bit'
    """
    key = name.lower().replace("-", "_")
    key = _ALIASES.get(key, key)
    if key not in _CLASSES:
        hint = did_you_mean(key, [*_CLASSES, *_ALIASES])
        raise ConfigError(f"there is no optimizer {name!r}.{hint} Known: {', '.join(available())}.")
    module, _, attribute = _CLASSES[key].rpartition(".")
    found: type[Optimizer] = getattr(importlib.import_module(f"sharpen.optim.{module}"), attribute)
    return found


def create(name: str, model: nn.Module, lr: float | None = None, **options: Any) -> Optimizer:
    """An optimizer over a model's trainable parameters, in groups by their role.

    Args:
        name: of :func:`available`.
        model: whose parameters.
        lr: learning rate; default the method's.
        options: the method's and those of :func:`sharpen.optim.param_groups`.

    Examples:
        >>> optimizer = create("adamw", nn.Linear(2, 2), lr=1e-3, weight_decay=0.1)
        >>> [(g["role"], g["weight_decay"]) for g in optimizer.param_groups]
        [('matrix', 0.1), ('vector', 0.0)]
    """
    kind = find(name)
    grouping = ("no_decay", "overrides", "min_lowrank_dim", "conv_as_matrix")
    chosen = {key: options.pop(key) for key in grouping if key in options}
    chosen |= {
        key: options[key] for key in ("rank", "state_dtype", "min_quant_size") if key in options
    }
    groups = param_groups(model, kind, **chosen)
    if lr is not None:
        options["lr"] = lr
    return kind(groups, **options)


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
