"""What parameters of a search space share: coordinates on the unit interval, checks, defaults."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sharpen.core.conditions import Condition
from sharpen.core.errors import ConfigError, SpaceError

__all__ = ["Parameter", "Scalar", "Units", "as_number", "bin_centres", "bin_of", "plain"]

S = TypeVar("S", bound="Parameter")
Units = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(ABC):
    """What every parameter has; see the module for how values map to the unit interval."""

    default: Any = field(default=None, repr=False)
    """A value; None takes the middle of a range, or the first choice."""

    description: str = field(default="", repr=False)
    """For reports."""

    unit: str = field(default="", repr=False)
    """Unit of the value, for reports."""

    condition: Condition | None = field(default=None, repr=False)
    """When it is active; set with :meth:`active_if`."""

    def active_if(self: S, condition: Condition) -> S:
        """The same parameter, present only where ``condition`` is true.

        Raises:
            SpaceError: not a condition.
        """
        if not isinstance(condition, Condition):
            raise SpaceError(
                f"active_if takes a condition such as Eq('kind', 'b'), got {condition!r}."
            )
        changed = copy.copy(self)
        object.__setattr__(changed, "condition", condition)
        return changed

    @abstractmethod
    def check(self, value: Any) -> Any:
        """``value`` as this parameter's own type.

        Raises:
            ConfigError: it may not take that value; the message says what it may.
        """

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of its coordinates."""

    @abstractmethod
    def encode(self, value: Any) -> list[float]:
        """Coordinates of a checked value, each in [0, 1]."""

    @abstractmethod
    def decode(self, u: Units) -> Any:
        """Value at coordinates ``u``, each in [0, 1]."""

    def snap(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Coordinates of the values at many points: ``encode(decode(row))`` of each, to the bit.

        Args:
            u: [n, width] coordinates in [0, 1].

        Returns:
            [n, width].
        """
        snapped: npt.NDArray[np.float64] = np.array([self.encode(self.decode(row)) for row in u])
        return snapped.reshape(u.shape)

    @property
    @abstractmethod
    def cardinality(self) -> float:
        """Number of values; infinite for a continuous range."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Its type and arguments as plain data."""

    @abstractmethod
    def values_on_grid(self, resolution: int) -> list[Any]:
        """All values, or ``resolution`` of them spread over a range that has more."""

    @abstractmethod
    def default_value(self) -> Any:
        """The default, or what stands for it."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data, the form a study file uses."""
        data = self.options()
        if self.default is not None:
            data["default"] = plain(self.default)
        for key in ("description", "unit"):
            if getattr(self, key):
                data[key] = getattr(self, key)
        if self.condition is not None:
            data["active_if"] = str(self.condition)
        return data

    def _settle_default(self) -> None:
        """Check the default once the other fields are known to be right."""
        if self.default is not None:
            try:
                object.__setattr__(self, "default", self.check(self.default))
            except ConfigError as error:
                raise SpaceError(f"default {error}") from None


class Scalar(Parameter):
    """A parameter with one coordinate."""

    __slots__ = ()

    @abstractmethod
    def to_unit(self, value: Any) -> float:
        """Coordinate of a checked value, in [0, 1]."""

    @abstractmethod
    def from_unit(self, u: float) -> Any:
        """Value at coordinate ``u`` in [0, 1]."""

    @property
    def width(self) -> int:
        """One."""
        return 1

    def encode(self, value: Any) -> list[float]:
        """See :meth:`Parameter.encode`."""
        return [self.to_unit(value)]

    def decode(self, u: Units) -> Any:
        """See :meth:`Parameter.decode`."""
        return self.from_unit(float(u[0]))

    def values_on_grid(self, resolution: int) -> list[Any]:
        """See :meth:`Parameter.values_on_grid`."""
        count = int(min(self.cardinality, max(resolution, 1)))
        return [self.from_unit((i + 0.5) / count) for i in range(count)]

    def default_value(self) -> Any:
        """The default, or the middle of the range."""
        return self.from_unit(0.5) if self.default is None else self.default


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    return [plain(v) for v in value] if isinstance(value, tuple) else value


def as_number(value: Any, what: str) -> float:
    """A finite number; ``what`` says in words what it must be."""
    if hasattr(value, "item"):
        value = value.item()  # a NumPy scalar
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"must be {what}, got {value!r}.")
    return value


def bin_of(u: float, count: int) -> int:
    """The bin of equal width that ``u`` lies in."""
    return min(max(int(u * count), 0), count - 1)


def bin_centres(u: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Centres of the bins of equal width that ``u`` lie in."""
    centres: npt.NDArray[np.float64] = (np.clip(np.trunc(u * count), 0, count - 1) + 0.5) / count
    return centres
