"""Signals: numbers of a run that are looked at together, and what is to be said of their course.

A stage type declares its panels and checks (:class:`~sharpen.core.stage.StageType`); the page of
``sharpen ui`` and the report of a run show them alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Curve", "Panel", "Remark", "curves_of", "logged"]

_FEW = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Signals of one unit, drawn into one chart."""

    title: str
    """What they are about."""

    unit: str
    """The label of the axis."""

    lines: Mapping[str, str]
    """Names in ``metrics.jsonl``, and what each is called in the legend."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A number over steps; NaN where it was not finite."""

    steps: list[float]
    values: list[float]

    def first(self, count: int = _FEW) -> float:
        """Mean of the first finite values; NaN of none."""
        return _mean([value for value in self.values if math.isfinite(value)][:count])

    def last(self, count: int = _FEW) -> float:
        """Mean of the last finite values; NaN of none."""
        return _mean([value for value in self.values if math.isfinite(value)][-count:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A signal that is not as it should be."""

    signal: str
    """Its name in ``metrics.jsonl``."""

    text: str
    """What is seen, what it means, and what to do."""


def curves_of(rows: Iterable[Mapping[str, Any]], stage: str) -> dict[str, Curve]:
    """By name, the numbers that a stage has logged with a step.

    Args:
        rows: of ``metrics.jsonl``.
        stage: its name.
    """
    found: dict[str, Curve] = {}
    for row in rows:
        if row.get("stage") != stage or row.get("step") is None:
            continue
        curve = found.setdefault(str(row["name"]), Curve([], []))
        curve.steps.append(float(row["step"]))
        value = row.get("value")
        curve.values.append(math.nan if value is None else float(value))
    return found


def logged(panels: Iterable[Panel], names: Iterable[str]) -> list[Panel]:
    """The panels with those of their lines whose names are there; none is empty."""
    known = set(names)
    found = []
    for panel in panels:
        lines = {name: label for name, label in panel.lines.items() if name in known}
        if lines:
            found.append(Panel(title=panel.title, unit=panel.unit, lines=lines))
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
