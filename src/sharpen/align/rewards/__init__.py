"""Rewards: functions by name, and the pool that computes them beside the training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.align.rewards.candidates import CandidateRows, best_rows, ranked_rows
    from sharpen.align.rewards.pending import Pending, Rewards, RewardStats
    from sharpen.align.rewards.pool import RewardPool
    from sharpen.align.rewards.registry import (
        Meta,
        RewardFunction,
        find_reward,
        reward,
        reward_names,
    )
    from sharpen.align.rewards.scripts import pie_rows

_MODULES = {
    "candidates": ["CandidateRows", "best_rows", "ranked_rows"],
    "pending": ["Pending", "RewardStats", "Rewards"],
    "pool": ["RewardPool"],
    "registry": ["Meta", "RewardFunction", "find_reward", "reward", "reward_names"],
    "scripts": ["pie_rows"],
}

__all__ = [
    "CandidateRows",
    "Meta",
    "Pending",
    "RewardFunction",
    "RewardPool",
    "RewardStats",
    "Rewards",
    "best_rows",
    "find_reward",
    "pie_rows",
    "ranked_rows",
    "reward",
    "reward_names",
]

__getattr__ = exports(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
