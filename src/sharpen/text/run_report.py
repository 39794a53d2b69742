"""What an optimizer of a program did: the program drawn, all versions of parameters, the cost.

One HTML file that needs no network; for optimizers that were stepped by hand and for those that a
study ran.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.core.feedback import Trial
from sharpen.core.report import Chart, Picture, Section, Series, Table, Text, write_html
from sharpen.text.listing import elided, shown
from sharpen.text.nodes import Node

if TYPE_CHECKING:
    from sharpen.core.lm.client import LM
    from sharpen.text.optimizers.base import TextOptimizer

__all__ = ["write_report"]

_REMARK = 1500  # characters of a remark in the table

Block = Text | Table | Chart | Picture


def write_report(
    path: str | Path,
    optimizer: TextOptimizer,
    *,
    output: Node | None = None,
    lm: LM | None = None,
    title: str = "Program search",
) -> None:
    """Write a report; it has a chart where plotly is installed.

    Args:
        path: the HTML file.
        optimizer: its history is what is reported.
        output: of a run of the program, to draw it.
        lm: the model whose calls are counted.
        title: of the page.

    Raises:
        StorageError: it cannot be written.
        GraphFreedError: the tape that recorded ``output`` has ended.
    """
    known = {**optimizer.pending, **optimizer.history}
    trials = [known[number] for number in sorted(known)]  # with values that are not judged yet
    (objective,) = optimizer.objectives
    best = optimizer.best_trial()
    shown_as_best = best or (trials[-1] if trials else None)
    sections = [Section("Result", _result(trials, objective.name, best))]
    if output is not None:
        from sharpen.text.drawing import Drawing

        sections.append(Drawing(output).section())
    for name in optimizer.variables:
        sections.append(Section(name, _versions(name, trials, objective.name, shown_as_best)))
    sections.append(Section("Feedback", [_remarks(trials, objective.name)]))
    if lm is not None:
        rows = [[name, value] for name, value in asdict(lm.usage).items()]
        sections.append(Section("Cost", [Table(["", ""], rows)]))
    write_html(Path(path), title, sections, subtitle=type(optimizer).__name__)


def _score(trial: Trial | None, objective: str) -> float:
    if trial is None or trial.feedback is None:
        return float("nan")
    return float(trial.feedback.objectives.get(objective, float("nan")))


def _result(trials: Sequence[Trial], objective: str, best: Trial | None) -> list[Block]:
    first = trials[0] if trials else None
    rows: list[list[Any]] = [
        ["trials", len(trials)],
        [f"{objective} at first", _score(first, objective)],
        [f"best {objective}", _score(best, objective)],
        ["trial of the best", None if best is None else best.number],
    ]
    blocks: list[Block] = [Table(["", ""], rows)]
    if trials and importlib.util.find_spec("plotly") is not None:
        numbers = [trial.number for trial in trials]
        scores = [_score(trial, objective) for trial in trials]
        blocks.append(
            Chart(objective, [Series(objective, numbers, scores)], "trial", objective, "scatter")
        )
    return blocks


def _versions(
    name: str, trials: Sequence[Trial], objective: str, best: Trial | None
) -> list[Block]:
    """Each value a parameter had, the trials that had it, and what the best (or last) changed."""
    seen: dict[str, list[Trial]] = {}
    for trial in trials:
        if name in trial.config:
            seen.setdefault(shown(trial.config[name]), []).append(trial)
    if not seen:
        return [Text("no trial has told of it")]
    rows = [
        [
            k,
            ", ".join(str(trial.number) for trial in having),
            max((_score(trial, objective) for trial in having), default=float("nan")),
            value,
        ]
        for k, (value, having) in enumerate(seen.items())
    ]
    blocks: list[Block] = []
    if best is not None and name in best.config:
        before, after = next(iter(seen)), shown(best.config[name])
        blocks.append(Text(after, preformatted=True))
        blocks.append(Text(f"Changes:\n{_difference(before, after)}", preformatted=True))
    return [*blocks, Table(["version", "trials", objective, "value"], rows)]


def _difference(before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "first", "found", lineterm=""
    )
    return "\n".join(lines) or "none"


def _remarks(trials: Sequence[Trial], objective: str) -> Table:
    rows = []
    for trial in trials:
        if trial.feedback is None:
            continue
        said = [remark.body for remark in trial.feedback.text]
        said += [trial.feedback.error] if trial.feedback.error else []
        cost = _cost(trial.feedback.cost)
        text = elided("\n".join(said), _REMARK)
        rows.append([trial.number, trial.state, _score(trial, objective), cost, text])
    return Table(["trial", "ended", objective, "cost", "said"], rows)


def _cost(cost: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in cost.items())
