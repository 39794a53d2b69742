"""Which tensors of a group are active: blocks that change every few steps.

Blocks are tensors, or the tensors of a layer. A choice is a walk over them that goes on where the
last one ended (at random: over all of them, in a new order each time), and takes each block that
keeps the active weights at no more than 1.02 density of all; an ordered walk stops at the first
that does not. All follows from the seed and the number of the choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sharpen.optim.engine.projector import param_seed, random_order

__all__ = ["BlockUnit", "BlockWalk", "Order", "units_of"]

Order = Literal["random", "shuffle", "ascending", "descending", "mirror"]
BlockUnit = Literal["tensor", "layer"]

_SLACK = 1.02
_LAYER = re.compile(r"(.*?\.)?\d+(\.|$)")


def units_of(names: Sequence[str], unit: BlockUnit) -> list[list[int]]:
    """Positions of the tensors of each block, in order of first appearance.

    Args:
        names: of the parameters.
        unit: ``layer`` puts those together whose names agree up to the first number.

    Examples:
        >>> units_of(["norm", "layers.0.q", "layers.0.k", "layers.1.q"], "layer")
        [[0], [1, 2], [3]]
    """
    if unit == "tensor":
        return [[i] for i in range(len(names))]
    found: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        match = _LAYER.match(name)
        found.setdefault(match.group() if match else f"{name} {i}", []).append(i)
    return list(found.values())


@dataclass(slots=True)
class BlockWalk:
    """The choices of one group.

    Examples:
        >>> walk = BlockWalk([10, 10, 10, 10], density=0.5, order="descending")
        >>> [sorted(walk.chosen(count)) for count in range(3)]
        [[2, 3], [0, 1], [2, 3]]
    """

    sizes: Sequence[int]
    """Weights of each block."""

    density: float
    """Share that is active, from 0 to 1."""

    order: Order
    """``shuffle`` visits all before it comes to one again; ``mirror``: from both ends at once."""

    count: int | None = None
    """Blocks at a time, whatever their sizes; None: as the density allows."""

    seed: int = 0
    """Of random orders."""

    index: int = 1
    """Of the first parameter in the model."""

    overflowed: bool = False
    """A single block was larger than the density allows."""

    _ends: list[int] = field(default_factory=lambda: [0])

    def chosen(self, count: int) -> frozenset[int]:
        """Blocks of choice ``count``, from 0."""
        if self.order == "random":
            order = random_order(len(self.sizes), (param_seed(self.seed, self.index), count))
            steps = [[i] for i in order.tolist()]
            return self._take(lambda i: steps[i] if i < len(steps) else [], 0)[0]
        while len(self._ends) <= count:
            self._ends.append(self._take(self._at, self._ends[-1])[1])
        return self._take(self._at, self._ends[count])[0]

    def _at(self, position: int) -> list[int]:
        """Blocks at a place of the endless walk; several belong together."""
        n = len(self.sizes)
        if self.order == "mirror":
            i = position % -(-n // 2)
            return sorted({i, n - 1 - i})
        lap, i = divmod(position, n)
        if self.order == "shuffle":
            key = param_seed(self.seed, self.index), lap
            return [int(random_order(n, key)[i])]
        return [i if self.order == "ascending" else n - 1 - i]

    def _take(self, at: Callable[[int], list[int]], start: int) -> tuple[frozenset[int], int]:
        """The blocks of a walk from ``start``, and where it ended."""
        limit = _SLACK * self.density * sum(self.sizes)
        taken: set[int] = set()
        position, held = start, 0
        for position in range(start, start + len(self.sizes)):
            step = at(position)
            if not step or taken & set(step):
                break
            size = sum(self.sizes[i] for i in step)
            fits = (
                held + size <= limit if self.count is None else len(taken | set(step)) <= self.count
            )
            if fits:
                taken |= set(step)
                held += size
            elif self.order != "random":
                break
        else:
            position += 1
        if not taken and self.density:
            self.overflowed = self.overflowed or self.count is None
            return frozenset(at(start)), start + 1
        return frozenset(taken), position
