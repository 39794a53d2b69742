"""The work of the ``align`` stage: read, load, learn, write."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sharpen.align.agents.worlds import find_world
from sharpen.align.config import AlignConfig, RewardConfig
from sharpen.align.engines import ClientEngine, Engine, PlainEngine, ServedEngine
from sharpen.align.heads import DuelingHead, read_dueling_head, take_off_heads, write_dueling_head
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
from sharpen.align.score_model import write_score_model
from sharpen.core.assets import ASSETS
from sharpen.core.errors import DataError
from sharpen.core.model_spec import ModelSpec
from sharpen.core.samples import SampleLog, samples_path
from sharpen.core.stage import Progress, StageContext, StageResult
from sharpen.models.decoder import DecoderLM
from sharpen.models.load import resolve_model
from sharpen.models.tokenizer import Tokenizer, check_compatible, load_tokenizer
from sharpen.serve.sampling import SamplingParams
from sharpen.train import StepReport, Trainer, TrainResult
from sharpen.train.config import TrainConfig
from sharpen.train.prepare import DTYPES, lora_config, prepare_model, write_trained

__all__ = ["run_align"]

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


def run_align(config: AlignConfig, context: StageContext) -> StageResult:
    """Read the rows, load the model, learn, write an adapter or a model."""
    assert context.model is not None
    method = find_method(config.method)
    earlier = context.inputs.get("model")
    base = str(earlier.path) if earlier is not None else context.model
    tokenizer = load_tokenizer(base)
    rows = TokenizedRows(rows=[])
    if not config.world:
        rows = read_rows(config, method, tokenizer, base, context)
    size = config.micro_batch or default_micro_batch(config, method, _longest(config, rows))
    steps = config.num_steps(len(rows) or config.tasks)
    training = config.training(steps, size)
    with context.progress("load the model"):
        model = prepare_model(base, training, seed=context.seed)
    check_compatible(tokenizer, model.spec, f"the model {Path(base).name}")
    if method.add_heads is not None:
        method.add_heads(model)
    job = _Job(config, context, method, training, tokenizer, base)
    if config.generates:
        done, measured = job.with_rollouts(model, rows)
    elif method is BCODER:
        done, measured = job.value_based(model, rows), {}
    else:
        done, measured = job.train(model, job.row_work(rows)), {}
    name = context.model if context.model in ASSETS else Path(context.model).name
    results = _results(model, done, rows)
    if method.name == "rm":
        write_score_model(model, context.output, tokenizer, merged=config.adapts)
    else:
        if method is BCODER:
            write_dueling_head(model, context.output)
        take_off_heads(model)
        write_trained(model, training, context.output, tokenizer, name)
    return StageResult(
        results=results,
        measured={
            "step_s": done.step_s,
            "tokens_per_s": done.tokens_per_s,
            "peak_bytes": done.peak_bytes,
            **job.told,
            **measured,
        },
    )


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
    row = max(rows.rows, key=len)
    return Lengths(len(row.prompt), len(row) - len(row.prompt) + room)


class _Job:
    """One training, and what it tells the run."""

    def __init__(
        self,
        config: AlignConfig,
        context: StageContext,
        method: Method,
        training: TrainConfig,
        tokenizer: Tokenizer,
        base: str,
    ) -> None:
        self.config, self.context, self.method = config, context, method
        self.training, self.tokenizer, self.base = training, tokenizer, base
        self._options = config.method_options()
        pad = tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id
        self._pad_id = pad or 0
        self.told: dict[str, float] = {}
        folder = context.run_folder
        self._samples = SampleLog(samples_path(folder, context.stage)) if folder else None

    def row_work(self, rows: TokenizedRows) -> RowWork:
        """Of an offline method."""
        return RowWork(
            rows.rows,
            self.method,
            self._options,
            dtype=DTYPES[self.config.dtype],
            pad_id=self._pad_id,
            reference=self._reference(),
        )

    def value_based(self, model: DecoderLM, rows: TokenizedRows) -> TrainResult:
        """Both stages of B-Coder, or one of them."""
        options: BCoderOptions = self._options
        head = model.get_submodule("dueling")
        assert isinstance(head, DuelingHead)
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        if options.stage == "theta":
            read_dueling_head(model, Path(self.base))
        stages = ("phi", "theta") if options.stage == "both" else (options.stage,)
        done: TrainResult | None = None
        for stage in stages:
            model.requires_grad_(False)
            if stage == "phi":
                head.phi.requires_grad_(True)
                steps = options.phi_steps or self.training.num_steps(len(rows))
                config = replace(
                    self.training,
                    steps=steps,
                    lr=options.phi_lr,
                    schedule="constant",
                    warmup=0,
                )
            else:
                for name in trained:
                    model.get_parameter(name).requires_grad_("dueling.phi" not in name)
                head.residual.requires_grad_(True)
                config = self.training
            work = ProgramWork(
                rows.rows,
                self.method,
                options,
                stage,
                dtype=DTYPES[self.config.dtype],
                pad_id=self._pad_id,
            )
            first = done.steps if done is not None else 0
            done = self.train(model, work, config, stage, first)
        assert done is not None
        return done

    def with_rollouts(
        self, model: DecoderLM, rows: TokenizedRows
    ) -> tuple[TrainResult, dict[str, Any]]:
        """Train an online method; its engine and reward processes end with it."""
        config, method = self.config, self.method
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
        engine = self._engine(model, rollouts, context)
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
                done = self.train(model, work)
                stats = pool.stats
        finally:
            engine.close()
        spent = {f"{name}_s": seconds for name, seconds in work.seconds.items()}
        told = {} if config.world else {"rewards": stats.to_json()}
        return done, {**spent, **told}

    def train(
        self,
        model: DecoderLM,
        work: RowWork | RolloutWork,
        config: TrainConfig | None = None,
        part: str = "",
        first: int = 0,
    ) -> TrainResult:
        """All steps, from the newest checkpoint on.

        Args:
            model: with heads.
            work: what is done.
            config: default that of the stage.
            part: names one of several trainings, after ``first`` steps of those before.
            first: see there.
        """
        config = config or self.training
        total = config.num_steps(len(work))
        with self.context.progress(f"align by {self.method.name} {part}".strip(), total) as bar:
            trainer = Trainer(
                model,
                work,
                config,
                output=self.context.work / part,
                seed=self.context.seed,
                callbacks=[
                    report := _Report(
                        self.context,
                        config,
                        bar,
                        part,
                        first,
                        samples=self._samples,
                        updates=self.config.updates if self.config.generates else 0,
                    )
                ],
            )
            done = trainer.fit()
        self.told |= report.first_and_last()
        return done

    def _engine(self, model: DecoderLM, rollouts: Rollouts, longest: int) -> Engine:
        config = self.config
        device = model.lm_head.weight.device
        batch = min(_ENGINE_BATCH[device.type], rollouts.prompts * (rollouts.generations + 1))
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


def _results(model: DecoderLM, done: TrainResult, rows: TokenizedRows) -> dict[str, Any]:
    return {
        "steps": done.steps,
        "skipped_steps": done.skipped_steps,
        "rows": len(rows),
        "dropped": dict(rows.dropped),
        "cut": rows.cut,
        "tokens": done.tokens,
        "labels": done.labels,
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "loss_first": done.loss_first,
        "loss_last": done.loss_last,
    }
