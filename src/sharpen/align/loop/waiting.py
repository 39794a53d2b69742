"""Completions between their generation and their rewards, and what the rewards make of them.

While training learns some batches behind, a checkpoint falls between the two: the completions are
written with it (tokens, log-probabilities, values, versions, as they are), and their rewards are
asked for again by the run that goes on. So a checkpoint waits for nobody, and a reward that gives
the same for the same gives the same bits in the end.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sharpen.align.batch import RolloutBatch
from sharpen.align.kl import k1, k3
from sharpen.align.losses.base import Metrics
from sharpen.align.rewards import Pending, RewardPool, Rewards
from sharpen.align.rows.tokens import TokenRow
from sharpen.core.errors import ExecutionError

__all__ = ["Made", "Waiting", "idle", "measures", "no_rewards", "rewarded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Completions of P prompts, K of each, without rewards."""

    batch: RolloutBatch
    """[P K] with log-probabilities; rewards are 0."""

    texts: list[str]
    """[P K] what rewards judge."""

    greedy: list[str]
    """[P] what it is compared with, or nothing."""

    @property
    def samples(self) -> list[int]:
        """[P] the prompts' numbers in the stream."""
        return list(dict.fromkeys(self.batch.group_id.tolist()))

    def share(self, first: int, last: int) -> Made:
        """The completions of prompts ``first`` to before ``last``."""
        each = len(self.texts) // len(self.samples)
        rows = range(first * each, last * each)
        return Made(
            batch=self.batch.select(rows),
            texts=[self.texts[row] for row in rows],
            greedy=self.greedy[first:last],
        )

    @classmethod
    def merge(cls, parts: Sequence[Made]) -> Made:
        """Those of all ranks, in the order of the stream."""
        return cls(
            batch=RolloutBatch.merge([part.batch for part in parts]),
            texts=[text for part in parts for text in part.texts],
            greedy=[text for part in parts for text in part.greedy],
        )

    def state_dict(self) -> dict[str, Any]:
        """As plain data, tensors as the text of a safetensors file; rows' ``meta`` is left out."""
        values = {one.name: getattr(self.batch, one.name) for one in fields(self.batch)}
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in values.items()
            if isinstance(value, Tensor)
        }
        return {
            "tensors": base64.b64encode(safetensors.torch.save(tensors)).decode("ascii"),
            "finish_reason": self.batch.finish_reason,
            "texts": self.texts,
            "greedy": self.greedy,
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Made:
        """From :meth:`state_dict`; ``meta`` is empty."""
        tensors = safetensors.torch.load(base64.b64decode(state["tensors"]))
        reasons = list(state["finish_reason"])
        batch = RolloutBatch(finish_reason=reasons, meta=[{} for _ in reasons], **tensors)
        return cls(batch=batch, texts=list(state["texts"]), greedy=list(state["greedy"]))


@dataclass(frozen=True, slots=True)
class Waiting:
    """Completions whose rewards are being computed."""

    made: Made
    rewards: Pending
    baseline: Pending | None

    @classmethod
    def ask(cls, pool: RewardPool, made: Made, prompts: Sequence[TokenRow]) -> Waiting:
        """Begin to reward completions.

        Args:
            pool: computes rewards.
            made: the completions.
            prompts: [P] the rows that they answer.
        """
        each = len(made.texts) // len(prompts)

        def begin(texts: list[str], count: int) -> Pending:
            rows = [row for row in prompts for _ in range(count)]
            asked = [_plain(row.row.prompt) for row in rows]
            return pool.submit(asked, texts, [dict(row.row.meta) for row in rows])

        return cls(made, begin(made.texts, each), begin(made.greedy, 1) if made.greedy else None)


def rewarded(
    batch: RolloutBatch, found: Rewards, baseline: Rewards | None
) -> tuple[RolloutBatch, list[int]]:
    """A batch with rewards, and its rows that have one.

    Args:
        batch: [P K] completions.
        found: [P K] their rewards; 0 stands where there is none.
        baseline: [P] those of the greedy completions; a completion needs this one, too.
    """
    compared: list[float | None] | None = None
    if baseline is not None:
        each = len(found.values) // len(baseline.values)
        compared = [value for value in baseline.values for _ in range(each)]
    kept = [
        row
        for row, value in enumerate(found.values)
        if value is not None and (compared is None or compared[row] is not None)
    ]
    batch = replace(batch, reward=_numbers(found.values, batch))
    if compared is not None:
        batch = replace(batch, baseline_reward=_numbers(compared, batch))
    return batch, kept


def idle(batch: RolloutBatch) -> RolloutBatch:
    """A row without actions: what a rank steps on that has nothing to learn, while others have."""
    row = batch.select([0])
    nothing = torch.zeros_like(row.logp_old)
    return replace(
        row, action_mask=torch.zeros_like(row.action_mask), advantage=nothing, returns=nothing
    )


def no_rewards(reasons: Sequence[str], error: str) -> ExecutionError:
    """What to raise where no completion of any rank has a reward.

    Args:
        reasons: of all completions.
        error: what was said of the last call that failed.
    """
    counted = Counter(reason for reason in reasons if reason)
    told = ", ".join(f"{reason} ({count})" for reason, count in counted.items())
    last = (error.strip().splitlines() or [""])[-1]
    return ExecutionError(
        f"none of the {len(reasons)} completions of this iteration got a reward: "
        f"{told or 'the greedy ones got none'}.{' It said: ' if last else ''}{last} A "
        "reward gives a finite number, or None, for each completion."
    )


def measures(batch: RolloutBatch) -> Metrics:
    """What people look for when a run goes wrong; of no rows, weights are 0."""
    mask, reward = batch.action_mask, batch.reward.double()
    lengths = batch.completion_lengths
    rows, tokens = float(len(batch)), float(mask.sum())
    spread = float(reward.std(unbiased=False)) if rows else 0.0
    found: Metrics = {
        "reward": (float(reward.sum()), rows),
        "reward_std": (spread * rows, rows),
        "length": (float(lengths.sum()), rows),
        "length_max": (float(lengths.max()), 1.0) if rows else (0.0, 0.0),
        "truncated": (float(batch.truncated.sum()), rows),
    }
    if batch.baseline_reward is not None:
        found["reward_greedy"] = (float(batch.baseline_reward.sum()), rows)
    if batch.ref_logp is not None:
        for name, estimate in (("kl_k1", k1), ("kl_k3", k3)):
            values = estimate(batch.logp_old, batch.ref_logp).masked_fill(~mask, 0.0)
            found[name] = (float(values.sum()), tokens)
    return found


def _numbers(values: Sequence[float | None], batch: RolloutBatch) -> Tensor:
    known = [0.0 if value is None else value for value in values]
    return torch.tensor(known, device=batch.input_ids.device)


def _plain(prompt: Any) -> Any:
    """A prompt as rewards get it: text, or a list of messages."""
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]
