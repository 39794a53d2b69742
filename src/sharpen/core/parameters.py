"""Parameters of a search space: what values each may take, and how they lie on the unit interval.

A scalar has one coordinate ``u`` in [0, 1]; permutations and subsets have one for each item (see
:mod:`sharpen.core.collections`). A uniform ``u`` gives the parameter's natural distribution:
uniform, uniform in the logarithm, or by weights.

::

    Float          value = low + u (high - low)
    Float, log     value = low (high / low)^u
    Int, Float with step, Ordinal, Categorical
                   [0, 1] is cut into one bin a value; a value stands at the centre of its bin
    Int, log       [low - 1/2, high + 1/2] is scaled by the logarithm, then rounded

Bins have equal width, so both ends of an Int get their full share; a Categorical's follow its
weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameter_base import (
    Parameter,
    Scalar,
    as_number,
    bin_centres,
    bin_of,
    plain,
)

__all__ = ["Bool", "Categorical", "Fixed", "Float", "Int", "Ordinal", "Parameter", "Scalar"]

_ROUNDING = Decimal("1e-9")  # of a step: high may be the rounded sum of low and the steps
_MAX_VALUES = 2**45  # bin centres stay exact in float64 well beyond this


@dataclass(frozen=True, slots=True)
class Float(Scalar):
    """A real number from ``low`` to ``high``, both included.

    Examples:
        >>> Float(1e-5, 1e-1, log=True).from_unit(0.5)
        0.001
    """

    low: float
    """Smallest value."""

    high: float
    """Largest value."""

    _: KW_ONLY

    log: bool = False
    """Whether equal ratios, not differences, are equally likely; needs ``low > 0``."""

    step: float | None = None
    """Only low, low + step, low + 2 step ... are allowed."""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, float(as_number(value, "a finite number")))
            except ConfigError as error:
                raise SpaceError(f"{name} {error}") from None
        if not self.low < self.high:
            raise SpaceError(f"low={self.low} must be less than high={self.high} (Float).")
        if self.log and self.low <= 0:
            raise SpaceError(f"log=True needs low > 0, got low={self.low} (Float).")
        if self.step is not None:
            if self.log:
                raise SpaceError("log and step exclude each other (Float). Drop one.")
            if not self.step > 0 or self._count() < 2:
                raise SpaceError(
                    f"step={self.step} must be positive and at most high - low = "
                    f"{self.high - self.low} (Float)."
                )
            if (self.high - self.low) / self.step >= _MAX_VALUES:
                raise SpaceError(f"step={self.step} makes too many values (Float). Drop step.")
        self._settle_default()

    def _count(self) -> int:
        """Number of values when there is a step."""
        span = Decimal(repr(self.high)) - Decimal(repr(self.low))
        return int(span / Decimal(repr(self.step)) + _ROUNDING) + 1

    def _at(self, k: int) -> float:
        # Decimal arithmetic: 0.1 + 2 * 0.1 is 0.3, as the user writes it.
        return min(float(Decimal(repr(self.low)) + k * Decimal(repr(self.step))), self.high)

    def check(self, value: Any) -> float:
        """See :meth:`Parameter.check`; an integer becomes a float."""
        number = float(as_number(value, f"a number from {self.low} to {self.high}"))
        if not self.low <= number <= self.high:
            raise ConfigError(f"must be from {self.low} to {self.high}, got {value!r}.")
        if self.step is not None:
            k = min(round((number - self.low) / self.step), self._count() - 1)
            if abs(self._at(k) - number) > 1e-9 * self.step:
                raise ConfigError(
                    f"must be {self.low} plus a multiple of {self.step}, got {value!r}."
                )
            return self._at(k)
        return number

    def to_unit(self, value: Any) -> float:
        """See :meth:`Scalar.to_unit`."""
        if self.step is not None:
            return float((round((value - self.low) / self.step) + 0.5) / self._count())
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def from_unit(self, u: float) -> float:
        """See :meth:`Scalar.from_unit`."""
        if self.step is not None:
            return self._at(bin_of(u, self._count()))
        if self.log:
            value = self.low * math.exp(u * math.log(self.high / self.low))
        else:
            value = self.low + u * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def snap(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :meth:`Parameter.snap`."""
        if self.step is not None:
            return bin_centres(u, self._count())
        if self.log:  # NumPy's exponential differs from the scalar one in the last bit
            return Parameter.snap(self, u)
        value = np.clip(self.low + u * (self.high - self.low), self.low, self.high)
        return (value - self.low) / (self.high - self.low)

    def values_on_grid(self, resolution: int) -> list[Any]:
        """See :meth:`Parameter.values_on_grid`; a range without steps has its ends on the grid."""
        if self.step is not None or resolution < 2:
            return Scalar.values_on_grid(self, resolution)
        return [self.from_unit(i / (resolution - 1)) for i in range(resolution)]

    @property
    def cardinality(self) -> float:
        """Number of values; infinite without a step."""
        return math.inf if self.step is None else self._count()

    def options(self) -> dict[str, Any]:
        """See :meth:`Parameter.options`."""
        data: dict[str, Any] = {"type": "float", "low": self.low, "high": self.high}
        if self.log:
            data["log"] = True
        if self.step is not None:
            data["step"] = self.step
        return data


@dataclass(frozen=True, slots=True)
class Int(Scalar):
    """An integer from ``low`` to ``high``, both included."""

    low: int
    """Smallest value."""

    high: int
    """Largest value."""

    _: KW_ONLY

    log: bool = False
    """Whether equal ratios, not differences, are equally likely; needs ``low >= 1``."""

    step: int = 1
    """Only low, low + step, low + 2 step ... are allowed."""

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise SpaceError(f"{name}={value!r} must be an integer (Int).")
        if not self.low < self.high:
            raise SpaceError(f"low={self.low} must be less than high={self.high} (Int).")
        if self.log and (self.low < 1 or self.step != 1):
            raise SpaceError(
                f"log=True needs low >= 1 and step 1, got low={self.low}, step={self.step} (Int)."
            )
        if not 1 <= self.step <= self.high - self.low:
            raise SpaceError(f"step={self.step} must be from 1 to high - low (Int).")
        if self.high - self.low >= _MAX_VALUES or (self.log and self.high >= _MAX_VALUES):
            raise SpaceError(f"{self.low} to {self.high} is too wide for an Int; use a Float.")
        self._settle_default()

    def _count(self) -> int:
        return (self.high - self.low) // self.step + 1

    def check(self, value: Any) -> int:
        """See :meth:`Parameter.check`; ``3.0`` becomes 3."""
        number = as_number(value, f"an integer from {self.low} to {self.high}")
        if number != int(number) or not self.low <= number <= self.high:
            raise ConfigError(f"must be an integer from {self.low} to {self.high}, got {value!r}.")
        if (int(number) - self.low) % self.step:
            raise ConfigError(f"must be {self.low} plus a multiple of {self.step}, got {value!r}.")
        return int(number)

    def to_unit(self, value: Any) -> float:
        """See :meth:`Scalar.to_unit`."""
        if self.log:
            bottom = math.log(self.low - 0.5)
            return (math.log(value) - bottom) / (math.log(self.high + 0.5) - bottom)
        return float(((value - self.low) // self.step + 0.5) / self._count())

    def from_unit(self, u: float) -> int:
        """See :meth:`Scalar.from_unit`."""
        if self.log:
            bottom = math.log(self.low - 0.5)
            value = math.exp(bottom + u * (math.log(self.high + 0.5) - bottom))
            return min(max(math.floor(value + 0.5), self.low), self.high)
        return self.low + self.step * bin_of(u, self._count())

    def snap(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :meth:`Parameter.snap`."""
        return Parameter.snap(self, u) if self.log else bin_centres(u, self._count())

    def values_on_grid(self, resolution: int) -> list[Any]:
        """See :meth:`Parameter.values_on_grid`."""
        if resolution >= self._count():
            return list(range(self.low, self.high + 1, self.step))
        return list(dict.fromkeys(Scalar.values_on_grid(self, resolution)))

    @property
    def cardinality(self) -> float:
        """Number of values."""
        return self._count()

    def options(self) -> dict[str, Any]:
        """See :meth:`Parameter.options`."""
        data: dict[str, Any] = {"type": "int", "low": self.low, "high": self.high}
        if self.log:
            data["log"] = True
        if self.step != 1:
            data["step"] = self.step
        return data


def _same(a: Any, b: Any) -> bool:
    """Equality that keeps True and 1 apart but lets 1 and 1.0 be one value."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _choice(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_choice(v) for v in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise SpaceError(f"a choice must be finite, got {value!r}.")
    if isinstance(value, (bool, int, float, str)):
        return value
    raise SpaceError(
        f"a choice is text, a number, true, false or a tuple of them, got {value!r}. "
        "Give a word for it and look the object up in your function."
    )


def as_choices(values: Sequence[Any], kind: str) -> tuple[Any, ...]:
    """Two or more distinct plain values."""
    choices = tuple(_choice(v) for v in values)
    if len(choices) < 2:
        raise SpaceError(f"{kind} needs two values or more, got {list(choices)}; Fixed has one.")
    for i, choice in enumerate(choices):
        if any(_same(choice, other) for other in choices[:i]):
            raise SpaceError(f"{kind} has the value {choice!r} twice.")
    return choices


def index_of(value: Any, choices: tuple[Any, ...]) -> int:
    """Place of ``value`` among ``choices``."""
    wanted = tuple(value) if isinstance(value, list) else value
    for i, choice in enumerate(choices):
        if _same(choice, wanted):
            return i
    raise ConfigError(f"must be one of {', '.join(map(repr, choices))}, got {value!r}.")


@dataclass(frozen=True, slots=True)
class Ordinal(Scalar):
    """One of a list of values whose order means something, such as powers of two."""

    values: Sequence[Any]
    """The values in order."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", as_choices(self.values, "Ordinal"))
        self._settle_default()

    def check(self, value: Any) -> Any:
        """See :meth:`Parameter.check`."""
        return self.values[index_of(value, tuple(self.values))]

    def to_unit(self, value: Any) -> float:
        """See :meth:`Scalar.to_unit`."""
        return (index_of(value, tuple(self.values)) + 0.5) / len(self.values)

    def from_unit(self, u: float) -> Any:
        """See :meth:`Scalar.from_unit`."""
        return self.values[bin_of(u, len(self.values))]

    def snap(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :meth:`Parameter.snap`."""
        return bin_centres(u, len(self.values))

    def values_on_grid(self, resolution: int) -> list[Any]:
        """All values."""
        return list(self.values)

    @property
    def cardinality(self) -> float:
        """Number of values."""
        return len(self.values)

    def options(self) -> dict[str, Any]:
        """See :meth:`Parameter.options`."""
        return {"type": "ordinal", "values": [plain(v) for v in self.values]}


@dataclass(frozen=True, slots=True, init=False)
class Categorical(Scalar):
    """One of several values without an order.

    Args:
        choices: text, numbers, booleans, or tuples of them.
        weights: how likely each is, positive; default equal.
        default: one of the choices; default the first.
        description: for reports.
        unit: unit of the values, for reports.

    Examples:
        >>> Categorical("adamw", "sgd").from_unit(0.9)
        'sgd'
    """

    choices: tuple[Any, ...]
    weights: tuple[float, ...] | None

    def __init__(
        self,
        *choices: Any,
        weights: Sequence[float] | None = None,
        default: Any = None,
        description: str = "",
        unit: str = "",
    ) -> None:
        put = object.__setattr__
        put(self, "choices", as_choices(choices, "Categorical"))
        put(self, "weights", None if weights is None else tuple(float(w) for w in weights))
        put(self, "default", default)
        put(self, "description", description)
        put(self, "unit", unit)
        put(self, "condition", None)
        if self.weights is not None:
            if len(self.weights) != len(self.choices):
                raise SpaceError(
                    f"{len(self.weights)} weights for {len(self.choices)} choices (Categorical)."
                )
            if not all(math.isfinite(w) and w > 0 for w in self.weights):
                raise SpaceError(f"weights must be positive, got {self.weights} (Categorical).")
        self._settle_default()

    def _edges(self) -> list[float]:
        """Where the bins begin and end: one more than there are choices."""
        weights = self.weights or (1.0,) * len(self.choices)
        total, edges = math.fsum(weights), [0.0]
        for k in range(1, len(weights)):
            edges.append(math.fsum(weights[:k]) / total)
        return [*edges, 1.0]

    def check(self, value: Any) -> Any:
        """See :meth:`Parameter.check`."""
        return self.choices[index_of(value, self.choices)]

    def to_unit(self, value: Any) -> float:
        """See :meth:`Scalar.to_unit`."""
        edges, k = self._edges(), index_of(value, self.choices)
        return (edges[k] + edges[k + 1]) / 2

    def from_unit(self, u: float) -> Any:
        """See :meth:`Scalar.from_unit`."""
        if self.weights is None:
            return self.choices[bin_of(u, len(self.choices))]
        edges = self._edges()
        return self.choices[sum(1 for edge in edges[1:-1] if u >= edge)]

    def snap(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :meth:`Parameter.snap`."""
        edges, count = np.array(self._edges()), len(self.choices)
        if self.weights is None:
            index = np.clip((u * count).astype(np.int64), 0, count - 1)
        else:
            index = np.searchsorted(edges[1:-1], u, side="right")
        centres: npt.NDArray[np.float64] = (edges[index] + edges[index + 1]) / 2
        return centres

    def default_value(self) -> Any:
        """The default, or the first choice."""
        return self.choices[0] if self.default is None else self.default

    def values_on_grid(self, resolution: int) -> list[Any]:
        """All choices."""
        return list(self.choices)

    @property
    def cardinality(self) -> float:
        """Number of choices."""
        return len(self.choices)

    def options(self) -> dict[str, Any]:
        """See :meth:`Parameter.options`."""
        data: dict[str, Any] = {"type": "categorical", "choices": [plain(c) for c in self.choices]}
        if self.weights is not None:
            data["weights"] = list(self.weights)
        return data


@dataclass(frozen=True, slots=True)
class Bool(Scalar):
    """False or true; false is the default."""

    def __post_init__(self) -> None:
        self._settle_default()

    def check(self, value: Any) -> bool:
        """See :meth:`Parameter.check`."""
        if hasattr(value, "item"):
            value = value.item()
        if not isinstance(value, bool):
            raise ConfigError(f"must be true or false, got {value!r}.")
        return value

    def to_unit(self, value: Any) -> float:
        """See :meth:`Scalar.to_unit`."""
        return 0.75 if value else 0.25

    def from_unit(self, u: float) -> bool:
        """See :meth:`Scalar.from_unit`."""
        return u >= 0.5

    def snap(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :meth:`Parameter.snap`."""
        return np.where(u >= 0.5, 0.75, 0.25)

    def default_value(self) -> bool:
        """The default, or false."""
        return bool(self.default)

    @property
    def cardinality(self) -> float:
        """Two."""
        return 2

    def options(self) -> dict[str, Any]:
        """See :meth:`Parameter.options`."""
        return {"type": "bool"}


@dataclass(frozen=True, slots=True)
class Fixed(Scalar):
    """A value that is not searched over but is part of every configuration."""

    value: Any
    """The value: text, a number, a boolean, or a tuple of them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _choice(self.value))
        self._settle_default()

    def check(self, value: Any) -> Any:
        """See :meth:`Parameter.check`."""
        return (self.value,)[index_of(value, (self.value,))]

    def to_unit(self, value: Any) -> float:
        """See :meth:`Scalar.to_unit`."""
        return 0.5

    def from_unit(self, u: float) -> Any:
        """See :meth:`Scalar.from_unit`."""
        return self.value

    def snap(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :meth:`Parameter.snap`."""
        return np.full_like(u, 0.5)

    @property
    def cardinality(self) -> float:
        """One."""
        return 1

    def options(self) -> dict[str, Any]:
        """See :meth:`Parameter.options`."""
        return {"type": "fixed", "value": plain(self.value)}
