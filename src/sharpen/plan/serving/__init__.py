"""Which machines a stream of requests needs: traces, iteration times, machines, limits, search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.plan.serving.designs import Choice, Design, Objective, search_designs
    from sharpen.plan.serving.machines import Link, Machine, machine
    from sharpen.plan.serving.perf_model import (
        ConstantPerfModel,
        MeasuredPerfModel,
        PerfModel,
        RooflinePerfModel,
        TablePerfModel,
    )
    from sharpen.plan.serving.slo import SLO, Slowdowns
    from sharpen.plan.serving.traces import Trace, synthetic_trace

__all__ = [
    "SLO",
    "Choice",
    "ConstantPerfModel",
    "Design",
    "Link",
    "Machine",
    "MeasuredPerfModel",
    "Objective",
    "PerfModel",
    "RooflinePerfModel",
    "Slowdowns",
    "TablePerfModel",
    "Trace",
    "machine",
    "search_designs",
    "synthetic_trace",
]

__getattr__ = exports(
    __name__,
    {
        "Choice": "sharpen.plan.serving.designs",
        "ConstantPerfModel": "sharpen.plan.serving.perf_model",
        "Design": "sharpen.plan.serving.designs",
        "Link": "sharpen.plan.serving.machines",
        "Machine": "sharpen.plan.serving.machines",
        "MeasuredPerfModel": "sharpen.plan.serving.perf_model",
        "Objective": "sharpen.plan.serving.designs",
        "PerfModel": "sharpen.plan.serving.perf_model",
        "RooflinePerfModel": "sharpen.plan.serving.perf_model",
        "SLO": "sharpen.plan.serving.slo",
        "Slowdowns": "sharpen.plan.serving.slo",
        "TablePerfModel": "sharpen.plan.serving.perf_model",
        "Trace": "sharpen.plan.serving.traces",
        "machine": "sharpen.plan.serving.machines",
        "search_designs": "sharpen.plan.serving.designs",
        "synthetic_trace": "sharpen.plan.serving.traces",
    },
)
