"""Limits of latency, as slow-downs against the same request alone.

Patel et al., Splitwise, ISCA 2024, arXiv 2311.18677, table VI: the request alone runs on a
reference machine (DGX-A100); all nine limits must hold::

               p50     p90     p99
    TTFT       2       3       6        time to the first token
    TBT        1.25    1.5     5        mean time between a request's tokens
    E2E        1.25    1.5     5        time to the last token
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sharpen.core.errors import ConfigError
from sharpen.plan.serving.perf_model import PerfModel

__all__ = ["PERCENTILES", "SLO", "Slowdowns", "alone_s", "percentile"]

PERCENTILES = (50, 90, 99)
"""Those that limits are set at."""

_DEFAULT: dict[str, tuple[float, float, float]] = {
    "ttft": (2.0, 3.0, 6.0),
    "tbt": (1.25, 1.5, 5.0),
    "e2e": (1.25, 1.5, 5.0),
}


@dataclass(frozen=True, slots=True)
class SLO:
    """Largest slow-downs at the percentiles 50, 90 and 99."""

    limits: Mapping[str, Sequence[float]] = field(default_factory=lambda: dict(_DEFAULT))
    """By ``ttft``, ``tbt`` and ``e2e``."""

    def __post_init__(self) -> None:
        """Check the names and ranges."""
        if not self.limits:
            raise ConfigError("an SLO needs limits for ttft, tbt or e2e.")
        for name, values in self.limits.items():
            if name not in _DEFAULT or len(values) != 3 or not all(v >= 1 for v in values):
                raise ConfigError(
                    f"the limits {name}={values} must be three slow-downs of at least 1 "
                    f"(p50, p90, p99) for one of {', '.join(_DEFAULT)}."
                )


@dataclass(frozen=True, slots=True)
class Slowdowns:
    """Percentiles of slow-downs, by ``ttft``, ``tbt`` and ``e2e``."""

    values: Mapping[str, tuple[float, float, float]]
    """Empty tuples do not occur: a measure without requests is left out."""

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[float]]) -> Slowdowns:
        """From the slow-downs of each request."""
        made = {}
        for name, column in columns.items():
            if column:
                ordered = sorted(column)
                p50, p90, p99 = (percentile(ordered, p) for p in PERCENTILES)
                made[name] = (p50, p90, p99)
        return cls(made)

    def meets(self, slo: SLO) -> bool:
        """Whether all limits hold; measures without requests do."""
        return not self.broken(slo)

    def broken(self, slo: SLO) -> list[str]:
        """Limits that do not hold, such as ``ttft p90 3.2 > 3``."""
        return [
            f"{name} p{p} {value:.3g} > {limit:.3g}"
            for name, limits in slo.limits.items()
            for p, value, limit in zip(
                PERCENTILES, self.values.get(name, (1.0,) * 3), limits, strict=True
            )
            if value > limit
        ]


def alone_s(perf: PerfModel, prompt: int, output: int) -> tuple[float, float, float]:
    """Seconds of one request alone: to the first token, between tokens (mean), to the last."""
    first = perf.iteration_s(prompt, 0, 0)
    if output == 1:
        return first, 0.0, first
    middle = prompt + output // 2
    token = perf.iteration_s(0, 1, middle if perf.uses_context else prompt)
    return first, token, first + (output - 1) * token


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of values in ascending order, linear between neighbours.

    Example:
        >>> percentile([1.0, 2.0, 4.0], 75)
        3.0
    """
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
