"""A machine that serves a model, and the link that keys and values take to another."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.core.config import load_yaml
from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.model_spec import ModelSpec
from sharpen.plan.hardware import parse_devices
from sharpen.plan.serving.perf_model import PerfModel, RooflinePerfModel, TablePerfModel

__all__ = ["MODELS", "Link", "Machine", "ServedModel", "machine", "machine_names"]

_PRESETS = Path(__file__).with_name("machines.yaml")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What of a model fills memory and links."""

    name: str
    """As in tables of runs."""

    num_layers: int
    """L."""

    weight_bytes: float
    """Of all weights."""

    kv_bytes: float
    """Of keys and values of one token: 2 L K D e, with K key/value heads, not query heads."""

    @classmethod
    def of(cls, spec: ModelSpec, name: str, *, bytes_each: float = 2.0) -> ServedModel:
        """From a model's shape, with as many bytes a weight, key and value."""
        return cls(
            name,
            spec.num_layers,
            spec.num_parameters * bytes_each,
            2 * spec.num_layers * spec.kv_size * bytes_each,
        )


MODELS: dict[str, ServedModel] = {
    "llama2-70b": ServedModel("llama2-70b", 80, 2 * 68.98e9, 2 * 80 * 8 * 128 * 2),
    "bloom-176b": ServedModel("bloom-176b", 70, 2 * 176.25e9, 2 * 70 * 112 * 128 * 2),
}
"""Models of the table that ships, in float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that holds a whole model."""

    name: str
    """Its kind, such as ``dgx-h100``."""

    perf: PerfModel
    """Times of its iterations."""

    kv_capacity: int
    """Tokens whose keys and values fit beside the weights."""

    power_w: float = 0.0
    """Provisioned."""

    cost_per_h: float = 0.0
    """Dollars."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.kv_capacity < 1:
            raise ConfigError(
                f"kv_capacity={self.kv_capacity} of {self.name} must be at least 1 token: the "
                "model does not fit its memory."
            )
        for name in ("power_w", "cost_per_h"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 0 and finite.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """From one machine to another."""

    bandwidth: float = 25e9
    """Bytes/s; default 200 Gb/s InfiniBand, as between the paper's machines."""

    latency_s: float = 0.0
    """Of one transfer."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.bandwidth > 0 or not 0 <= self.latency_s < math.inf:
            raise ConfigError(
                f"bandwidth={self.bandwidth} must be above 0 and latency_s={self.latency_s} at "
                "least 0."
            )

    def seconds(self, size: float) -> float:
        """Of ``size`` bytes."""
        return self.latency_s + size / self.bandwidth


@functools.cache
def _presets() -> dict[str, Any]:
    data: dict[str, Any] = load_yaml(_PRESETS).data
    return data


def machine_names() -> list[str]:
    """Presets of :func:`machine`, sorted."""
    return sorted(_presets())


def machine(
    name: str, model: ServedModel, *, spec: ModelSpec | None = None, headroom: float = 0.1
) -> Machine:
    """A preset that serves ``model``.

    Args:
        name: ``dgx-a100``, ``dgx-h100`` or ``dgx-h100-cap``.
        model: what it holds.
        spec: where given, times come from a roofline; else from the table that ships.
        headroom: share of the memory that is kept free.

    Raises:
        ConfigError: an unknown machine, a model without runs, or one that does not fit.
    """
    if name not in _presets():
        raise ConfigError(
            f"there is no machine '{name}'.{did_you_mean(name, machine_names())} Known: "
            f"{', '.join(machine_names())}."
        )
    data = _presets()[name]
    slow = data.get("prompt_slowdown", 1.0)
    perf: PerfModel
    if spec is None:
        perf = TablePerfModel.from_csv(
            model=model.name,
            hardware=data["hardware"],
            tensor_parallel=data["devices"],
            prompt_slowdown=slow,
        )
    else:
        device = parse_devices(data["accelerator"]).device
        perf = _Slowed(RooflinePerfModel(spec, device, tensor_parallel=data["devices"]), slow)
    free = data["memory_gb"] * 1e9 * (1 - headroom) - model.weight_bytes
    return Machine(
        name=name,
        perf=perf,
        kv_capacity=max(int(free / model.kv_bytes), 0),
        power_w=data["power_w"],
        cost_per_h=data["cost_per_h"],
    )


@dataclass(frozen=True, slots=True)
class _Slowed:
    """Another model with slower prompts."""

    perf: PerfModel
    factor: float

    @property
    def uses_context(self) -> bool:
        return self.perf.uses_context

    def iteration_s(self, prompt_tokens: int, decodes: int, context_tokens: int) -> float:
        seconds = self.perf.iteration_s(prompt_tokens, decodes, context_tokens)
        return seconds * self.factor if prompt_tokens else seconds
