"""Priors of lengthscales, long where there are many and alike, and of the noise.

The mode: Carl Hvarfner, Erik Orm Hellsten and Luigi Nardi, "Vanilla Bayesian Optimization Performs
Great in High Dimensions", ICML 2024, section 5; a level that all share: Radford M. Neal, "Bayesian
Learning for Neural Networks", Springer 1996, the hierarchical priors of automatic relevance
determination; of the noise: Carlos M. Carvalho, Nicholas G. Polson and James G. Scott, "The
horseshoe estimator for sparse signals", Biometrika 97(2), 2010, theorem 1's bound of its density::

    c       = sqrt(2) + log(g) / 2 - 3           for g lengthscales; the density of
                                                 l ~ LogNormal(sqrt(2) + log(g) / 2, 3) has its mode
                                                 at exp(c)
    log l_j = c + sqrt(3 r) u + sqrt(3 (1 - r)) v_j,   u, v_j ~ N(0, 1), r = 0.8
    log l   ~ N(c, S),  S = 3 ((1 - r) I + r 1 1')
    S^-1    = (I - r / (1 - r + r g) 1 1') / (3 (1 - r))
    p(log e) = log(1 + (0.2 / e)^2), up to a factor

Few trials hardly tell the lengthscales of many parameters apart. With r = 0 the likeliest ones are
then short and long by chance; with r near 1 a parameter that does not matter is found late.
Many objectives have no noise and others much of it: the density of log e rises slowly as e vanishes
and falls as 1 / e^2 only, so either is found from few trials.

Differs from the papers: a shared level and that mode are put together, and u is integrated out; the
variance of the noise is learnt from its logarithm, whose density that of the noise is. Time O(g).
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["LengthscalePrior", "noise_misfit", "noise_slope"]

Floats = npt.NDArray[np.float64]
Array = TypeVar("Array", Tensor, Floats)
"""What has a gradient by autograd, or what takes less time."""

_VARIANCE = 3.0
_SHARED = 0.8
_NOISE = 0.2  # variance of the noise about which its density bends, in that of the losses


def _library(values: object) -> Any:
    return torch if isinstance(values, Tensor) else np


class LengthscalePrior:
    """The prior of the logarithms of some lengthscales; see the module.

    Args:
        count: g, how many.
        alike: how many of them, the first, share the level; None is all. The others have r = 0.

    Attributes:
        centre: c, their mean and mode.
    """

    def __init__(self, count: int, alike: int | None = None) -> None:
        self._count = count
        self._alike = count if alike is None else alike
        self.centre = math.sqrt(2) - 3 + math.log(max(count, 1)) / 2
        part = _SHARED / (1 - _SHARED + _SHARED * self._alike)
        shares = np.arange(count) < self._alike
        own = np.where(shares, 1 / (1 - _SHARED), 1.0) / _VARIANCE
        # S^-1 = diag(own) - level 1' on those that share one.
        parts = own, np.where(shares, own * part, 0.0), np.where(shares, 1.0, 0.0)
        self._parts: dict[Any, Any] = {np: parts, torch: [torch.from_numpy(v) for v in parts]}

    def misfit(self, away: Array) -> Array:
        """[...] negative log densities, up to a constant, of [..., g] logarithms less c."""
        found: Array = (away * self.slope(away)).sum(-1) / 2
        return found

    def slope(self, away: Array) -> Array:
        """[..., g] S^-1 ``away``, the derivative of :meth:`misfit`."""
        own, level, one = self._parts[_library(away)]
        found: Array = own * away - level * (away @ one)[..., None]
        return found

    def draw(self, rng: np.random.Generator, draws: int) -> npt.NDArray[np.float64]:
        """[draws, g] draws of the logarithms, less c."""
        share = np.where(np.arange(self._count) < self._alike, _SHARED, 0.0)
        level = rng.standard_normal((draws, 1))
        own = rng.standard_normal((draws, self._count))
        drawn: npt.NDArray[np.float64] = np.sqrt(share) * level + np.sqrt(1 - share) * own
        return math.sqrt(_VARIANCE) * drawn


def noise_misfit(noise: Array) -> Array:
    """[...] negative log density of the logarithm of variances of the noise, up to a constant."""
    library = _library(noise)
    found: Array = -library.log(library.log1p((_NOISE / noise) ** 2))
    return found


def noise_slope(noise: Floats) -> Floats:
    """[...] the derivative of :func:`noise_misfit` in the variances."""
    ratio = (_NOISE / noise) ** 2
    found: Floats = 2 * ratio / (noise * (1 + ratio) * np.log1p(ratio))
    return found
