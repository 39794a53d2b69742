"""Outputs made fit for a Gaussian process: standardized and, where they are skewed, bent first.

In-Kwon Yeo and Richard A. Johnson, "A new family of power transformations to improve normality or
symmetry", Biometrika 87(4), 2000::

    psi(y) = ((y + 1)^a - 1) / a             y >= 0, a != 0       log(y + 1)        a = 0
             -((1 - y)^(2 - a) - 1) / (2 - a)  y < 0, a != 2      -log(1 - y)       a = 2
    a maximizes -n/2 log var(psi(y)) + (a - 1) sum_i sign(y_i) log(|y_i| + 1)

Losses are standardized, bent by psi with that a if they are skewed, and standardized again. psi
rises everywhere, so the order of the losses stays.

Differs from the paper: y is standardized first, so that a does not depend on its unit. Time O(n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sharpen.search.moments import deviation, mean

__all__ = ["OutputTransform"]

Floats = npt.NDArray[np.float64]

_SKEWED = 0.5  # least skewness that is worth bending
_POWERS = np.linspace(-2, 4, 61)


@dataclass(frozen=True, slots=True)
class OutputTransform:
    """An increasing map of values; see the module."""

    shift: float
    scale: float
    power: float
    """a of the paper; 1 changes nothing."""

    final_shift: float
    final_scale: float

    @classmethod
    def fit(cls, values: Floats, *, bend: bool) -> OutputTransform:
        """The transform that suits ``values``.

        Args:
            values: [n] finite numbers.
            bend: whether skewed ones are bent.
        """
        shift, scale = float(mean(values)), _scale(values)
        z = (values - shift) / scale
        power = 1.0
        if bend and len(z) > 4 and abs(float((z**3).mean())) > _SKEWED:
            power = _best_power(z)
        bent = _yeo_johnson(z, power)
        return cls(shift, scale, power, float(mean(bent)), _scale(bent))

    def __call__(self, values: Floats) -> Floats:
        """[n] transformed ``values``."""
        z = (np.asarray(values, dtype=np.float64) - self.shift) / self.scale
        return (_yeo_johnson(z, self.power) - self.final_shift) / self.final_scale

    def slope(self, values: Floats) -> Floats:
        """[n] the map's derivative at ``values``, by which small errors are scaled."""
        z = (np.asarray(values, dtype=np.float64) - self.shift) / self.scale
        exponent = np.where(z >= 0, self.power - 1, 1 - self.power)
        return (1 + np.abs(z)) ** exponent / (self.scale * self.final_scale)

    def inverse(self, values: Floats) -> Floats:
        """[n] the values whose transforms are ``values``, as far as psi reaches them."""
        bent = np.asarray(values, dtype=np.float64) * self.final_scale + self.final_shift
        a, rest = self.power, 2 - self.power
        size = np.abs(bent)
        with np.errstate(over="ignore"):
            up = np.expm1(size) if a == 0 else _root(1 + a * size, a) - 1
            down = np.expm1(size) if rest == 0 else _root(1 + rest * size, rest) - 1
        z: Floats = np.where(bent >= 0, up, -down)
        return z * self.scale + self.shift


def _scale(values: Floats) -> float:
    """Standard deviation, or 1 where all values are one up to rounding."""
    scale = float(deviation(values))
    return scale if scale > 1e-12 * float(np.abs(values).max()) else 1.0


def _root(base: Floats, exponent: float) -> Floats:
    tiny = float(np.finfo(np.float64).tiny)
    found: Floats = np.maximum(base, tiny) ** (1 / exponent)
    return found


def _yeo_johnson(z: Floats, a: float | Floats) -> Floats:
    size, rest = np.log1p(np.abs(z)), 2 - a
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.where(a == 0, size, np.expm1(a * size) / a)
        down = np.where(rest == 0, size, np.expm1(rest * size) / rest)
    found: Floats = np.where(z >= 0, up, -down)
    return found


def _best_power(z: Floats) -> float:
    """The likeliest a on a grid of step 0.1, which is as well as few values know it."""
    jacobian = float((np.sign(z) * np.log1p(np.abs(z))).sum())
    spread = np.maximum(_yeo_johnson(z, _POWERS[:, None]).var(axis=1), 1e-300)
    scores = -len(z) / 2 * np.log(spread) + (_POWERS - 1) * jacobian
    return float(np.round(_POWERS[int(np.argmax(scores))], 6))
