"""What ``sharpen plan cluster`` asks and prints."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sharpen.cli.common import Output, error_console, flags
from sharpen.cli.figure import new_figure
from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.model_spec import ModelSpec
from sharpen.plan.serving.designs import Choice, Objective, make_design, search_designs
from sharpen.plan.serving.machines import MODELS, ServedModel, machine
from sharpen.plan.serving.slo import SLO
from sharpen.plan.serving.traces import KINDS, Trace, synthetic_trace
from sharpen.serve.simulate.cluster import SimConfig
from sharpen.serve.simulate.designs import DesignSim

__all__ = ["ClusterQuestion", "answer"]

_REFERENCE = "dgx-a100"  # slow-downs are against a request alone on it


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterQuestion:
    """The command's options, as given."""

    trace: str
    objective: str
    budget: str
    model: str
    designs: str
    slo: str
    batching: str
    overlap: str
    seconds: float
    seed: int


def answer(question: ClusterQuestion, output: Path | None, plot: Path | None) -> Output:
    """Search and render.

    Raises:
        ConfigError: an option cannot be read, or the picture could not be written.
    """
    figure = new_figure(plot, (7, 4)) if plot is not None else None
    model, spec = _model(question.model)
    names = [name.strip() for name in question.designs.split(",") if name.strip()]
    chosen = [make_design(name, model, spec) for name in names]
    if not chosen:
        raise ConfigError("--designs names none. Give for example AA,HA.")
    if not question.seconds > 0:
        raise ConfigError(f"--seconds {question.seconds} must be above 0.")
    target = _target(question.objective, question.budget)
    sample, at_rate = _trace(question)
    sim = DesignSim(
        model=model,
        trace=at_rate,
        alone=machine(_REFERENCE, model, spec=spec).perf,
        slo=_slo(question.slo),
        config=SimConfig(batching=cast(Any, question.batching)),
        overlap=cast(Any, question.overlap),
    )
    if not flags.quiet and not flags.as_json:
        error_console().print(f"simulating {', '.join(names)} ...")
    objective = cast(Objective, question.objective)
    found = search_designs(chosen, sample, sim, objective, target)
    reports = [sim.report(one) for one in found]
    reached = {one.design.name for one in found}
    document = {
        "objective": question.objective,
        "budget": target,
        "model": question.model,
        "times": "table" if spec is None else "roofline",
        "batching": question.batching,
        "slo": {name: list(values) for name, values in sim.slo.limits.items()},
        "simulations": sim.runs,
        "designs": reports,
        "none_found": [name for name in names if name not in reached],
    }
    if output is not None:
        output.write_text(json.dumps(document, indent=1) + "\n")
    if plot is not None and figure is not None:
        _draw(figure, found, question)
        figure.savefig(plot, dpi=150)

    def render(console: Any) -> None:
        console.print(_table(found, question))
        if document["none_found"]:
            missing = ", ".join(cast(list[str], document["none_found"]))
            console.print(f"no cluster within the limits: {missing}")

    return Output(document, render, 0 if found else 1)


def _model(name: str) -> tuple[ServedModel, ModelSpec | None]:
    """What is served, and its shape where no runs of it are known."""
    if name in MODELS:
        return MODELS[name], None
    if not Path(name).exists():
        raise ConfigError(
            f"there are no runs of {name!r}, and no such folder.{did_you_mean(name, MODELS)} "
            f"Known: {', '.join(MODELS)}; of others give a folder with config.json."
        )
    spec = ModelSpec.from_ref(name)
    return ServedModel.of(spec, name), spec


def _target(objective: str, budget: str) -> float:
    read = re.fullmatch(r"\s*\$?\s*(\d+(?:\.\d+)?)\s*(kW|MW|W|/h|\$/h|)\s*", budget)
    if read is None:
        raise ConfigError(
            f"--budget {budget!r} is none. Write 116kW for iso-power, 760 (dollars an hour) for "
            "iso-cost, or requests a second for min-*."
        )
    unit = read[2]
    if (unit in ("kW", "MW", "W")) != (objective == "iso-power"):
        raise ConfigError(
            f"--budget {budget!r} does not fit {objective}: iso-power takes W, kW or MW, and "
            "nothing else does."
        )
    return float(read[1]) * {"kW": 1e3, "MW": 1e6}.get(unit, 1.0)


def _slo(text: str) -> SLO:
    if text == "default":
        return SLO()
    limits = {}
    for part in text.split(","):
        name, _, values = part.partition("=")
        try:
            p50, p90, p99 = (float(value) for value in values.split("/"))
        except ValueError:
            raise ConfigError(
                f"--slo {part!r} is no limit. Write for example ttft=2/3/6 (p50, p90, p99)."
            ) from None
        limits[name.strip()] = (p50, p90, p99)
    return SLO(limits)


def _trace(question: ClusterQuestion) -> tuple[Trace, Any]:
    """Some requests for their lengths, and requests at any rate."""
    if question.trace in KINDS:

        def drawn(rate: float) -> Trace:
            return synthetic_trace(
                question.trace, rate=rate, seconds=question.seconds, seed=question.seed
            )

        return synthetic_trace(question.trace, rate=20, seconds=60, seed=question.seed), drawn
    read = Trace.read(question.trace)
    if not read.rate:
        raise ConfigError(f"{question.trace} needs at least two requests at different times.")
    return read, lambda rate: read.at_rate(rate).until(question.seconds)


def _table(found: list[Choice], question: ClusterQuestion) -> Any:
    from rich.table import Table

    table = Table(title=f"{question.model}, {question.trace}: {question.objective}")
    for name in ("design", "prompt", "token", "requests/s", "kW", "$/h", "requests/$"):
        table.add_column(name, justify="left" if name == "design" else "right")
    for one in found:
        table.add_row(
            one.design.name,
            str(one.prompts),
            str(one.tokens) if one.design.token else "-",
            f"{one.rate:.1f}",
            f"{one.power_w / 1e3:.1f}",
            f"{one.cost_per_h:.0f}",
            f"{one.rate * 3600 / one.cost_per_h:.0f}",
        )
    return table


def _draw(figure: Any, found: list[Choice], question: ClusterQuestion) -> None:
    axes = figure.subplots()
    for one, marker in zip(found, "osD^v*Px" * 4, strict=False):
        axes.plot(one.cost_per_h, one.rate, marker, color="0.25", markersize=9)
        label = f"{one.design.name} {one.prompts}" + (f"+{one.tokens}" if one.tokens else "")
        axes.annotate(label, (one.cost_per_h, one.rate), xytext=(8, 4), textcoords="offset points")
    axes.set_xlabel("cost, dollars an hour")
    axes.set_ylabel("requests a second within the limits")
    axes.set_title(f"{question.model}, {question.trace}: {question.objective} {question.budget}")
    axes.margins(0.25)
    axes.grid(alpha=0.3)
