"""Reinforcement learning: optimizers that learn a policy, and agents for environments."""

from sharpen.core.lazy import exports

__all__ = ["PPO", "SAC", "Agent", "Reinforce", "load_agent", "train_agent"]

__getattr__ = exports(
    "sharpen.search.rl",
    {
        "PPO": "sharpen.search.rl.ppo",
        "SAC": "sharpen.search.rl.sac",
        "Agent": "sharpen.search.rl.agents",
        "Reinforce": "sharpen.search.rl.reinforce",
        "load_agent": "sharpen.search.rl.agents",
        "train_agent": "sharpen.search.rl.agents",
    },
)
