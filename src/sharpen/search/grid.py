"""Grid search: every combination of some values of each parameter, in a shuffled order.

::

    values       all of a parameter that has few; else `resolution` of them, spread over its range
    combination  number k of 0 .. m - 1, with one digit a parameter
    trial n      the n-th combination of a random order that is allowed and was not there before
    order        a permutation of 0 .. m - 1 by four Feistel rounds; numbers beyond m go round again

The order is a function of the seed that takes no memory, so that grids of any size can be begun,
and the first trials are spread over the grid. Combinations that differ in inactive parameters alone
are one. When all are done, or after 10,000 in a row without a new one, it begins anew. Feistel
permutations: Michael Luby and Charles Rackoff, SIAM Journal on Computing 17(2), 1988.

Failed trials change nothing. Time O(d) a proposal, more where few combinations are allowed; memory
O(n) numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.optimizer import Capabilities, Optimizer
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space

__all__ = ["Grid", "shuffled"]

_RESOLUTION = 10  # where no budget is known
_MOST_IDLE = 10_000


def shuffled(index: int, count: int, seed: int) -> int:
    """Where ``index`` stands in a random order of 0 .. count - 1: a permutation of them."""
    half = max((count - 1).bit_length() + 1, 2) // 2
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for stage in range(4):
            text = f"{seed}:{stage}:{right}".encode()
            mixed = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")
            left, right = right, left ^ (mixed & mask)
        index = left << half | right
        if index < count:
            return index


class Grid(Optimizer):
    """All combinations of a grid; see the module for the method.

    Args:
        space: what to search over.
        objectives: any number.
        constraints: any number.
        resolution: values of a parameter that has more; None is the most for which the budget
            holds the whole grid (2 at least), or 10 where no budget is known.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: ``resolution`` is less than 1.
        SpaceError: a permutation or subset has too many values for a grid, or nothing is allowed.

    Examples:
        >>> from sharpen.core.parameters import Bool, Int
        >>> grid = Grid(Space(n=Int(1, 3), flag=Bool()))
        >>> len({str(candidate.config) for candidate in grid.ask(6)})
        6
    """

    name: ClassVar[str] = "grid"
    capabilities: ClassVar[Capabilities] = Capabilities(multi_objective=True, constraints=True)

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        resolution: int | None = None,
        **given: Any,
    ) -> None:
        if resolution is not None and resolution < 1:
            raise ConfigError(f"resolution={resolution} must be at least 1 (Grid).")
        super().__init__(space, objectives, constraints, **given)
        if resolution is None and self.budget is not None:
            resolution = 2
            while self._is_coarser_than_the_budget(resolution):
                resolution += 1
        self.resolution = resolution or _RESOLUTION
        self._values = [p.values_on_grid(self.resolution) for p in space.values()]
        self.restart()

    def _is_coarser_than_the_budget(self, resolution: int) -> bool:
        """Whether a grid of one more value a parameter is finer and still within the budget."""
        assert self.budget is not None
        now, finer = (
            math.prod(min(p.cardinality, r) for p in self.space.values())
            for r in (resolution, resolution + 1)
        )
        return now < finer <= self.budget

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        self._found: list[int] = []
        self._known: set[str] = set()
        self._scanned = 0
        self._is_exhausted = False

    def propose(self, number: int) -> dict[str, Any]:
        """See :meth:`Optimizer.propose`."""
        count = math.prod(len(values) for values in self._values)
        idle = 0
        while len(self._found) <= number and not self._is_exhausted:
            index = shuffled(self._scanned, count, self.seed)
            config = self._at(index)
            key = self.space.canonical(config)
            is_new = key not in self._known and not any(
                clause.holds(config) is True for clause in self.space.forbidden
            )
            if is_new:
                self._known.add(key)
                self._found.append(index)
            idle = 0 if is_new else idle + 1
            self._scanned += 1
            self._is_exhausted = self._scanned == count or idle >= _MOST_IDLE
        if not self._found:
            raise SpaceError("no combination of the grid is allowed. Raise resolution.")
        return self._at(self._found[number % len(self._found)])

    def _at(self, index: int) -> dict[str, Any]:
        values = {}
        for name, axis in zip(self.space, self._values, strict=True):
            index, digit = divmod(index, len(axis))
            values[name] = axis[digit]
        return self.space.active(values)
