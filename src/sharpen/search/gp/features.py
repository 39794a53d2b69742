"""Configurations as points whose Euclidean distance means something to a kernel.

A kernel of squared distances sum_j (f_j - f'_j)^2 / l_j^2 covers every kind of parameter once each
is given by suitable features::

    Float, Int, Ordinal     its coordinate of the unit cube
    Categorical, Bool       one-hot / sqrt(2): the squared distance is 1 where the values differ,
                            the Hamming distance
    Subset                  1/0 an item, each with a lengthscale of its own, as for so many Bools
    Permutation             1/0 a pair, whether the first comes before the second, / sqrt(pairs):
                            the squared distance is Kendall's tau distance, 1 for the reverse order
    a condition             1/0, whether it holds; the parameters it rules stand at the middle of
                            their range where it does not, so they add nothing then

Kendall's distance in a kernel: Yunlong Jiao and Jean-Philippe Vert, "The Kendall and Mallows
Kernels for Permutations", ICML 2015. Imputed values and an indicator for conditional parameters:
Levesque et al., "Bayesian optimization for conditional hyperparameter spaces", IJCNN 2017.

Differs from the papers: the distances stand inside one Matern or RBF kernel with the others, not in
a factor each. Time O(n p) for n configurations.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sharpen.core.collections import Permutation, Subset
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Parameter
from sharpen.core.space import Space

__all__ = ["Features"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_FEW = 16  # values that are tried one by one; an Int with more is moved as a real number


class Features:
    """The feature map of a space.

    Args:
        space: of the configurations.

    Attributes:
        groups: [p] which lengthscale each feature has.
        num_groups: number of lengthscales.
        moving: [m] features that are coordinates that may be moved by gradients.
        columns: [m] the coordinates they are.
        discrete: names of the parameters whose values are tried one by one.
        is_continuous: whether configurations are the points of the cube: nothing rounded,
            conditional or forbidden.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        groups: list[int] = []
        moving: list[int] = []
        columns: list[int] = []
        self.discrete: list[str] = []
        self._parts: list[tuple[str, Parameter]] = []
        self.num_groups = 0
        for name, parameter in space.items():
            if isinstance(parameter, Fixed):
                continue
            width, shared = _width(parameter)
            if _moves(parameter):
                moving.append(len(groups))
                columns.append(space.columns[name].start)
            else:
                self.discrete.append(name)
            self._parts.append((name, parameter))
            for k in range(width):
                groups.append(self.num_groups + (0 if shared else k))
            self.num_groups += 1 if shared else width
        # Parameters under one condition are active together: one indicator for all of them.
        found: dict[str, int] = {}
        for name, parameter in self._parts:
            if parameter.condition is not None:
                found.setdefault(str(parameter.condition), space.columns[name].start)
        self._indicators = np.array(list(found.values()), dtype=np.int64)
        groups += range(self.num_groups, self.num_groups + len(found))
        self.num_groups += len(found)
        self.groups: Ints = np.array(groups, dtype=np.int64)
        self.moving: Ints = np.array(moving, dtype=np.int64)
        self.columns: Ints = np.array(columns, dtype=np.int64)
        self.is_continuous = (
            not space.is_conditional
            and not space.forbidden
            and all(isinstance(p, Float) and p.step is None for p in space.values())
        )

    def __len__(self) -> int:
        return len(self.groups)

    def __call__(self, x: Floats, mask: Bools) -> Floats:
        """Features of encoded configurations.

        Args:
            x: [n, d] coordinates as :meth:`Space.encode` gives them.
            mask: [n, d] which are active.

        Returns:
            [n, p].
        """
        if self.is_continuous:
            return x
        parts = []
        for name, parameter in self._parts:
            block = x[:, self.space.columns[name]]
            # What is inactive is the same for all, whatever its kind.
            active = mask[:, self.space.columns[name].start, None]
            parts.append(np.where(active, _features(parameter, block), 0.5))
        parts.append(mask[:, self._indicators].astype(np.float64))
        return np.concatenate(parts, axis=1)


def _moves(parameter: Parameter) -> bool:
    return (
        not isinstance(parameter, (Categorical, Bool, Subset, Permutation))
        and parameter.cardinality > _FEW
    )


def _width(parameter: Parameter) -> tuple[int, bool]:
    """Number of features, and whether they share a lengthscale."""
    if isinstance(parameter, Categorical):
        return len(parameter.choices), True
    if isinstance(parameter, Permutation):
        return parameter.width * (parameter.width - 1) // 2, True
    return parameter.width, False


def _features(parameter: Parameter, block: Floats) -> Floats:
    """[n, w] features of one parameter from its [n, width] coordinates."""
    if isinstance(parameter, Categorical):
        centres = np.array([parameter.to_unit(choice) for choice in parameter.choices])
        index = np.abs(block - centres).argmin(axis=1)
        one_hot: Floats = np.eye(len(centres))[index] / math.sqrt(2)
        return one_hot
    if isinstance(parameter, (Bool, Subset)):
        return (block >= 0.5).astype(np.float64)
    if isinstance(parameter, Permutation):
        first, second = np.triu_indices(parameter.width, 1)
        pairs: Floats = (block[:, first] < block[:, second]) / math.sqrt(len(first))
        return pairs
    return block
