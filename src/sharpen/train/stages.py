"""The ``train`` stage: a model and a data set in, an adapter or a whole model out."""

from __future__ import annotations

from sharpen.core.report import Section, Table
from sharpen.core.stage import StageContext, StageResult, StageType
from sharpen.train.config import MAY_CHANGE, TrainConfig
from sharpen.train.predict import predict_train

__all__ = ["TRAIN"]


def run_train(config: TrainConfig, context: StageContext) -> StageResult:
    """Load, adapt, train, write."""
    from sharpen.train.run import run_train as run  # loads torch, which plans do not need

    return run(config, context)


def _report(summary: dict[str, object]) -> list[Section]:
    names = {
        "steps": "optimizer steps",
        "skipped_steps": "steps skipped",
        "tokens": "tokens",
        "labels": "labels",
        "trained_parameters": "trained parameters",
        "loss_first": "loss of the first step",
        "loss_last": "mean loss of the last 5 steps",
        "step_s": "seconds a step (median)",
        "tokens_per_s": "tokens/s",
    }
    rows = [[label, summary[key]] for key, label in names.items() if key in summary]
    return [Section("Training", [Table(["", "value"], rows)])]


TRAIN = StageType(
    name="train",
    version=1,
    config=TrainConfig,
    run=run_train,
    loads=("sharpen.train.run",),
    makes=lambda config: "adapter" if config.adapts and not config.merge else "model",
    needs=("dataset",),
    optional=("model",),
    needs_model=True,
    may_change=MAY_CHANGE,
    predict=predict_train,
    report=_report,
    curve="loss",
)
