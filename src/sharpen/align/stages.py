"""The ``align`` stage: a model and feedback in, an adapter or a model out."""

from __future__ import annotations

from typing import Any

from sharpen.align.config import MAY_CHANGE, AlignConfig
from sharpen.align.health import PANELS, check_health
from sharpen.align.places import file_of, instructions_of
from sharpen.core.files import sha256_file
from sharpen.core.report import Section, Table
from sharpen.core.stage import Prediction, RecipeContext, StageContext, StageResult, StageType

__all__ = ["ALIGN"]


def _run(config: AlignConfig, context: StageContext) -> StageResult:
    from sharpen.align.run import run_align  # loads torch, which plans do not need

    return run_align(config, context)


def _fingerprint(config: AlignConfig, context: RecipeContext) -> Any:
    """Hashes of the rows, and of a reward's file or model."""
    from sharpen.core.fingerprint import model_fingerprint
    from sharpen.data.finding import matching_files
    from sharpen.data.mixing import FileRows

    found: dict[str, Any] = {}
    if config.data:
        found["data"] = FileRows(matching_files(context.resolve(config.data))).fingerprint()
    if config.reward is not None:
        for path in config.reward.files(context.resolve):
            found.setdefault("reward", []).append(model_fingerprint(str(path)))
    if (world := file_of(config.world)) is not None:
        found[config.world] = sha256_file(context.resolve(world))
    if config.instructions:
        found["instructions"] = instructions_of(config.instructions, context.resolve)
    return found


def _predict(config: AlignConfig, context: RecipeContext) -> Prediction:
    from sharpen.align.predict import predict_align

    return predict_align(config, context)


def _report(summary: dict[str, Any]) -> list[Section]:
    names = {
        "steps": "optimizer steps",
        "skipped_steps": "steps skipped",
        "rows": "rows",
        "dropped": "rows left out",
        "labels": "tokens learnt from",
        "trained_parameters": "trained parameters",
        "loss_first": "loss of the first step",
        "loss_last": "mean loss of the last 5 steps",
        "reward_first": "mean reward of the first batch",
        "reward_last": "mean reward of the last 5 batches",
        "success_first": "episodes of the first batch that succeed, share",
        "success_last": "episodes of the last 5 batches that succeed, share",
        "success_after_last": "the same tasks after learning from them, share",
        "pairs_last": "pairs of steps of the last 5 batches, mean",
        "generate_s": "seconds of generating",
        "reward_wait_s": "seconds of waiting for rewards",
        "score_s": "seconds of scoring",
        "step_s": "seconds a step (median)",
    }
    told = {key: summary[key] for key in names if key in summary}
    if "dropped" in told:
        told["dropped"] = sum(told["dropped"].values())
    rows = [[label, told[key]] for key, label in names.items() if key in told]
    return [Section("Alignment", [Table(["", "value"], rows)])]


ALIGN = StageType(
    name="align",
    version=1,
    config=AlignConfig,
    run=_run,
    loads=("sharpen.align.run",),
    makes=lambda config: (
        "adapter" if config.adapts and not config.merge and config.method != "rm" else "model"
    ),
    optional=("model",),
    needs_model=True,
    may_change=MAY_CHANGE,
    fingerprint=_fingerprint,
    predict=_predict,
    report=_report,
    panels=PANELS,
    check=check_health,
    curve="loss",
)
"""The stage type."""
