"""Rewards: functions by name, and the pool that computes them beside the training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.align.rewards.pool import Pending, RewardPool, Rewards, RewardStats
    from sharpen.align.rewards.registry import (
        Meta,
        RewardFunction,
        find_reward,
        reward,
        reward_names,
    )

_MODULES = {
    "pool": ["Pending", "RewardPool", "RewardStats", "Rewards"],
    "registry": ["Meta", "RewardFunction", "find_reward", "reward", "reward_names"],
}

__all__ = [
    "Meta",
    "Pending",
    "RewardFunction",
    "RewardPool",
    "RewardStats",
    "Rewards",
    "find_reward",
    "reward",
    "reward_names",
]

__getattr__ = exports(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
