"""Many points of a space's unit cube at once: which parameters are active, and where they snap to.

A point snaps to the coordinates of its configuration, as decoding and encoding it would, but each
distinct set of values that a condition names is tried once, not once a point. Time O(n d) and one
decoding for each distinct value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.conditions import Condition
from sharpen.core.parameters import Parameter

__all__ = ["Encoded", "Snapping"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Configurations as vectors."""

    x: npt.NDArray[np.float64]
    """[n, d] coordinates in [0, 1]; 0.5 where the parameter is inactive."""

    mask: npt.NDArray[np.bool_]
    """[n, d] whether the parameter is active."""


@dataclass(frozen=True, slots=True)
class Snapping:
    """Snaps points of a space; see the module."""

    parameters: Mapping[str, Parameter]
    """The space's, by name."""

    columns: Mapping[str, slice]
    """Coordinates of each parameter, of d in all."""

    order: Iterable[str]
    """All names, each after those that its parameter's condition names."""

    def snap(self, points: Floats) -> Encoded:
        """The vectors of the configurations at [n, d] points in [0, 1], forbidden ones too."""
        encoded = Encoded(np.full(points.shape, 0.5), np.zeros(points.shape, dtype=bool))
        for name in self.order if len(points) else ():
            parameter, columns = self.parameters[name], self.columns[name]
            active = np.ones(len(points), dtype=bool)
            if parameter.condition is not None:
                active = self.holds(parameter.condition, points, encoded)
            encoded.x[active, columns] = parameter.snap(points[active, columns])
            encoded.mask[active, columns] = True
        return encoded

    def holds(
        self, condition: Condition, points: Floats, encoded: Encoded
    ) -> npt.NDArray[np.bool_]:
        """[n] whether a condition is true at points, each set of values it names tried once.

        Args:
            condition: a parameter's, or a forbidden clause.
            points: [n, d] coordinates in [0, 1], n at least 1.
            encoded: what they snap to, at least in the columns that the condition names.
        """
        names = sorted(condition.names())
        starts = [self.columns[name].start for name in names]
        keys = np.arange(len(points))
        if all(math.isfinite(self.parameters[name].cardinality) for name in names):
            columns = [encoded.x[:, self.columns[name]] for name in names]
            stacked = np.column_stack([encoded.mask[:, starts], *columns])
            _, first, keys = np.unique(stacked, axis=0, return_index=True, return_inverse=True)
            keys = keys.reshape(-1)
        else:
            first = keys
        decoded = [self._values(name, points[first], encoded.x[first]) for name in names]
        held = []
        for present, *values in zip(encoded.mask[first][:, starts], *decoded, strict=True):
            known = zip(names, present, values, strict=True)
            held.append(condition.holds({n: v for n, there, v in known if there}) is True)
        found: npt.NDArray[np.bool_] = np.array(held, dtype=bool)[keys]
        return found

    def _values(self, name: str, points: Floats, x: Floats) -> list[Any]:
        """[n] values of one parameter at points, each distinct one decoded once."""
        parameter, columns = self.parameters[name], self.columns[name]
        if parameter.width > 1 or math.isinf(parameter.cardinality):
            return [parameter.decode(row) for row in points[:, columns]]
        # By the snapped coordinates: a discrete value comes back from its own.
        distinct, keys = np.unique(x[:, columns.start], return_inverse=True)
        values = [parameter.decode([u]) for u in distinct]
        return [values[key] for key in keys]
