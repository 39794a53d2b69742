"""The work of methods that learn from their own completions.

One iteration, which serves one or several optimizer steps::

    hand over  the policy's weights go to the engine
    generate   K completions of each of P prompts, and a greedy one where the method compares
    reward     begun for all at once, in processes beside; meanwhile
    score      log-probabilities of policy and reference, and values, in one pass each
    estimate   advantages, by the method
    learn      E passes over the completions in M mini-batches, each an optimizer step

Where one step is all that is made of an iteration, and no reference and no critic are asked, the
policy that learns is the one that generated: scoring is left out.

Seeds of completions come from the run's seed, the prompt's place in the stream and the completion's
number, so that a run that goes on from a checkpoint generates what it would have generated. A
checkpoint is written between iterations only.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from sharpen.align.advantages import Moments
from sharpen.align.batch import RolloutBatch
from sharpen.align.engines import Engine, Generated
from sharpen.align.kl import k1, k3
from sharpen.align.loop.objective import Objective, counts_of_sums, sums_of_counts
from sharpen.align.loop.reference import Reference, load_reference
from sharpen.align.losses.base import Counts, Metrics, add_metrics
from sharpen.align.methods import Estimation, Method, Policy, Scale
from sharpen.align.rewards import RewardPool, Rewards
from sharpen.align.rows.batches import pad_rows
from sharpen.align.rows.tokens import TokenRow
from sharpen.align.scoring import values_of
from sharpen.core.config import digest, to_dict
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.data.sample_order import SampleOrder
from sharpen.models.decoder import DecoderLM
from sharpen.serve.sampling import SamplingParams
from sharpen.train import StepWork, Trainer

__all__ = ["RolloutWork", "Rollouts", "Sample"]

_log = logging.getLogger(__name__)
_CHECKED = 2  # completions an iteration whose log-probabilities engine and trainer compare
_MISMATCH = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """How many completions, and how they are used."""

    prompts: int
    """P: prompts of an iteration, over all ranks."""

    generations: int
    """K: completions of each."""

    epochs: int = 1
    """E: passes over them."""

    minibatches: int = 1
    """M: optimizer steps of a pass."""

    sampling: SamplingParams
    """How they are generated; its seed and number are not used."""

    @property
    def steps(self) -> int:
        """Optimizer steps of an iteration."""
        return self.epochs * self.minibatches


@dataclass(frozen=True, slots=True)
class Sample:
    """A completion and what it earned, to be read by people."""

    step: int
    prompt: str
    completion: str
    reward: float | None
    version: int


class RolloutWork:
    """See the module.

    Args:
        rows: prompts, tokenized.
        method: an online one.
        options: its options.
        rollouts: how many completions.
        engine: what generates; closed by whoever made it.
        pool: what rewards; closed by whoever made it.
        dtype: in which products are computed.
        pad_id: what stands in padding.
        reference: ``start``, or a path.
        eos_ids: tokens that end a text.
        on_sample: is shown a few completions of each iteration.

    Raises:
        ConfigError: the method needs more completions a prompt.
    """

    objective: Objective
    _order: SampleOrder
    _trainer: Trainer

    def __init__(
        self,
        rows: Sequence[TokenRow],
        method: Method,
        options: Any,
        rollouts: Rollouts,
        *,
        engine: Engine,
        pool: RewardPool,
        dtype: torch.dtype = torch.float32,
        pad_id: int = 0,
        reference: str = "start",
        eos_ids: frozenset[int] = frozenset(),
        on_sample: Callable[[Sample], None] | None = None,
    ) -> None:
        if method.name in ("rloo", "grpo") and rollouts.generations < 2:
            raise ConfigError(
                f"{method.name} compares completions of one prompt: generations="
                f"{rollouts.generations} must be at least 2."
            )
        self.rows = list(rows)
        self.method, self.options, self.rollouts = method, options, rollouts
        self._engine, self._pool = engine, pool
        self._dtype, self._pad_id = dtype, pad_id
        self._reference_ref = reference
        self._reference: Reference | None = None
        self._eos_ids = eos_ids
        self._on_sample = on_sample
        self._queue: deque[StepWork] = deque()
        self._estimated: dict[str, float] = {}
        self._metrics: Metrics = {}
        self._longest_completion = rollouts.sampling.max_tokens
        self._seconds = {"generate": 0.0, "reward_wait": 0.0, "score": 0.0}

    def __len__(self) -> int:
        """Prompts."""
        return len(self.rows)

    @property
    def max_tokens(self) -> int:
        """Of the longest prompt and completion."""
        return max(len(row.prompt) for row in self.rows) + self._longest_completion

    @property
    def fingerprint(self) -> Any:
        """Of prompts, method, rollouts and reference."""
        return {
            "rows": digest([[row.prompt, dict(row.row.meta)] for row in self.rows]),
            "method": self.method.name,
            "options": to_dict(self.options),
            "rollouts": to_dict(self.rollouts),
            "reference": self._reference_ref if self.method.reference(self.options) else None,
        }

    @property
    def at_boundary(self) -> bool:
        """All steps of an iteration are done."""
        return not self._queue

    @property
    def seconds(self) -> Mapping[str, float]:
        """Spent in parts of the iterations so far: generating, waiting for rewards, scoring."""
        return dict(self._seconds)

    def module(self, model: nn.Module) -> nn.Module:
        """The method's loss."""
        assert isinstance(model, DecoderLM)
        temperature = self.rollouts.sampling.temperature
        self.objective = Objective(
            model, self.method, self.options, dtype=self._dtype, temperature=temperature
        )
        return self.objective

    def prepare(self, trainer: Trainer) -> None:
        """Keep the reference while the model still is the start."""
        self._trainer = trainer
        parallel, config = trainer.parallel, trainer.config
        if parallel.sequence_ranks > 1 or config.parallel.zero_stage > 1:
            raise ConfigError(
                "methods that generate need whole weights on every rank: leave parallel.sp and "
                "parallel.ring at 1 and parallel.zero_stage at 0 or 1."
            )
        if self.rollouts.prompts % parallel.layout.data_ranks:
            raise ConfigError(
                f"batch={self.rollouts.prompts} prompts are no multiple of "
                f"{parallel.layout.data_ranks} ranks."
            )
        self._order = SampleOrder(len(self), trainer.seed)
        if self.method.reference(self.options):
            policy = Policy(trainer.model, self._dtype, self.rollouts.sampling.temperature)  # type: ignore[arg-type]
            if self._reference_ref == "start":
                self._reference = Reference.of_start(policy, adapts=config.adapts)
            else:
                self._reference = load_reference(self._reference_ref, policy)

    def take(self) -> StepWork:
        """The next step of this iteration, or the first of a new one."""
        if not self._queue:
            self._iterate()
        return self._queue.popleft()

    @property
    def is_on_policy(self) -> bool:
        """Whether the policy that learns always is the one that generated."""
        alone = self._reference is None and not self.method.has_critic
        return alone and self.rollouts.steps == 1

    def scale(self, labels: float, counts: Sequence[float]) -> Scale:
        """Counts of the global batch."""
        found = counts_of_sums(counts, self._longest_completion)
        return replace(found, on_policy=self.is_on_policy)

    def metrics(self) -> Mapping[str, tuple[float, float]]:
        """Of the losses, and of the iteration at its first step."""
        found, self._metrics = add_metrics([self._metrics, self.objective.take_metrics()]), {}
        return found

    def state_dict(self) -> dict[str, Any]:
        """Position, weights' version, and what estimating keeps."""
        order = self._order.state_dict()
        return {**order, "version": self._engine.version, "estimated": self._estimated}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._order.load_state_dict(state)
        self._engine.version = int(state["version"])
        self._estimated = dict(state["estimated"])

    def _iterate(self) -> None:
        model = self._trainer.model
        assert isinstance(model, DecoderLM)
        indices = self._mine()
        start = time.perf_counter()
        self._engine.update_weights(model, self._engine.version + 1)
        self._spend("generate", start)
        batch = self._gather(indices)
        self._measure(batch)
        estimation = Estimation(self._total, self._estimated, {})
        assert self.method.estimate is not None
        batch = self.method.estimate(batch, self.options, estimation)
        self._metrics = add_metrics([self._metrics, estimation.metrics])
        self._enqueue(batch)

    def _gather(self, indices: Sequence[tuple[int, int]]) -> RolloutBatch:
        """Completions of prompts with log-probabilities and rewards."""
        start = time.perf_counter()
        found, greedy = self._generate(indices)
        self._spend("generate", start)
        rows = [self.rows[place] for _, place in indices for _ in range(self.rollouts.generations)]
        pending = self._pool.submit(
            [_plain(row.row.prompt) for row in rows],
            [one.text for one in found],
            [dict(row.row.meta) for row in rows],
        )
        compared = None
        if greedy:
            prompts = [self.rows[place] for _, place in indices]
            compared = self._pool.submit(
                [_plain(row.row.prompt) for row in prompts],
                [one.text for one in greedy],
                [dict(row.row.meta) for row in prompts],
            )
        batch = self._scored(self._batched(rows, found, indices), found)
        start = time.perf_counter()
        rewards = pending.result()
        baseline = compared.result().values if compared is not None else None
        self._spend("reward_wait", start)
        for row, one, value in list(zip(rows, found, rewards.values, strict=True))[:_CHECKED]:
            prompt = row.row.prompt
            text = prompt if isinstance(prompt, str) else str(prompt[-1].get("content"))
            self._show(text, one.text, value)
        return self._rewarded(batch, rewards, baseline)

    def _mine(self) -> list[tuple[int, int]]:
        """This rank's share of the iteration's prompts: number in the stream, row."""
        parallel = self._trainer.parallel
        first, count = self._order.index, self.rollouts.prompts
        places = self._order.take(count)
        share = count // parallel.layout.data_ranks
        mine = range(parallel.data_rank * share, (parallel.data_rank + 1) * share)
        return [(first + i, places[i]) for i in mine]

    def _generate(
        self, indices: Sequence[tuple[int, int]]
    ) -> tuple[list[Generated], list[Generated]]:
        """Completions of all prompts, of which the first tell log-probabilities; greedy ones."""
        sampling, seed = self.rollouts.sampling, self._trainer.seed
        prompts: list[list[int]] = []
        params: list[SamplingParams] = []
        for sample, place in indices:
            for k in range(self.rollouts.generations):
                own = int(digest({"seed": seed, "sample": sample, "completion": k})[:15], 16)
                told = 0 if len(prompts) < _CHECKED else None
                prompts.append(self.rows[place].prompt)
                params.append(replace(sampling, seed=own, logprobs=told))
        count = len(prompts)
        if self.method.greedy(self.options):
            prompts += [self.rows[place].prompt for _, place in indices]
            params += [replace(sampling, temperature=0.0, top_k=0, top_p=1.0)] * len(indices)
        found = self._engine.generate(prompts, params)
        return found[:count], found[count:]

    def _batched(
        self,
        rows: Sequence[TokenRow],
        found: Sequence[Generated],
        indices: Sequence[tuple[int, int]],
    ) -> RolloutBatch:
        """The completions as a batch, log-probabilities and rewards still 0."""
        sequences = [
            (row.prompt, one.token_ids, [True] * len(one.token_ids))
            for row, one in zip(rows, found, strict=True)
        ]
        ids, text, actions = pad_rows(sequences, self._pad_id)
        groups = [sample for sample, _ in indices for _ in range(self.rollouts.generations)]
        return RolloutBatch(
            input_ids=ids,
            attention_mask=text,
            action_mask=actions,
            logp_old=torch.zeros(ids.shape),
            reward=torch.zeros(len(rows)),
            group_id=torch.tensor(groups),
            finish_reason=[one.finish_reason for one in found],
            meta=[dict(row.row.meta) for row in rows],
            version=torch.full((len(rows),), self._engine.version),
        )

    def _scored(self, batch: RolloutBatch, found: Sequence[Generated]) -> RolloutBatch:
        """With log-probabilities and values; ``found``: what engines tell of the first rows."""
        start = time.perf_counter()
        batch = batch.to(self._trainer.device)
        batch.validate(self._trainer.model.spec.vocab_size, eos_ids=self._eos_ids)  # type: ignore[union-attr,arg-type]
        few = batch.select(range(min(_CHECKED, len(batch))))
        if self.is_on_policy:
            scored = self._with_logp(few)
        else:
            size = self._trainer.config.micro_batch
            places = (range(at, min(at + size, len(batch))) for at in range(0, len(batch), size))
            batch = RolloutBatch.merge([self._with_logp(batch.select(part)) for part in places])
            scored = batch
        self._compare(scored, found)
        self._spend("score", start)
        return batch

    @torch.no_grad()
    def _with_logp(self, part: RolloutBatch) -> RolloutBatch:
        policy, mask = self.objective.policy, part.action_mask
        model = policy.model
        was_training = model.training
        model.eval()
        try:
            logp, entropy = policy.logp_and_entropy(part)
            values = None
            if self.method.has_critic:
                states = Policy(model.critic, policy.dtype).states(part)  # type: ignore[arg-type]
                values = values_of(model.critic_head, states, mask)  # type: ignore[arg-type]
        finally:
            model.train(was_training)
        if not self.is_on_policy:
            found = {"entropy": (float(entropy.sum()), float(mask.sum()))}
            self._metrics = add_metrics([self._metrics, found])
        reference = self._reference.logp(part) if self._reference is not None else None
        return replace(part, logp_old=logp, values=values, ref_logp=reference)

    def _compare(self, batch: RolloutBatch, found: Sequence[Generated]) -> None:
        """The engine's log-probabilities of a few completions against the trainer's."""
        if self.rollouts.sampling.temperature != 1:  # engines tell those before the temperature
            return
        gaps: list[float] = []
        for row, one in zip(range(len(batch)), found, strict=False):
            own = batch.logp_old[row][batch.action_mask[row]].tolist()
            gaps += [abs(a - b) for a, b in zip(own, one.logprobs or [], strict=False)]
        self._metrics["engine_gap"] = (sum(gaps), float(len(gaps)))
        if gaps and sum(gaps) / len(gaps) > _MISMATCH:
            _log.warning(
                "log-probabilities of the engine and the trainer differ by %.3g on average, %.3g "
                "at most: completions are not quite the policy's. Take one dtype for both.",
                sum(gaps) / len(gaps),
                max(gaps),
            )

    def _rewarded(
        self,
        batch: RolloutBatch,
        found: Rewards,
        baseline: Sequence[float | None] | None,
    ) -> RolloutBatch:
        """With rewards; completions without one take no part."""
        rewards = found.values
        count = self.rollouts.generations
        compared = None
        if baseline is not None:
            compared = [value for value in baseline for _ in range(count)]
        kept = [
            row
            for row, value in enumerate(rewards)
            if value is not None and (compared is None or compared[row] is not None)
        ]
        self._metrics["dropped"] = (float(len(rewards) - len(kept)), float(len(rewards)))
        if not kept and self._trainer.parallel.world_size == 1:
            reasons = Counter(reason for reason in found.reasons if reason)
            told = ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
            last = (found.error.strip().splitlines() or [""])[-1]
            raise ExecutionError(
                f"none of the {len(rewards)} completions of this iteration got a reward: "
                f"{told or 'the greedy ones got none'}.{' It said: ' if last else ''}{last} A "
                "reward gives a finite number, or None, for each completion."
            )
        device = batch.input_ids.device
        values = torch.tensor([0.0 if value is None else value for value in rewards])
        batch = replace(batch, reward=values.to(device))
        if compared is not None:
            given = torch.tensor([0.0 if value is None else value for value in compared])
            batch = replace(batch, baseline_reward=given.to(device))
        if not kept:  # other ranks have some: take part with nothing
            empty = torch.zeros_like(batch.action_mask[:1])
            return replace(batch.select([0]), action_mask=empty)
        return batch.select(kept) if len(kept) < len(rewards) else batch

    def _measure(self, batch: RolloutBatch) -> None:
        """What people look for when a run goes wrong."""
        mask, reward = batch.action_mask, batch.reward.double()
        lengths = batch.completion_lengths
        rows, tokens = float(len(batch)), float(mask.sum())
        found: Metrics = {
            "reward": (float(reward.sum()), rows),
            "reward_std": (float(reward.std(unbiased=False)) * rows, rows),
            "length": (float(lengths.sum()), rows),
            "length_max": (float(lengths.max()), 1.0),
            "truncated": (float(batch.truncated.sum()), rows),
        }
        if batch.baseline_reward is not None:
            found["reward_greedy"] = (float(batch.baseline_reward.sum()), rows)
        if batch.ref_logp is not None:
            for name, estimate in (("kl_k1", k1), ("kl_k3", k3)):
                values = estimate(batch.logp_old, batch.ref_logp).masked_fill(~mask, 0.0)
                found[name] = (float(values.sum()), tokens)
        self._metrics = add_metrics([self._metrics, found])

    def _enqueue(self, batch: RolloutBatch) -> None:
        """The iteration's optimizer steps."""
        rollouts, seed = self.rollouts, self._trainer.seed
        size = self._trainer.config.micro_batch
        minibatches = min(rollouts.minibatches, len(batch))
        share = float(batch.action_mask.sum()) / minibatches
        for epoch in range(rollouts.epochs):
            order = torch.arange(len(batch))
            if rollouts.steps > 1:
                name = {"seed": seed, "version": self._engine.version, "epoch": epoch}
                generator = torch.Generator().manual_seed(int(digest(name)[:15], 16))
                order = torch.randperm(len(batch), generator=generator)
            for rows in order.tensor_split(rollouts.minibatches):
                chosen = rows if len(rows) else order[:1]
                part = batch.select(chosen)
                if not len(rows):
                    part = replace(part, action_mask=torch.zeros_like(part.action_mask))
                counts = Counts.of(part, max_completion_length=self._longest_completion)
                counts = replace(counts, generation_tokens=share)
                self._queue.append(
                    StepWork(
                        part.split(-(-len(part) // size)),
                        labels=counts.tokens,
                        tokens=int(part.attention_mask.sum()),
                        counts=sums_of_counts(counts),
                    )
                )

    def _total(self, mine: Moments) -> Moments:
        count, total, squares = self._trainer.parallel.total(mine.count, mine.total, mine.squares)
        return Moments(count=count, total=total, squares=squares)

    def _spend(self, what: str, start: float) -> None:
        seconds = time.perf_counter() - start
        self._seconds[what] += seconds
        before = self._metrics.get(f"{what}_s", (0.0, 1.0))[0]
        self._metrics[f"{what}_s"] = (before + seconds, 1.0)

    def _show(self, prompt: str, completion: str, reward: float | None) -> None:
        if self._on_sample is not None and self._trainer.parallel.rank == 0:
            version = self._engine.version
            self._on_sample(Sample(self._trainer.step, prompt, completion, reward, version))


def _plain(prompt: Any) -> Any:
    """A prompt as rewards get it: text, or a list of messages."""
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]
