"""What the hardware allows: device probe, FLOPs, memory, communication, and plans of recipes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharpen.plan.communication import (
        megatron_bytes,
        ring_bytes,
        ulysses_bytes,
        zero_step_bytes,
    )
    from sharpen.plan.device import DeviceProfile, load_profile, probe
    from sharpen.plan.flops import forward_flops_per_token, training_flops_per_token
    from sharpen.plan.memory import ModelStates, activation_bytes, live_bytes, model_states
    from sharpen.plan.parallel import ParallelConfig, ParallelLayout
    from sharpen.plan.planner import Plan, recipe
    from sharpen.plan.training import TrainingJob, training_memory, training_step_s

_EXPORTS = {
    "DeviceProfile": "device",
    "ModelStates": "memory",
    "ParallelConfig": "parallel",
    "ParallelLayout": "parallel",
    "Plan": "planner",
    "TrainingJob": "training",
    "activation_bytes": "memory",
    "forward_flops_per_token": "flops",
    "live_bytes": "memory",
    "load_profile": "device",
    "megatron_bytes": "communication",
    "model_states": "memory",
    "probe": "device",
    "recipe": "planner",
    "ring_bytes": "communication",
    "training_flops_per_token": "flops",
    "training_memory": "training",
    "training_step_s": "training",
    "ulysses_bytes": "communication",
    "zero_step_bytes": "communication",
}

__all__ = [
    "DeviceProfile",
    "ModelStates",
    "ParallelConfig",
    "ParallelLayout",
    "Plan",
    "TrainingJob",
    "activation_bytes",
    "forward_flops_per_token",
    "live_bytes",
    "load_profile",
    "megatron_bytes",
    "model_states",
    "probe",
    "recipe",
    "ring_bytes",
    "training_flops_per_token",
    "training_memory",
    "training_step_s",
    "ulysses_bytes",
    "zero_step_bytes",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name in _EXPORTS:
        value = getattr(importlib.import_module(f"sharpen.plan.{_EXPORTS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sharpen.plan' has no attribute {name!r}")
