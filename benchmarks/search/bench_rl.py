"""Agents in environments beside stable-baselines3: returns and steps a CPU second, equal steps.

CartPole-v1 with PPO and Pendulum-v1 with SAC; the mean return of 100 new episodes by the likeliest
action. stable-baselines3 runs twice: with its own defaults, and (`sb3 alike`) with our numbers of
copies, steps, epochs, minibatches and layers. Both sides alternate within each seed, with one
thread; seconds are of the processor, evaluation not included.

stable-baselines3 runs in an interpreter of its own, named by BENCH_PEERS_PYTHON; without it only
ours runs.

    BENCH_PEERS_PYTHON=/path/to/python python -m benchmarks.search.bench_rl [--seeds 3]
        [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from benchmarks.common import OURS, PEER, RESULTS, save

from sharpen.search.rl.agents import evaluate_agent, train_agent
from sharpen.search.rl.ppo_agent import PPOConfig
from sharpen.search.rl.sac_agent import SACConfig

TASKS = {"CartPole-v1": ("ppo", 100_000), "Pendulum-v1": ("sac", 6_000)}
EPISODES = 100


def ours(env: str, algorithm: Any, steps: int, seed: int) -> dict[str, float]:
    """Mean return and steps a CPU second."""
    begin = time.process_time()
    agent = train_agent(env, algorithm, steps=steps, seed=seed)
    seconds = time.process_time() - begin
    returns = evaluate_agent(agent, env, episodes=EPISODES)
    return {"return": float(returns.mean()), "steps_a_second": steps / seconds}


def peer(env: str, algorithm: str, steps: int, seed: int, alike: bool) -> dict[str, float]:
    """The same of stable-baselines3."""
    options: dict[str, Any] = {}
    if alike and algorithm == "ppo":
        c = PPOConfig()
        options = {
            "num_envs": c.num_envs,
            "n_steps": c.rollout,
            "batch_size": c.minibatch,
            "n_epochs": c.epochs,
            "ent_coef": c.entropy,
            "hidden": list(c.hidden),
        }
    elif alike:
        s = SACConfig()
        options = {
            "learning_rate": s.learning_rate,
            "batch_size": s.batch,
            "learning_starts": s.warmup,
            "hidden": list(s.hidden),
        }
    given = {
        "env": env,
        "method": f"sb3-{algorithm}",
        "steps": steps,
        "seed": seed,
        "episodes": EPISODES,
        "options": options,
    }
    process = subprocess.run(
        [os.environ["BENCH_PEERS_PYTHON"], str(Path(__file__).with_name("peers_rl.py"))],
        env={**os.environ, "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        input=json.dumps(given) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return found


def draw(figure: Any, found: dict[str, Any]) -> None:
    """Steps a second of each contender."""
    axes = figure.subplots(1, len(found))
    for axis, (env, rows) in zip(axes, found.items(), strict=True):
        names = list(rows)
        values = [rows[name]["steps_a_second"] for name in names]
        axis.bar(names, values, color=[OURS if n == "sharpen" else PEER for n in names])
        axis.set(title=env, ylabel="environment steps a CPU second")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--json", type=Path)
    options.add_argument("--plot", type=Path)
    options.add_argument("--quick", action="store_true", help="a check of under a minute")
    args = options.parse_args()
    args.name = "search_rl"
    if not args.quick:
        args.json = args.json or RESULTS / "search_rl.json"
        args.plot = args.plot or RESULTS / "search_rl.png"
    torch.set_num_threads(1)
    seeds = 1 if args.quick else args.seeds
    contenders = ["sharpen"]
    if "BENCH_PEERS_PYTHON" in os.environ:
        contenders += ["sb3", "sb3 alike"]
    found: dict[str, Any] = {}
    for env, (algorithm, whole) in TASKS.items():
        steps = whole // 20 if args.quick else whole
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
        for seed in range(seeds):
            for name in contenders:
                if name == "sharpen":
                    run = ours(env, algorithm, steps, seed)
                else:
                    run = peer(env, algorithm, steps, seed, name == "sb3 alike")
                runs[name].append(run)
                print(env, name, seed, run, flush=True)
        found[env] = {
            name: {
                "returns": [run["return"] for run in rows],
                "return": statistics.mean(run["return"] for run in rows),
                "steps_a_second": statistics.median(run["steps_a_second"] for run in rows),
            }
            for name, rows in runs.items()
        }
    config = {"tasks": TASKS, "seeds": seeds, "episodes": EPISODES, "peer": "stable-baselines3"}
    save(args, found, config=config, plot=lambda figure: draw(figure, found))


if __name__ == "__main__":
    main()
