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

With ``staleness=s`` an iteration generates and begins to reward a *later* batch before it learns
from its own, whose rewards came in meanwhile. With b_k the batch of iteration k and w_k the weights
after k iterations::

    k = 0      generate b_0, ..., b_s with w_0                 learn from b_0, which gives w_1
    k          generate b_{k+s} with w_k                       learn from b_k
    last s     nothing                                         learn from b_k

So but for the first, a batch was made by the weights s iterations before those that learn from it.
Log-probabilities, values and versions are of the weights that generated it, so that ratios are
right; ReMax, which has none, weights each completion (:mod:`sharpen.align.losses.reinforce`), and
rejection sampling learns by heart whoever wrote it. There are as many optimizer steps as without.

A checkpoint is written between iterations only; it holds batches that were not learnt from yet.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from sharpen.align.advantages import Moments
from sharpen.align.batch import RolloutBatch
from sharpen.align.engines import Engine, Generated
from sharpen.align.loop.generation import CHECKED, batch_of, engine_gap, generate
from sharpen.align.loop.iteration import Rollouts, steps_of
from sharpen.align.loop.objective import Objective, counts_of_sums
from sharpen.align.loop.reference import Reference, load_reference
from sharpen.align.loop.waiting import Made, Waiting, idle, measures, no_rewards, rewarded
from sharpen.align.losses.base import Metrics, add_metrics
from sharpen.align.methods import Estimation, Method, Policy, Scale
from sharpen.align.rewards import RewardPool
from sharpen.align.rows.tokens import TokenRow
from sharpen.align.scoring import values_of
from sharpen.core.config import digest, to_dict
from sharpen.core.errors import ConfigError
from sharpen.data.sample_order import SampleOrder
from sharpen.models.decoder import DecoderLM
from sharpen.train import StepWork, Trainer

__all__ = ["RolloutWork", "Rollouts", "Sample"]


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
        on_sample: is shown the first completions of each iteration.
        samples: how many.

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
        samples: int = 2,
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
        self._on_sample, self._samples = on_sample, samples
        self._queue: deque[StepWork] = deque()
        self._waiting: deque[Waiting] = deque()
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
    def is_moving(self) -> bool:
        """Whether the policy that learns may be another than the one that generated."""
        return self.rollouts.steps > 1 or self.rollouts.staleness > 0

    @property
    def is_on_policy(self) -> bool:
        """Whether log-probabilities of the policy that learns are all that is asked."""
        return self._reference is None and not self.method.has_critic and not self.is_moving

    def scale(self, labels: float, counts: Sequence[float]) -> Scale:
        """Counts of the global batch."""
        found = counts_of_sums(counts, self._longest_completion)
        return replace(found, on_policy=self.is_on_policy, is_moving=self.is_moving)

    def metrics(self) -> Mapping[str, tuple[float, float]]:
        """Of the losses, and of the iteration at its first step."""
        found, self._metrics = add_metrics([self._metrics, self.objective.take_metrics()]), {}
        return found

    def state_dict(self) -> dict[str, Any]:
        """Position, weights' version, what estimating keeps, and completions still to learn from.

        With several ranks every one must call it.
        """
        order = self._order.state_dict()
        made = [one.made.state_dict() for one in self._waiting]
        waiting = self._trainer.parallel.collect(made) if self.rollouts.staleness else []
        return {
            **order,
            "version": self._engine.version,
            "estimated": self._estimated,
            "waiting": waiting,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, on any number of ranks; rewards are asked for again."""
        self._order.load_state_dict(state)
        self._engine.version = int(state["version"])
        self._estimated = dict(state["estimated"])
        self._waiting.clear()
        for parts in zip(*state["waiting"], strict=True):  # of all ranks that wrote it
            made = Made.merge([Made.of_state(part) for part in parts])
            mine = self._share(len(made.samples))
            self._ask(made.share(mine.start, mine.stop))

    def _iterate(self) -> None:
        batch, kept = self._gather()
        spare = idle(batch)
        batch = batch.select(kept) if len(kept) < len(batch) else batch
        self._metrics = add_metrics([self._metrics, measures(batch)])
        estimation = Estimation(self._total, self._estimated, {})
        assert self.method.estimate is not None
        batch = self.method.estimate(batch, self.options, estimation)
        self._metrics = add_metrics([self._metrics, estimation.metrics])
        self._queue += steps_of(
            batch,
            spare,
            self.rollouts,
            name={"seed": self._trainer.seed, "version": self._iteration},
            micro_batch=self._trainer.config.micro_batch,
            longest=self._longest_completion,
        )

    @property
    def _iteration(self) -> int:
        """The number, from 0, of the one that begins or goes on."""
        return self._trainer.step // self.rollouts.steps

    def _gather(self) -> tuple[RolloutBatch, list[int]]:
        """Completions with log-probabilities and rewards, and the rows that have one."""
        left = -(-self._trainer.num_steps // self.rollouts.steps) - self._iteration
        wanted = min(1 + self.rollouts.staleness, left)
        if len(self._waiting) < wanted:
            self._hand_over()
        while len(self._waiting) < wanted:
            self._ask(self._complete())
        one = self._waiting.popleft()
        start = time.perf_counter()
        with self._trainer.parallel.clock.waiting():  # for rewards: no work of this rank's own
            rewards = one.rewards.result()
            baseline = one.baseline.result() if one.baseline is not None else None
        self._spend("reward_wait", start)
        batch, kept = rewarded(one.made.batch, rewards, baseline)
        counts = len(kept), len(batch)
        self._metrics["dropped"] = (float(counts[1] - counts[0]), float(counts[1]))
        if not self._trainer.parallel.total(counts[0])[0]:  # so all ranks raise
            told = self._trainer.parallel.collect((rewards.reasons, rewards.error))
            reasons = [reason for some, _ in told for reason in some]
            raise no_rewards(reasons, next((error for _, error in told if error), ""))
        for row in range(min(self._samples, len(batch))):
            place = self._order.at(int(batch.group_id[row]))
            prompt = self.rows[place].row.prompt
            text = prompt if isinstance(prompt, str) else str(prompt[-1].get("content"))
            version = int(batch.version[row])
            self._show(text, one.made.texts[row], rewards.values[row], version)
        return batch, kept

    def _hand_over(self) -> None:
        """Give the engine the weights that are to generate."""
        model = self._trainer.model
        assert isinstance(model, DecoderLM)
        start = time.perf_counter()
        self._engine.update_weights(model, self._engine.version + 1)
        self._spend("generate", start)

    def _complete(self) -> Made:
        """Completions of the next prompts, with log-probabilities."""
        start = time.perf_counter()
        mine = self._mine()
        found, greedy = generate(
            self._engine,
            [(sample, self.rows[place].prompt) for sample, place in mine],
            self.rollouts.sampling,
            generations=self.rollouts.generations,
            seed=self._trainer.seed,
            greedy=self.method.greedy(self.options),
        )
        self._spend("generate", start)
        draws = range(self.rollouts.generations)
        batch = batch_of(
            [self.rows[place] for _, place in mine for _ in draws],
            found,
            [sample for sample, _ in mine for _ in draws],
            version=self._engine.version,
            pad_id=self._pad_id,
        )
        texts, compared = [one.text for one in found], [one.text for one in greedy]
        return Made(batch=self._scored(batch, found), texts=texts, greedy=compared)

    def _ask(self, made: Made) -> None:
        """Have completions rewarded; those of a checkpoint get back what it left out."""
        prompts = [self.rows[self._order.at(sample)] for sample in made.samples]
        meta = [dict(row.row.meta) for row in prompts for _ in range(self.rollouts.generations)]
        batch = replace(made.batch.to(self._trainer.device), meta=meta)
        self._waiting.append(Waiting.ask(self._pool, replace(made, batch=batch), prompts))

    def _mine(self) -> list[tuple[int, int]]:
        """This rank's share of the iteration's prompts: number in the stream, row."""
        first, count = self._order.index, self.rollouts.prompts
        places = self._order.take(count)
        return [(first + i, places[i]) for i in self._share(count)]

    def _share(self, count: int) -> range:
        """Which of ``count`` prompts are this rank's."""
        parallel = self._trainer.parallel
        share = count // parallel.layout.data_ranks
        return range(parallel.data_rank * share, (parallel.data_rank + 1) * share)

    def _scored(self, batch: RolloutBatch, found: Sequence[Generated]) -> RolloutBatch:
        """With log-probabilities and values; ``found``: what engines tell of the first rows."""
        start = time.perf_counter()
        batch = batch.to(self._trainer.device)
        batch.validate(self._trainer.model.spec.vocab_size, eos_ids=self._eos_ids)  # type: ignore[union-attr,arg-type]
        few = batch.select(range(min(CHECKED, len(batch))))
        if self.is_on_policy:
            scored = self._with_logp(few)
        else:
            size = self._trainer.config.micro_batch
            places = (range(at, min(at + size, len(batch))) for at in range(0, len(batch), size))
            batch = RolloutBatch.merge([self._with_logp(batch.select(part)) for part in places])
            scored = batch
        if self.rollouts.sampling.temperature == 1:  # engines tell those before the temperature
            gap = {"engine_gap": engine_gap(scored, found)}
            self._metrics = add_metrics([self._metrics, gap])
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

    def _total(self, mine: Moments) -> Moments:
        count, total, squares = self._trainer.parallel.total(mine.count, mine.total, mine.squares)
        return Moments(count=count, total=total, squares=squares)

    def _spend(self, what: str, start: float) -> None:
        seconds = time.perf_counter() - start
        self._seconds[what] += seconds
        before = self._metrics.get(f"{what}_s", (0.0, 1.0))[0]
        self._metrics[f"{what}_s"] = (before + seconds, 1.0)

    def _show(self, prompt: str, completion: str, reward: float | None, version: int) -> None:
        if self._on_sample is not None and self._trainer.parallel.rank == 0:
            self._on_sample(Sample(self._trainer.step, prompt, completion, reward, version))
