"""Points of a search space drawn quasi-randomly: a shuffled Halton sequence.

Halton, On the efficiency of certain quasi-random sequences of points, 1960. Point i has as its
coordinate j the digits of i in the j-th prime base, mirrored at the point. Coordinates of high
bases are correlated at first, so digits are permuted by the seed (Owen, 2017, arXiv 1706.02808).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.core.errors import ConfigError

__all__ = ["draw", "halton_points"]

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)


def halton_points(count: int, dimensions: int, *, seed: int | None = None) -> list[list[float]]:
    """Points in the unit cube.

    Args:
        count: how many.
        dimensions: at most 16.
        seed: permutes the digits of each base; None leaves them, the plain sequence from 0.

    Examples:
        >>> halton_points(3, 2)
        [[0.0, 0.0], [0.5, 0.3333333333333333], [0.25, 0.6666666666666666]]
    """
    if not 1 <= dimensions <= len(_PRIMES):
        raise ConfigError(f"dimensions={dimensions} must be from 1 to {len(_PRIMES)}.")
    columns = []
    for base in _PRIMES[:dimensions]:
        digits = math.ceil(53 / math.log2(base))
        orders = [list(range(base))] * digits
        if seed is not None:
            dice = random.Random(f"{seed}/{base}")
            orders = [dice.sample(range(base), base) for _ in range(digits)]
        columns.append([_mirrored(i, base, orders) for i in range(count)])
    return [list(point) for point in zip(*columns, strict=True)]


def _mirrored(number: int, base: int, orders: Sequence[Sequence[int]]) -> float:
    value, scale = 0.0, 1.0
    for order in orders:
        scale /= base
        number, digit = divmod(number, base)
        value += order[digit] * scale
    return min(value, math.nextafter(1.0, 0.0))


def draw(
    space: Mapping[str, Mapping[str, Any]] | Sequence[Mapping[str, Any]], count: int, *, seed: int
) -> list[dict[str, Any]]:
    """Settings from a search space.

    Args:
        space: for each name ``{"min", "max", "scaling": "linear" | "log"}`` or
            ``{"feasible_points": [...]}``; or a list of settings, of which the first are taken.
        count: how many.
        seed: of the draw.

    Raises:
        ConfigError: the space is malformed or too short; says where.

    Examples:
        >>> space = {"lr": {"min": 1e-4, "max": 1e-2, "scaling": "log"}}
        >>> [round(point["lr"], 5) for point in draw(space, 3, seed=1)]
        [0.00061, 0.00609, 0.00019]
    """
    if not isinstance(space, Mapping):
        if len(space) < count:
            raise ConfigError(f"the list has {len(space)} settings and {count} are needed.")
        return [dict(point) for point in space[:count]]
    if not space:
        return [{} for _ in range(count)]
    for name, described in space.items():
        _check(name, described)
    points = halton_points(count, len(space), seed=seed)
    return [
        {name: _value(space[name], x) for name, x in zip(space, point, strict=True)}
        for point in points
    ]


def _check(name: str, described: Mapping[str, Any]) -> None:
    if "feasible_points" in described:
        if not described["feasible_points"]:
            raise ConfigError(f"{name}: feasible_points is empty.")
        return
    if not {"min", "max"} <= set(described):
        raise ConfigError(f"{name} needs min and max, or feasible_points; got {dict(described)}.")
    low, high = described["min"], described["max"]
    scaling = described.get("scaling", "linear")
    if scaling not in ("linear", "log"):
        raise ConfigError(f"{name}: scaling={scaling!r} must be 'linear' or 'log'.")
    if not low <= high or (scaling == "log" and low <= 0):
        raise ConfigError(f"{name}: min={low}, max={high} are no range for {scaling} scaling.")


def _value(described: Mapping[str, Any], x: float) -> Any:
    if "feasible_points" in described:
        choices = described["feasible_points"]
        return choices[int(x * len(choices))]
    low, high = described["min"], described["max"]
    if described.get("scaling", "linear") == "log":
        return float(math.exp(math.log(low) + x * (math.log(high) - math.log(low))))
    return low + x * (high - low)
