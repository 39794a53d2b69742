"""Plans of recipes: will it fit, what takes the memory, how long, what to change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.core.config import to_dict
from sharpen.core.recipe import load_recipe
from sharpen.core.run import predict
from sharpen.core.stage import Prediction
from sharpen.plan.device import DeviceProfile, load_profile

__all__ = ["Plan", "recipe"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe will need on a device."""

    name: str
    """The recipe's name."""

    device: DeviceProfile
    """The device it is planned for."""

    stages: Mapping[str, Prediction]
    """Stages that can be foreseen, by name."""

    unplanned: tuple[str, ...]
    """Stages that cannot."""

    @property
    def memory_bytes(self) -> int:
        """Memory of the device."""
        return self.device.memory_bytes

    @property
    def peak_bytes(self) -> int:
        """Highest memory of any stage; stages run one after another."""
        return max((p.peak_bytes for p in self.stages.values()), default=0)

    @property
    def fits(self) -> bool:
        """Whether every stage fits the device's memory."""
        return self.peak_bytes <= self.memory_bytes

    @property
    def step_s(self) -> float | None:
        """Seconds of a step of the slowest stage that has steps."""
        return max((p.step_s for p in self.stages.values() if p.step_s is not None), default=None)

    @property
    def time_s(self) -> float:
        """Seconds of all stages that can be foreseen."""
        return sum(p.time_s or 0.0 for p in self.stages.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``sharpen plan --json`` prints it."""
        return {
            "name": self.name,
            "fits": self.fits,
            "memory_bytes": self.memory_bytes,
            "peak_bytes": self.peak_bytes,
            "step_s": self.step_s,
            "time_s": self.time_s,
            "device": {
                "name": self.device.name,
                "threads": self.device.threads,
                "copy_gbps": self.device.copy_gbps,
                "peak_gflops": {k: t.peak for k, t in self.device.matmul.items()},
            },
            "stages": {name: to_dict(p) for name, p in self.stages.items()},
            "unplanned": list(self.unplanned),
        }

    def table(self) -> str:
        """The plan as text: memory by part, time, verdict, remedies."""
        lines = [
            f"{self.name} on {self.device.name}, {self.device.threads} threads, "
            f"{_gib(self.memory_bytes)}",
            "",
            f"{'stage':<12}{'part':<14}{'memory':>12}{'share':>8}",
        ]
        for name, p in self.stages.items():
            label = name
            for part, size in sorted(p.parts.items(), key=lambda item: -item[1]):
                lines.append(f"{label:<12}{part:<14}{_gib(size):>12}{size / p.peak_bytes:>8.0%}")
                label = ""
            verdict = "fits" if p.peak_bytes <= self.memory_bytes else "DOES NOT FIT"
            lines.append(f"{label:<12}{'peak':<14}{_gib(p.peak_bytes):>12}  {verdict}")
            if p.step_s is not None and p.steps is not None:
                lines.append(
                    f"{'':<12}{'time':<14}{_time(p.step_s):>12}  a step, {p.steps} steps: "
                    f"{_time(p.time_s or 0.0)}"
                )
            elif p.time_s is not None:
                lines.append(f"{'':<12}{'time':<14}{_time(p.time_s):>12}")
        if self.unplanned:
            lines.append(f"not planned: {', '.join(self.unplanned)}")
        lines.append("")
        if self.fits:
            lines.append(f"It fits: {_gib(self.peak_bytes)} of {_gib(self.memory_bytes)}.")
        else:
            lines.append(
                f"It does not fit: {_gib(self.peak_bytes)} needed, {_gib(self.memory_bytes)} there."
            )
        heading = "To need less:" if self.fits else "To make it fit:"
        remedies = [
            remedy
            for p in self.stages.values()
            if self.fits or p.peak_bytes > self.memory_bytes
            for remedy in p.remedies
        ]
        if remedies:
            lines.append(heading)
            lines += [f"  {remedy}" for remedy in remedies]
        return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    device: DeviceProfile | None = None,
) -> Plan:
    """Plan a recipe without running it; no weights are read.

    Args:
        source: a YAML file, or the same as plain data.
        overrides: ``["train.lr=3e-4"]`` or ``{"train.lr": 3e-4}``.
        device: where it will run; default this machine, measured.

    Returns:
        The plan; ``print(plan.table())``, ``.fits``, ``.peak_bytes``, ``.step_s``.

    Raises:
        ConfigError: the recipe is wrong.
        AssetNotInstalled: its model is an asset that is not installed.
    """
    loaded = load_recipe(source, overrides)
    device = device or load_profile()
    stages = predict(loaded, device=device)
    others = tuple(s.name for s in loaded.stages if s.name not in stages and s.type.addressed)
    return Plan(loaded.name, device, stages, others)
