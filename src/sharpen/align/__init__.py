"""Learning from feedback: preferences, labels, rankings, rewards; names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.align.aligned import Aligned, align
    from sharpen.align.batch import LabelBatch, PairBatch, RankBatch, RolloutBatch, RowBatch
    from sharpen.align.config import AlignConfig, RewardConfig, SamplingConfig
    from sharpen.align.engines import Engine, Generated
    from sharpen.align.loop.episodes import EpisodeWork
    from sharpen.align.loop.rollouts import Rollouts, RolloutWork
    from sharpen.align.loop.rows import RowWork
    from sharpen.align.methods import METHODS, Method, find_method
    from sharpen.align.rewards import RewardPool, find_reward, reward
    from sharpen.align.score_model import load_score_model

_MODULES = {
    "aligned": ["Aligned", "align"],
    "batch": ["LabelBatch", "PairBatch", "RankBatch", "RolloutBatch", "RowBatch"],
    "config": ["AlignConfig", "RewardConfig", "SamplingConfig"],
    "engines": ["Engine", "Generated"],
    "loop.episodes": ["EpisodeWork"],
    "loop.rollouts": ["RolloutWork", "Rollouts"],
    "loop.rows": ["RowWork"],
    "methods": ["METHODS", "Method", "find_method"],
    "rewards": ["RewardPool", "find_reward", "reward"],
    "score_model": ["load_score_model"],
}

__all__ = [
    "METHODS",
    "AlignConfig",
    "Aligned",
    "Engine",
    "EpisodeWork",
    "Generated",
    "LabelBatch",
    "Method",
    "PairBatch",
    "RankBatch",
    "RewardConfig",
    "RewardPool",
    "RolloutBatch",
    "RolloutWork",
    "Rollouts",
    "RowBatch",
    "RowWork",
    "SamplingConfig",
    "align",
    "find_method",
    "find_reward",
    "load_score_model",
    "reward",
]

__getattr__ = exports(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
