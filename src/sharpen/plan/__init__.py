"""What the hardware allows: device probe, FLOPs, memory, communication, and plans of recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

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

__getattr__ = exports(
    __name__,
    {
        "Adapters": "sharpen.plan.job",
        "Candidate": "sharpen.plan.layouts",
        "Cluster": "sharpen.plan.hardware",
        "ClusterJob": "sharpen.plan.layouts",
        "ClusterPlan": "sharpen.plan.cluster_plan",
        "DeviceProfile": "sharpen.plan.device",
        "LayoutCost": "sharpen.plan.layout_cost",
        "ModelStates": "sharpen.plan.memory",
        "ParallelConfig": "sharpen.plan.parallel",
        "ParallelLayout": "sharpen.plan.parallel",
        "Plan": "sharpen.plan.planner",
        "ScheduleSim": "sharpen.plan.schedule",
        "SearchResult": "sharpen.plan.layout_search",
        "TrainingJob": "sharpen.plan.training",
        "activation_bytes": "sharpen.plan.memory",
        "forward_flops_per_token": "sharpen.plan.flops",
        "layout_memory": "sharpen.plan.layouts",
        "layout_problems": "sharpen.plan.layouts",
        "live_bytes": "sharpen.plan.memory",
        "load_profile": "sharpen.plan.device",
        "megatron_bytes": "sharpen.plan.communication",
        "model_states": "sharpen.plan.memory",
        "on_devices": "sharpen.plan.cluster_plan",
        "parse_devices": "sharpen.plan.hardware",
        "pipeline_schedule": "sharpen.plan.schedule",
        "probe": "sharpen.plan.device",
        "recipe": "sharpen.plan.planner",
        "ring_bytes": "sharpen.plan.communication",
        "search_layouts": "sharpen.plan.layout_search",
        "sharded_schedule": "sharpen.plan.schedule",
        "training_flops_per_token": "sharpen.plan.flops",
        "training_memory": "sharpen.plan.training",
        "training_step_s": "sharpen.plan.training",
        "ulysses_bytes": "sharpen.plan.communication",
        "zero_step_bytes": "sharpen.plan.communication",
    },
)
