"""The ``eval`` stage: a model before and after training, on held-out examples and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sharpen.core.files import sha256_file
from sharpen.core.report import Section, Table, Text
from sharpen.core.stage import RecipeContext, StageContext, StageResult, StageType
from sharpen.eval.config import EvalConfig

__all__ = ["EVAL"]


def run_eval(config: EvalConfig, context: StageContext) -> StageResult:
    """Measure the recipe's model and, when one was trained, what came of it."""
    from sharpen.eval.run import run_eval as run  # loads torch, which plans do not need

    return run(config, context)


def _fingerprint(config: EvalConfig, context: RecipeContext) -> Any:
    """The bytes of the files it reads belong in the address."""
    files = [*([config.text] if config.text is not None else []), *config.tasks]
    return [sha256_file(context.resolve(file)) for file in files]


def _report(summary: dict[str, Any]) -> list[Section]:
    rows = []
    for prefix, part in _parts(summary):
        names = list(dict.fromkeys(k.removesuffix("_before").removesuffix("_after") for k in part))
        for name in names:
            values = [part.get(f"{name}{end}") for end in ("_before", "_after")]
            if values == [None, None]:
                values = [part[name], None]
            rows.append([f"{prefix}{name}", *values])
    trained = any(row[2] is not None for row in rows)
    columns = ["metric", "before", "after"] if trained else ["metric", "value"]
    blocks: list[Text | Table] = [Table(columns, [row[: len(columns)] for row in rows])]
    for sample in summary.get("samples") or ():
        text = "\n\n".join(f"{name.upper()}\n{value}" for name, value in sample.items())
        blocks.append(Text(text, preformatted=True))
    return [Section("Evaluation", blocks)]


def _parts(summary: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The plain metrics, then those of each task, with a prefix for their names."""
    measured = ("labels", "peak_bytes", "time_s", "step_s")

    def plain(part: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in part.items() if isinstance(v, (int, float)) and k not in measured}

    tasks = [(f"{k}: ", plain(v)) for k, v in summary.items() if isinstance(v, Mapping)]
    return [("", plain(summary)), *tasks]


EVAL = StageType(
    name="eval",
    version=1,
    config=EvalConfig,
    run=run_eval,
    loads=("sharpen.eval.run",),
    makes="report",
    optional=("dataset", "model", "adapter"),
    needs_model=True,
    fingerprint=_fingerprint,
    report=_report,
    minimizes="loss_after",
)
