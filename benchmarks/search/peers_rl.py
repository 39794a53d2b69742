"""stable-baselines3 in its own interpreter: agents whose environment is the other end of a pipe.

The first line on stdin says what to run. For a design task each line out is then a design and each
line in its reward, and the last line out has the seconds that the agent itself took; for a task in
an environment the one line out has its mean return and steps a CPU second. Imports nothing of ours.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import gymnasium
import numpy as np
import torch


class Pipe(gymnasium.Env):  # type: ignore[type-arg]
    """One design an episode; the observation is the last reward."""

    def __init__(self, levels: list[int], by_level: bool, reward: Any) -> None:
        box = gymnasium.spaces.Box
        self.observation_space = box(-np.inf, np.inf, shape=(1,), dtype=np.float32)
        self.action_space = (
            gymnasium.spaces.MultiDiscrete(levels)
            if by_level
            else box(0.0, 1.0, shape=(len(levels),), dtype=np.float32)
        )
        self._reward = reward
        self._seen = np.zeros(1, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin a design; nothing of the last one is left but its reward."""
        super().reset(seed=seed)
        return self._seen.copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Ask for the reward of a design."""
        reward = self._reward([float(part) for part in action])
        self._seen[0] = reward
        return self._seen.copy(), reward, True, False, {}


def train(start: dict[str, Any]) -> None:
    """Train in an environment and measure."""
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    options = dict(start["options"])
    env = make_vec_env(start["env"], n_envs=options.pop("num_envs", 1), seed=start["seed"])
    if "hidden" in options:
        options["policy_kwargs"] = {"net_arch": options.pop("hidden")}
    kind: Any = PPO if start["method"] == "sb3-ppo" else SAC
    agent = kind("MlpPolicy", env, seed=start["seed"], device="cpu", **options)
    begin = time.process_time()
    agent.learn(start["steps"])
    seconds = time.process_time() - begin
    fresh = make_vec_env(start["env"], n_envs=1, seed=10_000)
    mean, _ = evaluate_policy(agent, fresh, n_eval_episodes=start["episodes"])
    print(json.dumps({"return": float(mean), "steps_a_second": start["steps"] / seconds}))


def design(start: dict[str, Any]) -> None:
    """Act in the environment that is the other end of the pipe."""
    from stable_baselines3 import PPO, SAC

    waited = 0.0

    def reward(action: list[float]) -> float:
        nonlocal waited
        begin = time.perf_counter()
        print(json.dumps({"action": action}), flush=True)
        found = float(sys.stdin.readline())
        waited += time.perf_counter() - begin
        return found

    is_ppo = start["method"] == "sb3-ppo"
    env = Pipe(start["levels"], is_ppo, reward)
    begin = time.perf_counter()
    given = {"seed": start["seed"], "device": "cpu"}
    agent: Any = PPO("MlpPolicy", env, n_steps=64, **given) if is_ppo else SAC(
        "MlpPolicy", env, **given
    )  # fmt: skip
    agent.learn(start["evaluations"])
    print(json.dumps({"seconds": time.perf_counter() - begin - waited}), flush=True)


def main() -> None:
    torch.set_num_threads(1)
    start = json.loads(sys.stdin.readline())
    (train if "env" in start else design)(start)


if __name__ == "__main__":
    main()
