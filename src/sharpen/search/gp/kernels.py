"""Stationary kernels with a lengthscale a feature, and their derivatives.

Carl E. Rasmussen and Christopher K. I. Williams, "Gaussian Processes for Machine Learning", MIT
Press 2006, equations 4.9 and 4.17, with u the squared distance after division by lengthscales l::

    u(x, x')   = sum_j (x_j - x'_j)^2 / l_j^2
    RBF        k = exp(-u / 2)                              k' = -k / 2
    Matern 5/2 k = (1 + r + r^2 / 3) exp(-r), r = sqrt(5 u) k' = -5/6 (1 + r) exp(-r)

k' = dk/du and k'' are finite at u = 0, where r has no derivative, so all gradients go by them. Both
kernels are positive definite in any number of Euclidean features, which is why
:mod:`sharpen.search.gp.features` gives every kind of parameter as such features.

Differs from the book: None. Time O(q n p) for q x n values over p features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError, did_you_mean

__all__ = [
    "KERNELS",
    "correlation",
    "matern52",
    "profile",
    "rbf",
    "spectral_frequencies",
    "squared_distances",
]

Profile = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def matern52(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """k, dk/du and d2k/du2 of the Matern 5/2 kernel at squared distances ``u``."""
    r = (5 * u).sqrt()
    decay = torch.exp(-r)
    first = (1 + r) * decay
    return first + (5 / 3) * u * decay, (-5 / 6) * first, (25 / 12) * decay


def rbf(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """k, dk/du and d2k/du2 of the Gaussian kernel at squared distances ``u``."""
    k = torch.exp(-u / 2)
    return k, -k / 2, k / 4


KERNELS: dict[str, Profile] = {"matern52": matern52, "rbf": rbf}


def profile(name: str) -> Profile:
    """The kernel called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in KERNELS:
        raise ConfigError(
            f"kernel={name!r} is none of {', '.join(KERNELS)} (GP).{did_you_mean(name, KERNELS)}"
        )
    return KERNELS[name]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances.

    Args:
        a: [q, p] or [b, q, p] points, already divided by their lengthscales.
        b: [n, p] or [b, n, p] points, likewise.

    Returns:
        [q, n] or [b, q, n].
    """
    squares = (a * a).sum(-1, keepdim=True) + (b * b).sum(-1).unsqueeze(-2)
    multiply = torch.baddbmm if a.dim() == 3 else torch.addmm
    # Rounding may leave a small negative number where two points are one.
    return multiply(squares, a, b.mT, alpha=-2).clamp_(min=0)


class _Correlation(torch.autograd.Function):
    """k(a, b) with the gradient in ``a`` in closed form: far fewer steps than autograd takes."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, kernel: Profile) -> Tensor:
        k, slope, _ = kernel(squared_distances(a, b))
        ctx.save_for_backward(a, b, slope)
        return k

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        a, b, slope = ctx.saved_tensors
        weight = gradients[0] * slope
        return 2 * (a * weight.sum(-1, keepdim=True) - weight @ b), None, None


def correlation(a: Tensor, b: Tensor, kernel: Profile) -> Tensor:
    """Kernel values between points, differentiable once in ``a``.

    Args:
        a: [q, p] points divided by their lengthscales.
        b: [n, p] points, likewise; taken as constant.
        kernel: its profile.

    Returns:
        [q, n], 1 where two points are one.
    """
    values: Tensor = _Correlation.apply(a, b, kernel)  # type: ignore[no-untyped-call]
    return values


def spectral_frequencies(name: str, count: int, p: int, rng: np.random.Generator) -> Tensor:
    """Frequencies drawn from the spectral density of a kernel with unit lengthscales.

    The RBF's is a standard normal, Matern 5/2's a multivariate t with 5 degrees of freedom
    (Rasmussen and Williams 2006, equations 4.11 and 4.15).

    Args:
        name: of the kernel.
        count: how many.
        p: number of features.
        rng: draws them.

    Returns:
        [count, p].
    """
    normal = rng.standard_normal((count, p))
    if name == "matern52":
        normal *= np.sqrt(5 / rng.chisquare(5, (count, 1)))
    return torch.from_numpy(normal)
