"""The work of methods that learn from what an agent does in a world, turn by turn.

An iteration plays P tasks, K times each, all episodes side by side: the engine is asked for the
next turn of every episode that goes on. A trajectory becomes one sequence in which only the model's
own words are actions; what the world said is read and never learnt. Rewards are the world's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from sharpen.align.agents import Move, State, to_rollout
from sharpen.align.agents.collecting import Episode, play
from sharpen.align.agents.environment import MakeWorld
from sharpen.align.agents.policies import LMPolicy
from sharpen.align.batch import RolloutBatch
from sharpen.align.engines import Engine
from sharpen.align.loop.rollouts import Rollouts, RolloutWork
from sharpen.align.methods import Method
from sharpen.align.rewards import RewardPool
from sharpen.core.config import to_dict
from sharpen.core.errors import ConfigError, DataError
from sharpen.models.tokenizer import Tokenizer
from sharpen.serve.sampling import SamplingParams

__all__ = ["EnginePolicy", "EpisodeWork"]


class EnginePolicy:
    """An engine's model as an agent's policy; episodes draw the seeds of their turns.

    Args:
        engine: generates.
        tokenizer: of its model.
        sampling: of a turn; ``max_tokens`` of each.
        max_context: tokens of an episode, at most.
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, sampling: SamplingParams, max_context: int
    ) -> None:
        self._engine, self._tokenizer = engine, tokenizer
        self._sampling, self._max_context = sampling, max_context

    def __call__(self, states: Sequence[State]) -> list[Move]:
        """All episodes' next turns.

        Raises:
            DataError: an episode is longer than the context.
        """
        params = [
            replace(self._sampling, seed=int(state.random.integers(1 << 62))) for state in states
        ]

        def generate(prompts: list[Any]) -> Sequence[Any]:
            longest = max(map(len, prompts)) + self._sampling.max_tokens
            if longest > self._max_context:
                raise DataError(
                    f"an episode has {longest} tokens with its next turn; the context holds "
                    f"{self._max_context}. Take a world with fewer or shorter turns, shorter "
                    "instructions, or lower sampling.max_tokens."
                )
            return self._engine.generate(prompts, params)

        return list(LMPolicy(generate, self._tokenizer)(states))


class EpisodeWork(RolloutWork):
    """See the module.

    Args:
        make: makes a world.
        tasks: how many different tasks there are; their seeds are 0, 1, ...
        tokenizer: of the model.
        max_context: tokens of an episode, at most.
        method: an online one.
        options: its options.
        rollouts: how many episodes; ``prompts`` counts tasks.
        instructions: what the agent is told before its goal.
        engine: what generates.
        pool: not asked: the world tells rewards.
        dtype: in which products are computed.
        reference: ``start``, or a path.
        eos_ids: tokens that end a turn.
        on_sample: is shown the first episodes of each iteration.
        samples: how many.

    Raises:
        ConfigError: the method compares with greedy completions, or learns a batch behind.
    """

    def __init__(
        self,
        make: MakeWorld,
        tasks: int,
        tokenizer: Tokenizer,
        max_context: int,
        method: Method,
        options: Any,
        rollouts: Rollouts,
        *,
        engine: Engine,
        pool: RewardPool,
        instructions: str = "",
        dtype: torch.dtype = torch.float32,
        reference: str = "start",
        eos_ids: frozenset[int] = frozenset(),
        on_sample: Any = None,
        samples: int = 2,
    ) -> None:
        if method.greedy(options):
            raise ConfigError(
                f"{method.name} compares with greedy completions, which worlds have none of: give "
                "options.baseline=leave_one_out, or take rloo or grpo."
            )
        if rollouts.staleness:
            raise ConfigError(
                f"staleness={rollouts.staleness}: a world rewards at once, nothing is waited for. "
                "Leave it at 0."
            )
        super().__init__(
            [],
            method,
            options,
            rollouts,
            engine=engine,
            pool=pool,
            dtype=dtype,
            reference=reference,
            eos_ids=eos_ids,
            on_sample=on_sample,
            samples=samples,
        )
        self._make, self._tasks, self._instructions = make, tasks, instructions
        self._tokenizer, self._max_context = tokenizer, max_context
        self._policy = EnginePolicy(engine, tokenizer, rollouts.sampling, max_context)
        self._longest_completion = max_context

    def __len__(self) -> int:
        """Tasks."""
        return self._tasks

    @property
    def max_tokens(self) -> int:
        """Of an episode."""
        return self._max_context

    @property
    def fingerprint(self) -> Any:
        """Of world, method, episodes and reference."""
        return {
            "world": f"{self._make.__module__}.{getattr(self._make, '__qualname__', self._make)}",
            "tasks": self._tasks,
            "instructions": self._instructions,
            "method": self.method.name,
            "options": to_dict(self.options),
            "rollouts": to_dict(self.rollouts),
            "reference": self._reference_ref if self.method.reference(self.options) else None,
        }

    def _gather(self) -> tuple[RolloutBatch, list[int]]:
        """Episodes with log-probabilities and rewards; every one has one."""
        self._hand_over()
        indices = self._mine()
        start = time.perf_counter()
        draws = self.rollouts.generations
        episodes = [
            Episode(self._make, task, sample * draws + k, instructions=self._instructions)
            for sample, task in indices
            for k in range(draws)
        ]
        play(episodes, self._policy)
        played = [one.trajectory() for one in episodes]
        self._spend("generate", start)
        groups = torch.tensor([sample for sample, _ in indices for _ in range(draws)])
        batch = to_rollout(played, self._tokenizer, version=self._engine.version)
        batch = replace(batch, group_id=groups, logp_old=torch.zeros_like(batch.logp_old))
        batch = self._scored(batch, [])
        for one in played[: self._samples]:
            words = "\n".join(f"{step.observation}\n> {step.text}" for step in one.steps)
            self._show(one.goal, words, one.reward, self._engine.version)
        wins = sum(one.success for one in played)
        turns = sum(len(one.steps) for one in played)
        self._metrics["success"] = (float(wins), float(len(played)))
        self._metrics["turns"] = (float(turns), float(len(played)))
        return batch, list(range(len(batch)))
