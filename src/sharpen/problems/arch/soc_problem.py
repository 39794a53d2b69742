"""The search for a system on a chip that keeps budgets of latency, power and area.

Behzad Boroujerdian et al., "FARSI", ACM TECS 22, 2023 (see :mod:`sharpen.problems.arch.soc`), in
its limited form: up to three processors, memories and buses.

The space has as many parameters as the system has blocks: a parameter of the third processor is
active where there are three, and where a task runs is asked once for each number of processors, so
that no two configurations are one system by other names.

The applications are made up for this problem: pipelines of the shape that vision, audio and a small
network on a device have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.core.conditions import Eq, Gt
from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.parameters import Categorical, Int, Ordinal, Parameter
from sharpen.core.problem import Constraint, Objective, TrialContext
from sharpen.core.space import Space
from sharpen.problems.arch.soc import MEMORIES, PROCESSORS, Metrics, Soc, Task, simulate

__all__ = ["APPLICATIONS", "SocProblem"]

_MOST = 3
_METRICS = ("latency", "power", "area")

APPLICATIONS: dict[str, tuple[Task, ...]] = {
    "vision": (
        Task("capture", 20, 4.0),
        Task("blur", 160, 4.0, ("capture",), 12),
        Task("gradient", 240, 8.0, ("blur",), 16),
        Task("corners", 120, 0.5, ("gradient",), 8),
        Task("edges", 200, 1.0, ("gradient",), 12),
        Task("match", 90, 0.2, ("corners",), 3),
        Task("draw", 30, 4.0, ("edges", "match", "capture"), 2),
    ),
    "audio": (
        Task("unpack", 10, 1.0),
        *(Task(f"band{k}", 80, 0.5, ("unpack",), 10) for k in range(3)),
        Task("mix", 20, 0.5, ("band0", "band1", "band2"), 4),
        Task("effects", 60, 0.5, ("mix",), 6),
    ),
    "network": (
        Task("resize", 40, 0.6, (), 4),
        Task("features", 1200, 1.6, ("resize",), 24),
        Task("boxes", 300, 0.4, ("features",), 20),
        Task("classes", 260, 0.2, ("features",), 20),
        Task("select", 15, 0.1, ("boxes", "classes"), 1),
    ),
}
"""Tasks by application."""

BUDGETS: dict[str, dict[str, float]] = {
    "vision": {"latency": 12.0, "power": 500.0, "area": 7.0},
    "audio": {"latency": 6.5, "power": 250.0, "area": 4.5},
    "network": {"latency": 15.0, "power": 450.0, "area": 6.0},
}
"""Milliseconds, milliwatts and square millimetres, by application."""


class SocProblem:
    """Find blocks, their connections and a mapping of tasks that keep a budget.

    The objective is ``distance``, to be minimized: 0 within all budgets. ``latency`` (ms),
    ``power`` (mW), ``area`` (mm2) and ``energy`` (mJ) are kept beside it.

    Args:
        workload: one of :data:`APPLICATIONS`, or tasks.
        budgets: of ``latency``, ``power`` and ``area``; tasks of your own need all three.
        weights: the alphas of the distance; default 1 each.

    Raises:
        ConfigError: an unknown application or metric, or a number that is not positive.
    """

    def __init__(
        self,
        workload: str | Sequence[Task] = "vision",
        *,
        budgets: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if isinstance(workload, str) and workload not in APPLICATIONS:
            raise ConfigError(
                f"there is no application '{workload}'.{did_you_mean(workload, APPLICATIONS)} "
                f"Known: {', '.join(APPLICATIONS)}; or give tasks."
            )
        self.tasks = APPLICATIONS[workload] if isinstance(workload, str) else tuple(workload)
        if not self.tasks or len({task.name for task in self.tasks}) < len(self.tasks):
            raise ConfigError("an application needs tasks with names of their own.")
        known = BUDGETS[workload] if isinstance(workload, str) else {}
        self.budgets = {**known, **_positive("budgets", budgets)}
        self.weights = {**dict.fromkeys(_METRICS, 1.0), **_positive("weights", weights)}
        lacking = [name for name in _METRICS if name not in self.budgets]
        if lacking:
            raise ConfigError(f"tasks of your own need budgets of {', '.join(lacking)} too.")
        self.name = f"soc-{workload if isinstance(workload, str) else f'{len(self.tasks)}-tasks'}"
        self.space = self._space()
        self.objectives = (Objective("distance"),)
        self.constraints: tuple[Constraint, ...] = ()

    def _space(self) -> Space:
        found: dict[str, Parameter] = {}
        for blocks in ("processors", "memories", "buses"):
            found[blocks] = Int(1, _MOST)
        kinds = {"processors": PROCESSORS, "memories": MEMORIES}
        for blocks, known in kinds.items():
            for k in range(_MOST):
                there = Gt(blocks, k)
                found[f"{blocks}.{k}.kind"] = Categorical(*known).active_if(there)
                clocks = Ordinal([0.4, 0.8, 1.2, 1.6], default=0.8)
                found[f"{blocks}.{k}.ghz"] = clocks.active_if(there)
                for count in range(2, _MOST + 1):
                    both = there & Eq("buses", count)
                    found[f"{blocks}.{k}.bus-of-{count}"] = Int(0, count - 1).active_if(both)
        for k in range(_MOST):
            widths = Ordinal([4, 8, 16, 32], default=8)
            found[f"buses.{k}.bytes"] = widths.active_if(Gt("buses", k))
        for task in self.tasks:
            for blocks in kinds:
                for count in range(2, _MOST + 1):
                    place = Int(0, count - 1).active_if(Eq(blocks, count))
                    found[f"{task.name}.{blocks}-of-{count}"] = place
        return Space(found)

    def system(self, config: Mapping[str, Any]) -> Soc:
        """The system that a configuration describes."""
        buses = int(config["buses"])

        def blocks(name: str) -> tuple[tuple[str, float, int], ...]:
            return tuple(
                (
                    str(config[f"{name}.{k}.kind"]),
                    float(config[f"{name}.{k}.ghz"]),
                    int(config.get(f"{name}.{k}.bus-of-{buses}", 0)),
                )
                for k in range(int(config[name]))
            )

        def places(name: str) -> dict[str, int]:
            key = f"{name}-of-{config[name]}"
            return {task.name: int(config.get(f"{task.name}.{key}", 0)) for task in self.tasks}

        return Soc(
            processors=blocks("processors"),
            memories=blocks("memories"),
            buses=tuple(int(config[f"buses.{k}.bytes"]) for k in range(buses)),
            runs_on=places("processors"),
            lies_in=places("memories"),
        )

    def simulate(self, config: Mapping[str, Any]) -> Metrics:
        """What the application takes on the system of a configuration."""
        return simulate(self.tasks, self.system(config))

    def evaluate(self, config: dict[str, Any], trial: TrialContext | None = None) -> dict[str, Any]:
        """The distance to the budgets, and what was observed."""
        found = self.simulate(config)
        metrics = {
            "latency": found.latency,
            "power": found.power,
            "area": found.area,
            "energy": found.energy,
        }
        return {**self.score(metrics), **metrics}

    def score(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The objective of measured or predicted metrics."""
        far = [
            self.weights[name] * max(0.0, metrics[name] - budget) / budget
            for name, budget in self.budgets.items()
        ]
        return {"distance": sum(far)}


def _positive(what: str, given: Mapping[str, float] | None) -> dict[str, float]:
    for name, value in (given or {}).items():
        if name not in _METRICS:
            raise ConfigError(f"{what} has '{name}'; there are {', '.join(_METRICS)}.")
        if not 0 < value < float("inf"):
            raise ConfigError(f"{what}[{name!r}]={value} must be positive.")
    return {name: float(value) for name, value in (given or {}).items()}
