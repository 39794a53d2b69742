"""What the hardware allows: device probe, FLOPs, memory, communication, and plans of recipes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharpen.plan.cluster_plan import ClusterPlan, on_devices
    from sharpen.plan.communication import (
        megatron_bytes,
        ring_bytes,
        ulysses_bytes,
        zero_step_bytes,
    )
    from sharpen.plan.device import DeviceProfile, load_profile, probe
    from sharpen.plan.flops import forward_flops_per_token, training_flops_per_token
    from sharpen.plan.hardware import Cluster, parse_devices
    from sharpen.plan.job import Adapters
    from sharpen.plan.layout_cost import LayoutCost
    from sharpen.plan.layout_search import SearchResult, search_layouts
    from sharpen.plan.layouts import Candidate, ClusterJob, layout_memory, layout_problems
    from sharpen.plan.memory import ModelStates, activation_bytes, live_bytes, model_states
    from sharpen.plan.parallel import ParallelConfig, ParallelLayout
    from sharpen.plan.planner import Plan, recipe
    from sharpen.plan.schedule import ScheduleSim, pipeline_schedule, sharded_schedule
    from sharpen.plan.training import TrainingJob, training_memory, training_step_s

_EXPORTS = {
    "Adapters": "job",
    "Candidate": "layouts",
    "Cluster": "hardware",
    "ClusterJob": "layouts",
    "ClusterPlan": "cluster_plan",
    "DeviceProfile": "device",
    "LayoutCost": "layout_cost",
    "ModelStates": "memory",
    "ParallelConfig": "parallel",
    "ParallelLayout": "parallel",
    "Plan": "planner",
    "ScheduleSim": "schedule",
    "SearchResult": "layout_search",
    "TrainingJob": "training",
    "activation_bytes": "memory",
    "forward_flops_per_token": "flops",
    "layout_memory": "layouts",
    "layout_problems": "layouts",
    "live_bytes": "memory",
    "load_profile": "device",
    "megatron_bytes": "communication",
    "model_states": "memory",
    "on_devices": "cluster_plan",
    "parse_devices": "hardware",
    "pipeline_schedule": "schedule",
    "probe": "device",
    "recipe": "planner",
    "ring_bytes": "communication",
    "search_layouts": "layout_search",
    "sharded_schedule": "schedule",
    "training_flops_per_token": "flops",
    "training_memory": "training",
    "training_step_s": "training",
    "ulysses_bytes": "communication",
    "zero_step_bytes": "communication",
}

__all__ = [
    "Adapters",
    "Candidate",
    "Cluster",
    "ClusterJob",
    "ClusterPlan",
    "DeviceProfile",
    "LayoutCost",
    "ModelStates",
    "ParallelConfig",
    "ParallelLayout",
    "Plan",
    "ScheduleSim",
    "SearchResult",
    "TrainingJob",
    "activation_bytes",
    "forward_flops_per_token",
    "layout_memory",
    "layout_problems",
    "live_bytes",
    "load_profile",
    "megatron_bytes",
    "model_states",
    "on_devices",
    "parse_devices",
    "pipeline_schedule",
    "probe",
    "recipe",
    "ring_bytes",
    "search_layouts",
    "sharded_schedule",
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
