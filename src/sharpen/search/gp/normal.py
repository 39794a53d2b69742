"""log h of the standard normal, the function under expected improvement.

Sebastian Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization",
NeurIPS 2023, equation 9 and appendix A.1::

    h(z) = phi(z) + z Phi(z)
    log h(z) = log of that                                                         -1 < z
             = -z^2/2 - log(2 pi)/2 + log(1 - sqrt(pi/2) |z| erfcx(|z|/sqrt(2)))   -6.7e7 < z <= -1
             = -z^2/2 - log(2 pi)/2 - 2 log|z|                                     z <= -6.7e7
    d/dz log h(z) = Phi(z) / h(z)
    log EI = log s + log h(z), z = (f - mu) / s;  d/dmu  = -Phi(z) / (s h(z))
                                                  d/ds^2 = phi(z) / (2 s^2 h(z))

Differs from the paper: the derivatives are taken in these closed forms. Their relative error, like
that of log h beyond its leading term, grows as 1e-16 z^2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import erfcx, log_ndtr, ndtr
from torch import Tensor

__all__ = ["LOG_SQRT_2PI", "log_h", "log_h_values", "log_improvement"]

Floats = npt.NDArray[np.float64]

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_LOG_SQRT_HALF_PI = 0.5 * math.log(math.pi / 2)
_FAR = -6.7e7  # below, the correction to the leading term vanishes


def log_h_values(z: Floats) -> Floats:
    """log(phi(z) + z Phi(z)), without underflow; see the module."""
    is_near = z > -1
    if is_near.all():
        return _near(z)
    below = np.minimum(z, -1)
    mid = np.maximum(below, _FAR)
    # log(1 - |z| Phi(z) / phi(z)), the ratio by the scaled complementary error function.
    u = np.log(erfcx(mid * -math.sqrt(0.5)) * -mid) + _LOG_SQRT_HALF_PI
    far = (z <= _FAR) | (u >= 0)  # before _FAR rounding may leave no difference, too
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.where(u > -math.log(2), np.log(-np.expm1(u)), np.log1p(-np.exp(u)))
    if far.any():
        rest = np.where(far, -2 * np.log(-below), rest)
    tail: Floats = below * below * -0.5 - LOG_SQRT_2PI + rest
    if not is_near.any():
        return tail
    return np.where(is_near, _near(np.maximum(z, -1)), tail)


def _near(z: Floats) -> Floats:
    found: Floats = np.log(np.exp(z * z * -0.5 - LOG_SQRT_2PI) + z * ndtr(z))
    return found


class _LogH(torch.autograd.Function):
    """log h(z), h(z) = phi(z) + z Phi(z), for every z; its derivative is Phi(z) / h(z)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        value = torch.from_numpy(log_h_values(z.numpy()))
        ctx.save_for_backward(z, value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        z, value = ctx.saved_tensors
        return gradients[0] * torch.exp(torch.special.log_ndtr(z) - value)


def log_h(z: Tensor) -> Tensor:
    """:func:`log_h_values` of a tensor, differentiable once."""
    value: Tensor = _LogH.apply(z)  # type: ignore[no-untyped-call]
    return value


def log_improvement(
    mean: Floats, variance: Floats, best: Floats | float
) -> tuple[Floats, Floats, Floats]:
    """Log E[max(f - Y, 0)] of Y ~ N(mu, s^2), and its derivatives.

    Args:
        mean: [q, k] mu.
        variance: [q, 1] s^2, positive.
        best: f, one or [k].

    Returns:
        [q, k] values, derivatives by mu, and by s^2.
    """
    sd = np.sqrt(variance)
    z = (best - mean) / sd
    log_ratio = log_h_values(z)
    by_mean = -np.exp(log_ndtr(z) - log_ratio) / sd
    by_variance = np.exp(z * z * -0.5 - LOG_SQRT_2PI - log_ratio) / (2 * variance)
    return np.log(sd) + log_ratio, by_mean, by_variance
