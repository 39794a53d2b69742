"""Simulated clusters that run the engine's own scheduler; names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.serve.simulate.cluster import ClusterSim, Placed, SimConfig
    from sharpen.serve.simulate.policies import POLICIES, Policy, make_policy
    from sharpen.serve.simulate.result import SimResult
    from sharpen.serve.simulate.transfer import Transfer, layerwise_exposed_s

__all__ = [
    "POLICIES",
    "ClusterSim",
    "Placed",
    "Policy",
    "SimConfig",
    "SimResult",
    "Transfer",
    "layerwise_exposed_s",
    "make_policy",
]

__getattr__ = exports(
    __name__,
    {
        "POLICIES": "sharpen.serve.simulate.policies",
        "ClusterSim": "sharpen.serve.simulate.cluster",
        "Placed": "sharpen.serve.simulate.cluster",
        "Policy": "sharpen.serve.simulate.policies",
        "SimConfig": "sharpen.serve.simulate.cluster",
        "SimResult": "sharpen.serve.simulate.result",
        "Transfer": "sharpen.serve.simulate.transfer",
        "layerwise_exposed_s": "sharpen.serve.simulate.transfer",
        "make_policy": "sharpen.serve.simulate.policies",
    },
)
