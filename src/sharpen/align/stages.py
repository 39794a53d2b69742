"""The ``align`` stage: a model and feedback in, an adapter or a model out."""

from __future__ import annotations

from typing import Any

from sharpen.align.config import MAY_CHANGE, AlignConfig
from sharpen.core.files import sha256_file
from sharpen.core.report import Section, Table
from sharpen.core.stage import Prediction, RecipeContext, StageContext, StageResult, StageType

__all__ = ["ALIGN"]


def _run(config: AlignConfig, context: StageContext) -> StageResult:
    from sharpen.align.run import run_align  # loads torch, which plans do not need

    return run_align(config, context)


def _fingerprint(config: AlignConfig, context: RecipeContext) -> Any:
    """Hashes of the rows, and of a reward's file."""
    from sharpen.data.finding import matching_files
    from sharpen.data.mixing import FileRows

    found: dict[str, Any] = {}
    if config.data:
        found["data"] = FileRows(matching_files(context.resolve(config.data))).fingerprint()
    for uses in (config.reward.uses if config.reward is not None else "", config.world):
        path, separator, _ = uses.rpartition(":")
        if separator and path.endswith(".py"):
            found[uses] = sha256_file(context.resolve(path))
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
        "generate_s": "seconds of generating",
        "reward_wait_s": "seconds of waiting for rewards",
        "score_s": "seconds of scoring",
        "step_s": "seconds a step (median)",
    }
    rows = [[label, str(summary[key])] for key, label in names.items() if key in summary]
    return [Section("Alignment", [Table(["", "value"], rows)])]


ALIGN = StageType(
    name="align",
    version=1,
    config=AlignConfig,
    run=_run,
    makes=lambda config: (
        "adapter" if config.adapts and not config.merge and config.method != "rm" else "model"
    ),
    optional=("model",),
    needs_model=True,
    may_change=MAY_CHANGE,
    fingerprint=_fingerprint,
    predict=_predict,
    report=_report,
    curve="loss",
)
"""The stage type."""
