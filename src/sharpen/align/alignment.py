"""One alignment in this process: its rows, its model, and how it learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sharpen.align.agents.worlds import find_world
from sharpen.align.config import AlignConfig, RewardConfig
from sharpen.align.engines import ClientEngine, Engine, PlainEngine, ServedEngine
from sharpen.align.heads import DuelingHead, read_dueling_head
from sharpen.align.loop.episodes import EpisodeWork
from sharpen.align.loop.programs import ProgramWork
from sharpen.align.loop.rollouts import Rollouts, RolloutWork, Sample
from sharpen.align.loop.rows import RowWork
from sharpen.align.loop.stepwise import StepwiseWork
from sharpen.align.methods import Method, find_method
from sharpen.align.methods.bcoder import BCODER, BCoderOptions
from sharpen.align.passes import Lengths, default_micro_batch
from sharpen.align.places import instructions_of, placed
from sharpen.align.rewards import RewardPool, find_reward
from sharpen.align.rewards.keys import judged
from sharpen.align.rows import TokenizedRows, read_feedback, tokenize_rows
from sharpen.core.assets import ASSETS
from sharpen.core.errors import DataError
from sharpen.core.model_spec import ModelSpec
from sharpen.core.samples import SampleLog, samples_path
from sharpen.core.stage import Progress, StageContext
from sharpen.models.load import resolve_model
from sharpen.models.tokenizer import Tokenizer, check_compatible, load_tokenizer
from sharpen.serve.sampling import SamplingParams
from sharpen.train import StepReport, Trainer, TrainResult
from sharpen.train.checkpoint import read_trained
from sharpen.train.config import TrainConfig
from sharpen.train.ft.timeline import Timeline
from sharpen.train.prepare import DTYPES, lora_config, prepare_model
from sharpen.train.trainer import Callback

__all__ = ["Alignment"]

_EPISODE = 512  # tokens of an episode, about
_ENGINE_BATCH = {"cpu": 64, "cuda": 256}
_TOLD = (
    "reward",
    "accuracy",
    "success",
    "length",
    "success_after",
    "pairs",
)  # of the first and the last steps, in the summary
_LAST = 5
_OF_A_BATCH = {"reward", "success_after"}  # they are told of each batch, whatever is logged
_SPENT = ("generate_s", "reward_wait_s", "score_s")  # of a step, before it learns


def read_rows(
    config: AlignConfig, method: Method, tokenizer: Tokenizer, base: str, context: StageContext
) -> TokenizedRows:
    """The rows of the data, tokenized; too long ones are treated as the config says.

    Raises:
        DataError: a row is bad, or none is left.
    """
    found = read_feedback(
        context.resolve(config.data),
        kind=None if method.name == "sft" else method.kind,
        skip_bad=config.skip_bad,
        episodes=config.episodes,
    )
    kinds = ("completion", "messages", "trajectory") if method.name == "sft" else (method.kind,)
    if found.kind not in kinds:
        found = read_feedback(
            context.resolve(config.data), kind=method.kind, skip_bad=config.skip_bad
        )
    if config.reward is not None:
        reward = find_reward(*config.reward.placed(context.resolve))
        found = judged(reward, found, skip_bad=config.skip_bad)
    rows = tokenize_rows(
        found.rows,
        tokenizer,
        max_length=config.row_limit(ModelSpec.from_ref(resolve_model(base)).max_positions),
        on_long=config.on_long,
        use_template=config.chat,
    )
    if not len(rows):
        raise DataError(
            f"{config.data}: no row is left; dropped: {rows.dropped}. Raise max_length."
        )
    rows.dropped.update(found.skipped)
    return rows


def _longest(config: AlignConfig, rows: TokenizedRows) -> Lengths:
    """Of the longest row; of an episode, about, where there are none."""
    room = config.sampling.max_tokens if config.generates else 0
    if not rows.rows:
        return Lengths(0, _EPISODE + room)
    return Lengths.longest(rows.rows, room)


class Alignment:
    """One alignment: its rows, its model, and how it learns in this process.

    Args:
        config: what to do.
        context: of the stage.
        base: the model to begin with.
        callbacks: for the trainers, beside what tells the run.
        timeline: for the trainers.

    Raises:
        DataError: a row is bad, or none is left.
        ConfigError: something does not fit the model.
    """

    def __init__(
        self,
        config: AlignConfig,
        context: StageContext,
        base: str,
        callbacks: Sequence[Callback] = (),
        timeline: Timeline | None = None,
    ) -> None:
        self.config, self.context, self.base = config, context, base
        self.method = find_method(config.method)
        self.tokenizer = load_tokenizer(base)
        self.rows = TokenizedRows(rows=[])
        if not config.world:
            self.rows = read_rows(config, self.method, self.tokenizer, base, context)
        size = config.micro_batch
        size = size or default_micro_batch(config, self.method, _longest(config, self.rows))
        steps = config.num_steps(len(self.rows) or config.tasks)
        self.training = config.training(steps, size)
        with context.progress("load the model"):
            self.model = prepare_model(base, self.training, seed=context.seed)
        check_compatible(self.tokenizer, self.model.spec, f"the model {Path(base).name}")
        if self.method.add_heads is not None:
            self.method.add_heads(self.model)
        self._callbacks = tuple(callbacks)
        self.timeline = timeline or Timeline(self.training.metrics.timeline)
        self._options = config.method_options()
        pad = self.tokenizer.pad_id if self.tokenizer.pad_id is not None else self.tokenizer.eos_id
        self._pad_id = pad or 0
        self._told: dict[str, float] = {}
        folder = context.run_folder
        self._samples = SampleLog(samples_path(folder, context.stage)) if folder else None

    def learn(self) -> tuple[TrainResult, dict[str, Any]]:
        """All of it, from the newest checkpoint on; what was done, and what was measured."""
        measured: dict[str, Any] = {}
        if self.config.generates:
            done, measured = self._with_rollouts()
        elif self.method is BCODER:
            done = self._value_based()
        else:
            done = self._train(self._row_work())
        return done, {**self._told, **measured}

    def read_back(self) -> None:
        """Take what other processes have learnt from their last checkpoints.

        Raises:
            ExecutionError: one is gone or damaged.
        """
        parts = self._value_parts() if self.method is BCODER else [("", self.training)]
        for part, config in parts:
            read_trained(self.model, self.context.work / part, config.num_steps(len(self.rows)))

    def _row_work(self) -> RowWork:
        """Of an offline method."""
        return RowWork(
            self.rows.rows,
            self.method,
            self._options,
            dtype=DTYPES[self.config.dtype],
            pad_id=self._pad_id,
            reference=self._reference(),
        )

    def _value_parts(self) -> Iterator[tuple[str, TrainConfig]]:
        """The stages of B-Coder, each with what trains in it made ready."""
        options: BCoderOptions = self._options
        model, head = self.model, self.model.get_submodule("dueling")
        assert isinstance(head, DuelingHead)
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        if options.stage == "theta":
            read_dueling_head(model, Path(self.base))
        for stage in ("phi", "theta") if options.stage == "both" else (options.stage,):
            model.requires_grad_(False)
            if stage == "phi":
                head.phi.requires_grad_(True)
                steps = options.phi_steps or self.training.num_steps(len(self.rows))
                yield (
                    stage,
                    replace(
                        self.training, steps=steps, lr=options.phi_lr, schedule="constant", warmup=0
                    ),
                )
            else:
                for name in trained:
                    model.get_parameter(name).requires_grad_("dueling.phi" not in name)
                head.residual.requires_grad_(True)
                yield stage, self.training

    def _value_based(self) -> TrainResult:
        """Both stages of B-Coder, or one of them."""
        done: TrainResult | None = None
        for stage, config in self._value_parts():
            work = ProgramWork(
                self.rows.rows,
                self.method,
                self._options,
                stage,
                dtype=DTYPES[self.config.dtype],
                pad_id=self._pad_id,
            )
            first = done.steps if done is not None else 0
            done = self._train(work, config, stage, first)
        assert done is not None
        return done

    def _with_rollouts(self) -> tuple[TrainResult, dict[str, Any]]:
        """Train an online method; its engine and reward processes end with it."""
        config, method, model, rows = self.config, self.method, self.model, self.rows
        sampling = config.sampling
        rollouts = Rollouts(
            prompts=config.batch,
            generations=config.draws,
            epochs=config.epochs_per_batch or method.epochs,
            minibatches=config.minibatches,
            staleness=config.staleness,
            sampling=SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
            ),
        )
        ends = set(model.spec.eos_token_ids)
        if self.tokenizer.eos_id is not None:
            ends.add(self.tokenizer.eos_id)
        positions = model.spec.max_positions
        context = min(config.max_length or positions, positions)
        if not config.world:
            context = min(context, max(map(len, rows.rows)) + sampling.max_tokens)
        engine = self._engine(rollouts, context)
        shared: dict[str, Any] = {
            "engine": engine,
            "dtype": DTYPES[config.dtype],
            "reference": self._reference(),
            "eos_ids": frozenset(ends),
            "on_sample": self._on_sample(),
            "samples": config.samples,
        }
        try:
            with _pool(config.reward, self.context) as pool:
                if config.world:
                    world = find_world(placed(config.world, self.context.resolve))
                    shared["instructions"] = instructions_of(
                        config.instructions, self.context.resolve
                    )
                    kind: type[EpisodeWork] = EpisodeWork
                    if config.finds_pairs:
                        kind, shared["branches"] = StepwiseWork, config.branches
                    work: RolloutWork = kind(
                        world,
                        config.tasks,
                        self.tokenizer,
                        context,
                        method,
                        self._options,
                        rollouts,
                        pool=pool,
                        **shared,
                    )
                else:
                    work = RolloutWork(
                        rows.rows,
                        method,
                        self._options,
                        rollouts,
                        pool=pool,
                        pad_id=self._pad_id,
                        **shared,
                    )
                done = self._train(work)
                stats = pool.stats
        finally:
            engine.close()
        spent = {f"{name}_s": seconds for name, seconds in work.seconds.items()}
        told = {} if config.world else {"rewards": stats.to_json()}
        return done, {**spent, **told}

    def _train(
        self,
        work: RowWork | RolloutWork,
        config: TrainConfig | None = None,
        part: str = "",
        first: int = 0,
    ) -> TrainResult:
        """All steps, from the newest checkpoint on.

        Args:
            work: what is done.
            config: default that of the stage.
            part: names one of several trainings, after ``first`` steps of those before.
            first: see there.
        """
        config = config or self.training
        total = config.num_steps(len(work))
        with self.context.progress(f"align by {self.method.name} {part}".strip(), total) as bar:
            report = _Report(
                self.context,
                config,
                bar,
                part,
                first,
                samples=self._samples,
                updates=self.config.updates if self.config.generates else 0,
            )
            trainer = Trainer(
                self.model,
                work,
                config,
                output=self.context.work / part,
                seed=self.context.seed,
                callbacks=[report, *self._callbacks],
                timeline=self.timeline,
            )
            done = trainer.fit()
        self._told |= report.first_and_last()
        return done

    def _engine(self, rollouts: Rollouts, longest: int) -> Engine:
        config, model = self.config, self.model
        device = model.lm_head.weight.device
        prompts = rollouts.prompts // config.data_ranks
        batch = min(_ENGINE_BATCH[device.type], prompts * (rollouts.generations + 1))
        if config.engine == "model":
            return PlainEngine(self.tokenizer, max_batch=batch)
        if "://" in config.engine:
            return ClientEngine(
                config.engine,
                self.tokenizer,
                lora=lora_config(self.training),
                exchange=self.context.work / "exchange",
                max_batch=batch,
            )
        dtype = config.dtype if config.engine_dtype == "same" else config.engine_dtype
        return ServedEngine(
            self.base,
            dtype=dtype,
            device=device,
            max_batch=batch,
            max_context=min(longest, model.spec.max_positions),
        )

    def _reference(self) -> str:
        given = self.config.reference
        if given == "start" or given in ASSETS:
            return given
        return str(self.context.resolve(given))

    def _on_sample(self) -> Callable[[Sample], None] | None:
        log = self._samples
        if log is None or not self.config.samples:
            return None
        # As in the metrics, the step is the one that learns from it.
        return lambda sample: log.append({**asdict(sample), "step": sample.step + 1})


class _Report:
    """Passes steps on to the run's metrics and progress."""

    def __init__(
        self,
        context: StageContext,
        config: TrainConfig,
        bar: Progress,
        part: str = "",
        first: int = 0,
        samples: SampleLog | None = None,
        updates: int = 0,
    ) -> None:
        self._context, self._config, self._bar = context, config, bar
        self._samples, self._updates, self._learning = samples, updates, 0.0
        self._prefix = "phi." if part == "phi" else ""
        self._first = first
        self._shown = 0
        self._history: dict[str, list[float]] = {name: [] for name in _TOLD}

    def on_start(self, trainer: Trainer) -> None:
        """Rows of steps that are done again go."""
        self._context.rewind(self._first + trainer.step)
        if self._samples is not None and trainer.parallel.rank == 0:
            self._samples.rewind(trainer.step + 1)
        self._bar.advance(trainer.step - self._shown)
        self._shown = trainer.step

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        """One row a number."""
        self._shown = report.step
        for name, known in self._history.items():
            if name in report.metrics:
                known.append(report.metrics[name])
        told = {name: report.metrics[name] for name in _TOLD[:2] if name in report.metrics}
        self._bar.advance(1, loss=report.loss, **told)
        if self._updates:
            self._time_learning(report)
        ends_batch = not _OF_A_BATCH.isdisjoint(report.metrics)
        if report.step % self._config.metrics.log_every and not ends_batch:
            return
        values = {
            "loss": report.loss if report.labels else math.nan,
            "grad_norm": report.grad_norm,
            "lr": report.lr,
            "tokens_per_s": report.tokens / report.seconds,
            **report.metrics,
        }
        for name, value in values.items():
            self._context.metric(f"{self._prefix}{name}", value, self._first + report.step)

    def _time_learning(self, report: StepReport) -> None:
        """Tell the seconds of learning from a batch of completions, after its last step."""
        spent = sum(report.metrics.get(name, 0.0) for name in _SPENT)
        self._learning += report.seconds - spent
        if report.step % self._updates == 0:
            first = report.step - self._updates + 1
            self._context.metric("learn_s", self._learning, first)
            self._learning = 0.0

    def first_and_last(self) -> dict[str, float]:
        """Of what was told by this process: the first, and the mean of the last few."""
        found: dict[str, float] = {}
        for name, values in self._history.items():
            if values:
                last = values[-_LAST:]
                found |= {f"{name}_first": values[0], f"{name}_last": sum(last) / len(last)}
        return found


def _pool(config: RewardConfig | None, context: StageContext) -> RewardPool:
    if config is None:  # a world tells rewards
        return RewardPool(_no_reward, workers=0)
    return RewardPool(
        find_reward(*config.placed(context.resolve)),
        workers=config.workers,
        deadline_s=config.deadline_s,
        chunk=config.chunk,
    )


def _no_reward(prompts: Any, completions: Any, meta: Any) -> list[float | None]:
    return [None] * len(completions)
