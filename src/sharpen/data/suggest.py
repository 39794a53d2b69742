"""Thresholds from what was measured: by a share of rows to keep, or by standard deviations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.data.analyze import Analysis
from sharpen.data.ops.base import Bound

__all__ = ["as_process", "by_deviation", "by_share"]

_STEPS = 60  # of halving


def by_share(analysis: Analysis, keep: float) -> dict[str, Bound]:
    """Bounds that cut off equal tails of each statistic, so that all keep a share of the rows.

    Only those ends move that a filter bounds already. The tail is found by halving, on the sample.

    Args:
        analysis: with bounds.
        keep: share of the rows, in (0, 1].

    Raises:
        ConfigError: the share is out of range.
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"keep={keep:g} must be above 0 and at most 1.")
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        tail = (low + high) / 2
        if _kept(analysis, _cut(analysis, tail)) >= keep:
            low = tail
        else:
            high = tail
    return _cut(analysis, low)


def _cut(analysis: Analysis, tail: float) -> dict[str, Bound]:
    found = {}
    for name, bound in analysis.bounds.items():
        sketch = analysis.sketches.get(name)
        if sketch is None or not sketch.count:
            continue
        low, high = sketch.quantile(np.array([tail, 1 - tail])).tolist()
        found[name] = Bound(
            bound.statistic,
            low if bound.low > -math.inf else -math.inf,
            high if bound.high < math.inf else math.inf,
        )
    return found


def _kept(analysis: Analysis, bounds: Mapping[str, Bound]) -> float:
    """Share of the sample within all bounds."""
    if not len(analysis.sample):
        return 1.0
    keep = np.ones(len(analysis.sample), bool)
    for name, bound in bounds.items():
        column = analysis.sample[:, analysis.names.index(name)]
        keep &= (column >= bound.low) & (column <= bound.high)
    return float(keep.mean())


def by_deviation(analysis: Analysis, k: float = 3.0) -> dict[str, Bound]:
    """Bounds at the mean and k standard deviations, where a filter bounds that end already.

    Raises:
        ConfigError: k is not positive.
    """
    if not k > 0:
        raise ConfigError(f"k={k:g} must be positive.")
    found = {}
    for name, bound in analysis.bounds.items():
        sketch = analysis.sketches.get(name)
        if sketch is None or not sketch.count:
            continue
        low, high = (sketch.mean + s * k * sketch.deviation for s in (-1, 1))
        found[name] = Bound(
            bound.statistic,
            low if bound.low > -math.inf else -math.inf,
            high if bound.high < math.inf else math.inf,
        )
    return found


def as_process(bounds: Mapping[str, Bound]) -> list[dict[str, Any]]:
    """The bounds of filters of one statistic, as in a recipe's ``process``."""
    found = []
    for name, bound in bounds.items():
        if name == bound.statistic:
            ends = {"min": bound.low, "max": bound.high}
            numbers = {k: float(f"{v:.6g}") for k, v in ends.items() if math.isfinite(v)}
            found.append({name: numbers})
    return found
