"""The work of the ``train`` stage, in this process or in ranks that a driver watches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sharpen.core.assets import ASSETS
from sharpen.core.errors import ConfigError
from sharpen.core.stage import Progress, StageContext, StageResult
from sharpen.data import TokenDataset
from sharpen.models.decoder import DecoderLM
from sharpen.models.tokenizer import check_compatible, load_tokenizer
from sharpen.plan.device import load_profile
from sharpen.plan.training import TrainingJob, step_flops
from sharpen.train.checkpoint import read_trained
from sharpen.train.config import TrainConfig
from sharpen.train.ft.driver import RankJob, drive
from sharpen.train.ft.rank import Rank
from sharpen.train.ft.selfcheck import Needs
from sharpen.train.ft.timeline import trace_file, write_trace
from sharpen.train.half import HalfFineTuning
from sharpen.train.predict import training_job
from sharpen.train.prepare import prepare_model, write_trained
from sharpen.train.trainer import StepReport, Trainer, TrainResult

__all__ = ["run_train", "train_tokens"]


class _Report:
    """Passes a training's steps on to the run's metrics and progress."""

    def __init__(self, context: StageContext, config: TrainConfig, bar: Progress) -> None:
        self.context, self.config, self.bar = context, config, bar
        self.shown = self.failures = 0

    def on_start(self, trainer: Trainer) -> None:
        self.start(trainer.step)

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        self.step(report)

    def on_event(self, event: dict[str, Any]) -> None:
        """The same from a driver's ranks; after a restart the bar goes back."""
        if event["event"] == "start":
            self.start(event["step"])
        elif event["event"] == "step":
            self.step(StepReport(**event["report"]))
        else:
            self.failures += 1

    def start(self, step: int) -> None:
        self.context.rewind(step)
        self.bar.advance(step - self.shown)
        self.shown = step

    def step(self, report: StepReport) -> None:
        self.shown = report.step
        speed = report.tokens / report.seconds
        self.bar.advance(1, loss=report.loss, tokens_per_s=speed)
        if report.step % self.config.metrics.log_every == 0:
            values = {
                "loss": report.loss if report.labels else math.nan,
                "grad_norm": report.grad_norm,
                "lr": report.lr,
                "tokens_per_s": speed,
            }
            for name, value in values.items():
                self.context.metric(name, value, report.step)


def run_train(config: TrainConfig, context: StageContext) -> StageResult:
    """Load, adapt, train, write."""
    assert context.model is not None
    earlier = context.inputs.get("model")
    base = earlier.path if earlier is not None else Path(context.model)
    ref = str(base)
    tokenizer = load_tokenizer(ref)
    data = TokenDataset(
        context.inputs["dataset"].path, "train", tokenizer_fingerprint=tokenizer.fingerprint
    )
    with context.progress("load the model"):
        model = prepare_model(ref, config, seed=context.seed)
    check_compatible(tokenizer, model.spec, f"the model {base.name}")
    if data.max_tokens > model.spec.max_positions:
        raise ConfigError(
            f"sequences of {data.max_tokens} tokens are longer than the model's context of "
            f"{model.spec.max_positions}. Lower data.max_tokens, or stretch the context: "
            f"train.context={data.max_tokens}."
        )
    with context.progress("train", config.num_steps(len(data))) as bar:
        report = _Report(context, config, bar)
        if config.world_size > 1:
            done = _train_on_ranks(ref, model, data, tokenizer.fingerprint, config, context, report)
        else:
            rounds = _rounds(config, context.seed)
            trainer = Trainer(
                model,
                data,
                config,
                output=context.work,
                seed=context.seed,
                callbacks=[*rounds, report],
            )
            done = trainer.fit()
            trace = trace_file(config.metrics, context)
            if trace is not None:
                write_trace(trace, {0: trainer.timeline.spans})
    name = context.model if context.model in ASSETS else Path(context.model).name
    result = _result(model, done)
    if done.step_s is not None:
        result.measured["mfu"] = _mfu(training_job(config, model.spec, data), done.step_s)
    if config.world_size > 1:
        result.measured["restarts"] = report.failures
        result.measured["slow_ranks"] = done.slow_ranks
    write_trained(model, config, context.output, tokenizer, name)
    return result


def _mfu(job: TrainingJob, step_s: float) -> float:
    """Model FLOP utilization: no causal discount, recomputation not counted (PaLM's convention)."""
    peak = load_profile(max_age_s=math.inf).matmul[job.dtype].peak * 1e9
    return step_flops(job) / step_s / peak


def _train_on_ranks(
    ref: str,
    model: DecoderLM,
    data: TokenDataset,
    fingerprint: str,
    config: TrainConfig,
    context: StageContext,
    report: _Report,
) -> TrainResult:
    """Train in processes that a driver watches; the last checkpoint's weights go into ``model``."""
    job = RankJob(
        target="sharpen.train.run:train_tokens",
        given={"model": ref, "data": str(data.folder), "tokenizer_fingerprint": fingerprint},
        config=config,
        work=context.work,
        seed=context.seed,
        trace=trace_file(config.metrics, context),
        needs=Needs.of(model, config.world_size),
    )
    done = TrainResult(**drive(job, report.on_event))
    read_trained(model, context.work, done.steps)
    return done


def train_tokens(given: Mapping[str, Any], config: TrainConfig, rank: Rank) -> dict[str, Any]:
    """What a rank does: train on a token data set.

    Args:
        given: ``model``, ``data`` and ``tokenizer_fingerprint``.
        config: what to do.
        rank: see there.

    Returns:
        The fields of this rank's :class:`TrainResult`; ``peak_bytes`` is the highest of all ranks.
    """
    data = TokenDataset(
        Path(given["data"]), "train", tokenizer_fingerprint=given["tokenizer_fingerprint"]
    )
    trainer = Trainer(
        prepare_model(given["model"], config, seed=rank.seed),
        data,
        config,
        output=rank.work,
        seed=rank.seed,
        callbacks=rank.callbacks,
        timeline=rank.timeline,
    )
    done = trainer.fit()
    peak = trainer.parallel.highest(done.peak_bytes)
    return {**asdict(done), "peak_bytes": round(peak)}


def _rounds(config: TrainConfig, seed: int) -> list[HalfFineTuning]:
    """What freezes halves of the model, where asked for."""
    return [HalfFineTuning(seed=seed, every=config.half_every)] if config.method == "half" else []


def _result(model: DecoderLM, done: TrainResult) -> StageResult:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return StageResult(
        results={
            "steps": done.steps,
            "skipped_steps": done.skipped_steps,
            "tokens": done.tokens,
            "labels": done.labels,
            "trained_parameters": trained,
            "loss_first": done.loss_first,
            "loss_last": done.loss_last,
        },
        measured={
            "step_s": done.step_s,
            "tokens_per_s": done.tokens_per_s,
            "peak_bytes": done.peak_bytes,
        },
    )
