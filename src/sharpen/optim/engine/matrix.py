"""What the methods for matrices share: which tensors are matrices, and AdamW for the others.

A tensor of two dimensions is a matrix [outputs, inputs]. One of three is a stack of matrices, such
as the experts of a layer, and each takes its own step; with the role ``matrix`` it is a
convolution's weight instead, as one of four or more is, and becomes [outputs, the rest]. Vectors
and numbers take AdamW's step, also in a group that asks for the method's.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor

from sharpen.optim.adamw import AdamWRule
from sharpen.optim.engine.base import Optimizer
from sharpen.optim.engine.orthogonal import fastest_dtype
from sharpen.optim.engine.rule import Group, Rule
from sharpen.optim.engine.slots import SlotSpec

__all__ = ["MatrixOptimizer", "MatrixRule", "matrix_shape"]

_VECTORS = AdamWRule()


def matrix_shape(shape: tuple[int, ...], group: Group) -> tuple[int, ...]:
    """[..., m, n] of a tensor of two or more dimensions.

    Examples:
        >>> matrix_shape((8, 4, 3, 3), {})
        (8, 36)
        >>> matrix_shape((6, 8, 4), {}), matrix_shape((6, 8, 4), {"role": "matrix"})
        ((6, 8, 4), (6, 32))
    """
    if len(shape) == 2 or (len(shape) == 3 and group.get("role") != "matrix"):
        return shape
    return shape[0], math.prod(shape[1:])


class MatrixRule(Rule):
    """Base of the rules for matrices; see the module for what is one."""

    mixes = True

    def serves(self, shape: tuple[int, ...], group: Group) -> bool:
        """Matrices of every size."""
        return len(shape) >= 2

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """See :meth:`Rule.slots`."""
        if len(shape) < 2:
            return _VECTORS.slots(shape, group)
        if 0 in shape:
            return {}
        return self.matrix_slots(shape, matrix_shape(shape, group), group)

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        if p.ndim < 2:
            return _VECTORS.update(p, g, state, group, t, index)
        shape = matrix_shape(tuple(p.shape), group)
        step = self.matrix_update(g.reshape(shape), state, group, t, index)
        return step.reshape(p.shape)

    def matrix_slots(
        self, shape: tuple[int, ...], matrix: tuple[int, ...], group: Group
    ) -> dict[str, SlotSpec]:
        """The state of a tensor.

        Args:
            shape: of the tensor.
            matrix: [..., m, n], all above 0.
            group: options.
        """
        raise NotImplementedError

    def matrix_update(
        self, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """The step to subtract, [..., m, n] as the gradient; arguments as of :meth:`update`."""
        raise NotImplementedError


class MatrixOptimizer(Optimizer):
    """Base of the optimizers whose first rule is for matrices; AdamW serves the rest."""

    fallback: ClassVar[str] = "adamw"

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`; settles which type ``auto`` stands for."""
        if group.get("ns_dtype") == "auto":
            devices = [p.device.type for p in group["params"]]
            group["ns_dtype"] = fastest_dtype(devices[0] if devices else "cpu")
