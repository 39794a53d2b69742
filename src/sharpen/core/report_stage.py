"""The ``report`` stage: ``report.html`` of a run, from its summary, plan and metrics.

Every stage type may add sections by its ``report`` hook; this adds what spans stages: predicted
against measured, and the curves of ``metrics.jsonl``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.core.config import read_json
from sharpen.core.errors import ConfigError
from sharpen.core.report import Chart, Section, Series, Table, Text, shorten, write_html
from sharpen.core.samples import SampleLog, samples_path, spread_steps
from sharpen.core.signals import Curve, Panel, Remark, curves_of, logged
from sharpen.core.stage import Prediction, RunView, StageContext, StageResult, StageType

__all__ = ["REPORT", "ReportConfig", "run_report"]

_UNITS = {"loss": "nats per label"}
_POINTS = 2000
_SAMPLES_A_STEP = 4
_LONGEST_SAMPLE = 2000  # characters


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """What the report shows."""

    title: str | None = None
    """Heading; default the run's name."""

    charts: tuple[str, ...] = ("loss",)
    """Names in ``metrics.jsonl`` to draw over steps."""

    samples: int = 3
    """Steps of which samples are shown, from the first to the last; 0 shows none."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.samples < 0 or self.samples == 1:
            raise ConfigError(f"samples={self.samples} of the report must be 0, or 2 at least.")


def run_report(config: ReportConfig, context: StageContext) -> StageResult:
    """Write ``report.html`` into the run folder."""
    run = context.run
    assert run is not None
    environment = read_json(context.output / "environment.json", "environment")
    sections: list[Section] = []
    if run.predictions:
        sections.append(plan_section(run.predictions, run.summary))
    for name, stage_type in run.stage_types.items():
        if stage_type.report is not None and name in run.summary:
            sections += stage_type.report(dict(run.summary[name]))
        curves = curves_of(run.metrics, name)
        if stage_type.check is not None and (remarks := stage_type.check(curves)):
            sections.append(_remarks(name, remarks))
        charts = [_chart(name, metric, curves) for metric in config.charts if _has(curves, metric)]
        drawn = [one for one in curves if _has(curves, one)]
        charts += [_panel(one, curves) for one in logged(stage_type.panels, drawn)]
        if charts:
            sections.append(Section(f"{name}: curves", charts))
        samples = SampleLog(samples_path(context.output, name))
        if config.samples and (steps := samples.steps()):
            sections.append(_samples(name, samples, spread_steps(steps, config.samples)))
    sections.append(_environment(environment, run))
    write_html(
        context.output / "report.html",
        config.title or f"Run {run.name}",
        sections,
        subtitle=f"sharpen {environment['sharpen']}, {environment['cores']} cores, "
        f"{environment['memory_bytes'] / 2**30:.1f} GiB",
    )
    return StageResult(results={"sections": len(sections)})


def plan_section(predictions: Mapping[str, Prediction], summary: Mapping[str, Any]) -> Section:
    """Predicted against measured: peak memory and time a step (or of the whole stage)."""
    rows: list[Sequence[Any]] = []
    charts: list[Chart] = []
    pairs: dict[str, list[tuple[str, float, float]]] = {"memory": [], "time": []}
    for name, prediction in predictions.items():
        measured = summary.get(name, {})
        peak = measured.get("peak_bytes")
        rows.append(
            [name, "peak memory, GiB", prediction.peak_bytes / 2**30, peak and peak / 2**30]
        )
        if peak:
            pairs["memory"].append((name, prediction.peak_bytes / 2**30, peak / 2**30))
        per_step = prediction.step_s is not None
        foreseen = prediction.step_s if per_step else prediction.time_s
        seen = measured.get("step_s" if per_step else "time_s")
        if foreseen is not None:
            rows.append([name, "seconds a step" if per_step else "seconds", foreseen, seen])
            if seen:
                pairs["time"].append((name, foreseen, seen))
    for key, unit in (("memory", "GiB"), ("time", "seconds")):
        if pairs[key]:
            names = [name for name, _, _ in pairs[key]]
            charts.append(
                Chart(
                    f"Predicted and measured {key}",
                    [
                        Series("predicted", names, [p for _, p, _ in pairs[key]]),
                        Series("measured", names, [m for _, _, m in pairs[key]]),
                    ],
                    "stage",
                    unit,
                    kind="bar",
                )
            )
    table = Table(
        ["stage", "", "predicted", "measured", "error"],
        [[*row, _error(row[2], row[3])] for row in rows],
    )
    return Section("Plan: predicted and measured", [table, *charts])


def _error(foreseen: float, seen: float | None) -> str:
    return f"{foreseen / seen - 1:+.0%}" if seen else "–"


def _has(curves: Mapping[str, Curve], metric: str) -> bool:
    return metric in curves and len(curves[metric].steps) > 1


def _chart(stage: str, metric: str, curves: Mapping[str, Curve]) -> Chart:
    label = metric + (f", {_UNITS[metric]}" if metric in _UNITS else "")
    curve = curves[metric]
    return Chart(f"{stage}: {metric}", [Series(metric, *_thinned(curve))], "step", label)


def _panel(panel: Panel, curves: Mapping[str, Curve]) -> Chart:
    series = [Series(label, *_thinned(curves[name])) for name, label in panel.lines.items()]
    return Chart(panel.title, series, "step", panel.unit)


def _thinned(curve: Curve) -> tuple[list[float], list[float]]:
    every = -(-len(curve.steps) // _POINTS)
    return curve.steps[::every], curve.values[::every]


def _remarks(stage: str, remarks: Sequence[Remark]) -> Section:
    rows = [[remark.signal, remark.text] for remark in remarks]
    return Section(f"{stage}: worth a look", [Table(["signal", "what it says"], rows)])


def _samples(stage: str, samples: SampleLog, steps: Sequence[int]) -> Section:
    """A few samples of these steps."""
    columns = ("step", "reward", "prompt", "completion")
    rows: list[list[Any]] = []
    for step in steps:
        for found in samples.at(step)[:_SAMPLES_A_STEP]:
            texts = (shorten(str(found.get(name, "")), _LONGEST_SAMPLE) for name in columns[2:])
            rows.append([step, found.get("reward"), *texts])
    return Section(f"{stage}: samples", [Table(columns, rows)])


def _environment(environment: Mapping[str, Any], run: RunView) -> Section:
    rows = [
        ["platform", environment["platform"]],
        ["Python", environment["python"]],
        *([name, version] for name, version in environment["packages"].items()),
    ]
    seconds = [
        f"{name} {float(part['time_s']):.1f} s"
        for name, part in run.summary.items()
        if isinstance(part, Mapping) and "time_s" in part and name in run.stage_types
    ]
    return Section(
        "Environment", [Table(["", "version"], rows), Text("Stages took: " + ", ".join(seconds))]
    )


REPORT = StageType(
    name="report",
    version=1,
    config=ReportConfig,
    run=run_report,
    makes="report",
    addressed=False,
)
