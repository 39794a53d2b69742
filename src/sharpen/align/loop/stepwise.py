"""The work of methods that learn, step by step, which action is better: pairs found in a world.

A round plays each of P tasks once, tries other actions at some of its steps, K episodes of each to
the end (:func:`~sharpen.align.agents.collect`), and makes pairs of what did better and worse in one
place (:func:`~sharpen.align.agents.step_pairs`). A pair's prompt is all that came before, its
completions are the tokens that the model drew there: only the action's tokens are learnt from. The
next round is played with the new weights; the reference stays the start.

After Setlur et al., *RL on incorrect synthetic data scales the efficiency of LLM math reasoning by
eight-fold*, NeurIPS 2024 (arXiv 2406.14532): per-step preferences by what is won from there on,
learnt by DPO. Differs from the paper: pairs are of the policy that learns, anew in each round.

Each rank plays its share of a round's tasks. Pairs are exchanged and every step's are dealt out
anew, in the order of one process: weights are those of one process, whoever found the pairs.

Of each round are told: ``success``, ``reward`` and ``turns`` of its tasks before it learns,
``success_after`` of the same tasks with the same draws after, ``pairs`` and ``episodes``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sharpen.align.agents import Trajectory, collect, pair_tokens, step_pairs
from sharpen.align.batch import PairBatch
from sharpen.align.config import BranchConfig
from sharpen.align.loop.episodes import EpisodeWork
from sharpen.align.loop.objective import counts_of_sums, sums_of_counts
from sharpen.align.losses.base import Counts
from sharpen.align.methods import Scale
from sharpen.align.rows.tokens import TokenRow
from sharpen.core.config import digest, to_dict
from sharpen.core.errors import DataError
from sharpen.models.decoder import DecoderLM
from sharpen.train import StepWork

__all__ = ["StepwiseWork"]


class StepwiseWork(EpisodeWork):
    """See the module.

    Args:
        given: as for :class:`~sharpen.align.loop.episodes.EpisodeWork`, with a method that learns
            preferences; ``rollouts.generations`` counts episodes of each branch.
        branches: what else is tried, and which pairs count.
        options: as for :class:`~sharpen.align.loop.episodes.EpisodeWork`.
    """

    def __init__(self, *given: Any, branches: BranchConfig, **options: Any) -> None:
        super().__init__(*given, **options)
        self._branches = branches
        self._played: list[int] | None = None
        """This rank's tasks of the round that is being learnt from."""

    @property
    def fingerprint(self) -> Any:
        """Of world, method, episodes, reference, and of how pairs are found."""
        return {**super().fingerprint, "branches": to_dict(self._branches)}

    def scale(self, labels: float, counts: Sequence[float]) -> Scale:
        """Counts of the global batch."""
        return counts_of_sums(counts, self._longest_completion)

    def metrics(self) -> Mapping[str, tuple[float, float]]:
        """Of the losses, and of the round; at its end its tasks are played again."""
        if self._played is not None and not self._queue:
            after = self._again(self._played)
            wins = sum(one.success for one in after)
            self._metrics["success_after"] = (float(wins), float(len(after)))
            self._played = None
        return super().metrics()

    def _iterate(self) -> None:
        self._hand_over()
        self._round = self._iteration
        tasks = self._share_of(list(dict.fromkeys(self._order.take(self.rollouts.prompts))))
        start = time.perf_counter()
        found = collect(
            self._make,
            self._policy,
            self.rollouts.generations,
            tasks=tasks,
            explore="branch",
            width=self._branches.width,
            points=self._branches.points,
            seed=self._round,
            instructions=self._instructions,
        )
        self._spend("generate", start)
        pairs = step_pairs(
            found, margin=self._branches.margin, min_visits=self._branches.min_visits
        )
        firsts = {one.task: one for one in reversed(found)}  # of each task, before its branches
        roots = [firsts[task] for task in tasks]
        rows, sums = self._exchange(pair_tokens(pairs, self._tokenizer))
        self._tell(roots, found, len(pairs))
        if not rows and not self._round:
            raise self._no_pairs(len(roots), found)
        self._played = tasks
        self._queue += self._steps(self._batch(rows, sums) if rows else None)

    def _share_of(self, some: Sequence[Any]) -> list[Any]:
        """This rank's part of what all ranks have alike; parts differ by one at most."""
        parallel = self._trainer.parallel
        rank, ranks = parallel.data_rank, parallel.layout.data_ranks
        return list(some[len(some) * rank // ranks : len(some) * (rank + 1) // ranks])

    def _again(self, tasks: Sequence[int]) -> list[Trajectory]:
        """The round's tasks with the same draws and the new weights; no time of the step's own."""
        model, start = self._trainer.model, time.perf_counter()
        assert isinstance(model, DecoderLM)
        self._engine.update_weights(model, self._engine.version + 1)
        found = collect(
            self._make,
            self._policy,
            tasks=tasks,
            seed=self._round,
            instructions=self._instructions,
        )
        self._seconds["generate"] += time.perf_counter() - start
        return found

    def _tell(
        self, roots: Sequence[Trajectory], found: Sequence[Trajectory], num_pairs: int
    ) -> None:
        count, share = float(len(roots)), 1.0 / self._trainer.parallel.world_size
        self._metrics |= {
            "success": (float(sum(one.success for one in roots)), count),
            "reward": (sum((one.reward for one in roots), 0.0), count),
            "turns": (float(sum(len(one.steps) for one in roots)), count),
            "pairs": (float(num_pairs), share),
            "episodes": (float(len(found)), share),
        }
        for one in roots[: self._samples]:
            words = "\n".join(f"{step.observation}\n> {step.text}" for step in one.steps)
            self._show(one.goal, words, one.reward, self._engine.version)

    def _no_pairs(self, num_roots: int, found: Sequence[Trajectory]) -> DataError:
        """What to raise, on every rank, where no rank found a pair."""
        mine = num_roots, [(one.reward, one.success) for one in found]
        parts = self._trainer.parallel.collect(mine)
        tasks = sum(count for count, _ in parts)
        rewards = [reward for _, some in parts for reward, _ in some]
        wins = sum(success for _, some in parts for _, success in some)
        branches = len(rewards) - tasks
        told = (
            f"the first round has no pair of steps to learn from: {tasks} tasks, {branches} "
            f"episodes branch off, {wins} of {len(rewards)} succeed, rewards from {min(rewards):g} "
            f"to {max(rewards):g}."
        )
        if not branches:
            return DataError(
                f"{told} The agent draws the same action wherever it is, or every episode ends "
                "before it acts: raise sampling.temperature, or begin with a model that hesitates."
            )
        if min(rewards) == max(rewards):
            return DataError(
                f"{told} All earn the same, so that no step is better than another: raise batch "
                "(tasks a round) or generations, take an easier world, or begin with a model that "
                "succeeds at times (sharpen align sft on trajectories)."
            )
        return DataError(
            f"{told} Raise batch (tasks a round) or generations (episodes of a branch), or lower "
            f"branches.margin={self._branches.margin:g} or branches.min_visits="
            f"{self._branches.min_visits}."
        )

    def _exchange(self, mine: Sequence[TokenRow]) -> tuple[list[TokenRow], list[Tensor]]:
        """All ranks' pairs in the order of tasks, and the reference's [2] of each, if it is asked.

        The reference is asked by the rank that found them.
        """
        start = time.perf_counter()
        sums: list[Tensor] = []
        if mine and self._reference is not None:
            batch = self._batch(mine, [])
            for part in batch.split(self._parts(len(batch))):
                sums += self._reference.logp(part).sum(1).view(2, -1).T.cpu()
        self._spend("score", start)
        parts = self._trainer.parallel.collect((list(mine), sums))
        rows = [row for some, _ in parts for row in some]
        return rows, [one for _, some in parts for one in some]

    def _batch(self, rows: Sequence[TokenRow], sums: Sequence[Tensor]) -> PairBatch:
        assert self.method.build is not None
        batch = self.method.build(rows, self._pad_id)
        assert isinstance(batch, PairBatch)
        if sums:
            batch = replace(batch, ref_logp=torch.stack(list(sums)).T.reshape(-1))
        batch = batch.to(self._trainer.device)
        batch.validate(self._trainer.model.spec.vocab_size)  # type: ignore[union-attr,arg-type]
        return batch

    def _parts(self, pairs: int) -> int:
        return -(-pairs // self._trainer.config.micro_batch)

    def _steps(self, batch: PairBatch | None) -> list[StepWork]:
        """The optimizer steps of a round; those without a pair are skipped.

        Where there are fewer pairs than ranks, each rank learns from all of them, and as many times
        they are counted: no gradient is another, and no rank is without a micro-batch.
        """
        ranks = self._trainer.parallel.layout.data_ranks
        steps: list[StepWork] = []
        count = 0 if batch is None else len(batch)
        for epoch in range(self.rollouts.epochs):
            name = {"seed": self._trainer.seed, "round": self._round, "epoch": epoch}
            generator = torch.Generator().manual_seed(int(digest(name)[:15], 16))
            order = torch.randperm(count, generator=generator)
            for rows in order.tensor_split(self.rollouts.minibatches):
                if batch is None or not len(rows):
                    steps.append(StepWork([], labels=0, tokens=0, counts=_NOTHING))
                    continue
                is_copied = len(rows) < ranks
                mine = rows.tolist() if is_copied else self._share_of(rows.tolist())
                part = batch.select(mine)
                counts = Counts.of(part, max_completion_length=self._longest_completion)
                steps.append(
                    StepWork(
                        part.split(self._parts(len(part))),
                        labels=counts.tokens / (ranks if is_copied else 1),
                        tokens=int(part.attention_mask.sum()),
                        counts=sums_of_counts(counts),
                    )
                )
        return steps


_NOTHING = (0.0,) * 9
"""Sums of counts of no pair, as of :func:`~sharpen.align.loop.objective.sums_of_counts`."""
