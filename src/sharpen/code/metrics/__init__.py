"""Formulas for how right and how fast programs are; pure functions of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.code.metrics.censored import kaplan_meier_median, restricted_mean, survival
    from sharpen.code.metrics.intervals import Estimate, bootstrap
    from sharpen.code.metrics.levels import hodges_lehmann, level_efficiency, time_limit
    from sharpen.code.metrics.memory import Overhead, normalized, overhead
    from sharpen.code.metrics.passing import eff_at_k, pass_at_k
    from sharpen.code.metrics.speedups import Speedups, best_at_k, speedup, summarize

_MODULES = {
    "censored": ["kaplan_meier_median", "restricted_mean", "survival"],
    "intervals": ["Estimate", "bootstrap"],
    "levels": ["hodges_lehmann", "level_efficiency", "time_limit"],
    "memory": ["Overhead", "normalized", "overhead"],
    "passing": ["eff_at_k", "pass_at_k"],
    "speedups": ["Speedups", "best_at_k", "speedup", "summarize"],
}

__all__ = [
    "Estimate",
    "Overhead",
    "Speedups",
    "best_at_k",
    "bootstrap",
    "eff_at_k",
    "hodges_lehmann",
    "kaplan_meier_median",
    "level_efficiency",
    "normalized",
    "overhead",
    "pass_at_k",
    "restricted_mean",
    "speedup",
    "summarize",
    "survival",
    "time_limit",
]

__getattr__ = exports(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
