"""Parameters whose values are collections: orders of items, and subsets of them.

Both have one coordinate an item, so every optimizer that works on vectors works on them too.

::

    Permutation    the items in ascending order of their coordinates ("random keys")
    Subset         the items whose coordinates are at least 1/2; where those are fewer than min or
                   more than max, the items with the largest coordinates

Uniform coordinates make every permutation, and every subset of an unrestricted size, equally
likely. Random keys: James C. Bean, "Genetic Algorithms and Random Keys for Sequencing and
Optimization", ORSA Journal on Computing 6(2), 1994.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameter_base import Parameter, Units, plain
from sharpen.core.parameters import as_choices, index_of

__all__ = ["Permutation", "Subset"]

_MOST_ON_GRID = 10_000


def _items(items: Sequence[Any] | int, kind: str) -> tuple[Any, ...]:
    if isinstance(items, bool) or not isinstance(items, (int, list, tuple, range)):
        raise SpaceError(f"{kind} takes a number of items or a list of them, got {items!r}.")
    return as_choices(range(items) if isinstance(items, int) else items, kind)


def _given(value: Any) -> list[Any]:
    if hasattr(value, "tolist"):
        value = value.tolist()  # a NumPy array
    if not isinstance(value, (list, tuple, set, frozenset, range)):
        raise ConfigError(f"must be a list of items, got {value!r}.")
    return list(value)


@dataclass(frozen=True, slots=True)
class Permutation(Parameter):
    """An order of items; a value is a tuple of all of them.

    Examples:
        >>> Permutation(4).decode([0.9, 0.1, 0.5, 0.2])
        (1, 3, 2, 0)
    """

    items: Sequence[Any] | int
    """The items: text, numbers or tuples; a number n stands for 0 .. n - 1."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", _items(self.items, "Permutation"))
        self._settle_default()

    @property
    def _all(self) -> tuple[Any, ...]:
        assert isinstance(self.items, tuple)
        return self.items

    @property
    def width(self) -> int:
        """Number of items."""
        return len(self._all)

    def check(self, value: Any) -> tuple[Any, ...]:
        """See :meth:`Parameter.check`; a list becomes a tuple."""
        order = [index_of(item, self._all) for item in _given(value)]
        if sorted(order) != list(range(self.width)):
            raise ConfigError(f"must hold each of its {self.width} items once, got {value!r}.")
        return tuple(self._all[i] for i in order)

    def encode(self, value: Any) -> list[float]:
        """See :meth:`Parameter.encode`: item i has (its place + 1/2) / n."""
        keys = [0.0] * self.width
        for place, item in enumerate(value):
            keys[index_of(item, self._all)] = (place + 0.5) / self.width
        return keys

    def decode(self, u: Units) -> tuple[Any, ...]:
        """See :meth:`Parameter.decode`; of equal coordinates the first item comes first."""
        return tuple(self._all[i] for i in sorted(range(self.width), key=lambda i: u[i]))

    def snap(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :meth:`Parameter.snap`."""
        places = np.argsort(np.argsort(u, axis=1, kind="stable"), axis=1, kind="stable")
        keys: npt.NDArray[np.float64] = (places + 0.5) / self.width
        return keys

    @property
    def cardinality(self) -> float:
        """Number of permutations."""
        return math.factorial(self.width) if self.width <= 170 else math.inf

    def options(self) -> dict[str, Any]:
        """See :meth:`Parameter.options`."""
        return {"type": "permutation", "items": [plain(v) for v in self._all]}

    def values_on_grid(self, resolution: int) -> list[Any]:
        """All permutations.

        Raises:
            SpaceError: they are too many.
        """
        if self.cardinality > _MOST_ON_GRID:
            raise SpaceError(f"{self.width} items have too many permutations for a grid.")
        return list(itertools.permutations(self._all))

    def default_value(self) -> tuple[Any, ...]:
        """The default, or the items as they were given."""
        return self._all if self.default is None else tuple(self.default)


@dataclass(frozen=True, slots=True)
class Subset(Parameter):
    """Some of a list of items; a value is a tuple of them in the list's order.

    Examples:
        >>> Subset(["a", "b", "c"], max=2).decode([0.9, 0.6, 0.7])
        ('a', 'c')
    """

    items: Sequence[Any] | int
    """The items: text, numbers or tuples; a number n stands for 0 .. n - 1."""

    _: KW_ONLY

    min: int = 0
    """Fewest items."""

    max: int | None = None
    """Most items; None is all."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", _items(self.items, "Subset"))
        least, most = self.min, self._most
        for value in (least, most):
            if isinstance(value, bool) or not isinstance(value, int):
                raise SpaceError(f"min and max must be integers, got {value!r} (Subset).")
        if not 0 <= least <= most <= self.width or most < 1:
            raise SpaceError(
                f"min={self.min} and max={self.max} must keep 0 <= min <= max <= {self.width} "
                "and max >= 1 (Subset)."
            )
        self._settle_default()

    @property
    def _all(self) -> tuple[Any, ...]:
        assert isinstance(self.items, tuple)
        return self.items

    @property
    def _most(self) -> int:
        return self.width if self.max is None else self.max

    @property
    def width(self) -> int:
        """Number of items to choose from."""
        return len(self._all)

    def check(self, value: Any) -> tuple[Any, ...]:
        """See :meth:`Parameter.check`; the items come in the list's order."""
        chosen = [index_of(item, self._all) for item in _given(value)]
        if len(set(chosen)) != len(chosen):
            raise ConfigError(f"must hold no item twice, got {value!r}.")
        if not self.min <= len(chosen) <= self._most:
            raise ConfigError(f"must hold {self.min} to {self._most} items, got {value!r}.")
        return tuple(self._all[i] for i in sorted(chosen))

    def encode(self, value: Any) -> list[float]:
        """See :meth:`Parameter.encode`: 3/4 for an item that is in, 1/4 for one that is not."""
        chosen = {index_of(item, self._all) for item in value}
        return [0.75 if i in chosen else 0.25 for i in range(self.width)]

    def decode(self, u: Units) -> tuple[Any, ...]:
        """See :meth:`Parameter.decode`."""
        ranked = sorted(range(self.width), key=lambda i: -u[i])
        count = sum(1 for i in ranked if u[i] >= 0.5)
        chosen = ranked[: min(max(count, self.min), self._most)]
        return tuple(self._all[i] for i in sorted(chosen))

    def snap(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :meth:`Parameter.snap`."""
        rank = np.argsort(np.argsort(-u, axis=1, kind="stable"), axis=1, kind="stable")
        count = np.clip((u >= 0.5).sum(axis=1, keepdims=True), self.min, self._most)
        return np.where(rank < count, 0.75, 0.25)

    @property
    def cardinality(self) -> float:
        """Number of subsets of an allowed size."""
        if self.width > 1000:
            return math.inf
        return sum(math.comb(self.width, k) for k in range(self.min, self._most + 1))

    def options(self) -> dict[str, Any]:
        """See :meth:`Parameter.options`."""
        data: dict[str, Any] = {"type": "subset", "items": [plain(v) for v in self._all]}
        if self.min:
            data["min"] = self.min
        if self.max is not None:
            data["max"] = self.max
        return data

    def values_on_grid(self, resolution: int) -> list[Any]:
        """All subsets.

        Raises:
            SpaceError: they are too many.
        """
        if self.cardinality > _MOST_ON_GRID:
            raise SpaceError(f"{self.width} items have too many subsets for a grid.")
        sizes = range(self.min, self._most + 1)
        return [found for k in sizes for found in itertools.combinations(self._all, k)]

    def default_value(self) -> tuple[Any, ...]:
        """The default, or the first ``min`` items."""
        return self._all[: self.min] if self.default is None else tuple(self.default)
