"""Options of every optimizer, and the checks of a parameter group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from sharpen.core.errors import ConfigError, did_you_mean

__all__ = ["COMMON", "Common", "check_group", "check_names"]


class Common(TypedDict, total=False):
    """Options of every optimizer; also of single parameter groups."""

    maximize: bool
    """Climb."""

    impl: Literal["auto", "eager", "foreach", "fused"]
    """``auto`` takes native code where it can, else lists of tensors on a GPU, else one by one."""

    state_dtype: Literal["fp32", "bf16", "q8", "q4"]
    """How states are kept."""

    block_size: int
    """Quantized values that share a scale."""

    min_quant_size: int
    """Smaller states stay in float32."""

    layout: Literal["flat", "row"]
    """Blocks over the flat tensor, or over each row; by row in sharded parameters."""

    code_rounding: Literal["nearest", "lut16"]
    """To the nearest code, or by bitsandbytes' 65,536 cells."""

    v_floor: bool
    """An unsigned code 0 reads as a little more than 0."""

    stochastic_round: bool | None
    """Round bfloat16 weights at random; None: unless there are master weights."""

    master_weights: bool
    """Keep float32 copies of half-precision weights."""

    update_rms_clip: float | None
    """Largest root mean square of a step, in learning rates."""

    cautious: bool
    """No step against the gradient."""

    decoupled_wd: bool
    """Decay weights, instead of adding to gradients."""

    wd_order: Literal["before", "after"]
    """Decay before or after the step."""

    skip_nonfinite: bool
    """Leave what has NaN or infinite gradients as it was."""

    seed: int
    """Of all that is random."""


COMMON: dict[str, Any] = {
    "maximize": False,
    "impl": "auto",
    "state_dtype": "fp32",
    "block_size": 256,
    "min_quant_size": 4096,
    "layout": "flat",
    "code_rounding": "nearest",
    "v_floor": True,
    "stochastic_round": None,
    "master_weights": False,
    "update_rms_clip": None,
    "cautious": False,
    "decoupled_wd": True,
    "wd_order": "before",
    "skip_nonfinite": True,
    "seed": 0,
}
"""The defaults."""

_CHOICES = {
    "impl": ("auto", "eager", "foreach", "fused"),
    "state_dtype": ("fp32", "bf16", "q8", "q4"),
    "layout": ("flat", "row"),
    "code_rounding": ("nearest", "lut16"),
    "wd_order": ("before", "after"),
}
_NOT_NEGATIVE = ("eps", "weight_decay", "momentum")


def check_names(kind: str, given: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Check that options given by name are known.

    Raises:
        ConfigError: one is not; the message has the nearest.
    """
    for name in given:
        if name not in COMMON:
            hint = did_you_mean(name, [*COMMON, *own])
            raise ConfigError(f"{kind} has no option {name}.{hint}")


def check_group(kind: str, rules: Mapping[str, Any], group: Mapping[str, Any]) -> None:
    """Check the values of a parameter group.

    Raises:
        ConfigError: one is out of its range; the message has the name, value and range.
    """
    if group["rule"] not in rules:
        raise ConfigError(
            f"{kind} has no rule {group['rule']!r}; choose one of {', '.join(rules)}."
        )
    for name, choices in _CHOICES.items():
        if group[name] not in choices:
            raise ConfigError(f"{name}={group[name]!r} must be one of {', '.join(choices)}.")
    lr = group["lr"]
    if isinstance(lr, str) or not 0 <= float(lr) < math.inf:
        raise ConfigError(f"lr={lr} must be a number, 0 or more, and finite.")
    if not all(0 <= float(beta) < 1 for beta in group.get("betas", ())):
        raise ConfigError(f"betas={group['betas']} must be 0 or more and below 1.")
    for name in _NOT_NEGATIVE:
        if name in group and not 0 <= float(group[name]) < math.inf:
            raise ConfigError(f"{name}={group[name]} must be 0 or more, and finite.")
    if group["block_size"] < 1:
        raise ConfigError(f"block_size={group['block_size']} must be at least 1.")
    clip = group["update_rms_clip"]
    if clip is not None and not clip > 0:
        raise ConfigError(f"update_rms_clip={clip} must be above 0, or None.")
