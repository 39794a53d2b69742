"""Inputs bent before the kernel sees them, where an objective changes faster at one end of a range.

Jasper Snoek, Kevin Swersky, Richard S. Zemel and Ryan P. Adams, "Input Warping for Bayesian
Optimization of Non-stationary Functions", ICML 2014, with the distribution function of Kumaraswamy
("A generalized probability density function for double-bounded random processes", Journal of
Hydrology 46, 1980) in place of the beta distribution's, as it has a closed form::

    w(u; a, b) = 1 - (1 - u^a)^b                        0 <= u <= 1, a, b > 0; a = b = 1 is w = u
    dw/da      = b (1 - u^a)^(b - 1) u^a log u
    dw/db      = -(1 - u^a)^b log(1 - u^a)

Differs from the paper: that distribution; u is kept 1e-7 off both ends, where slopes may be
infinite. Time O(1) a coordinate.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["warp", "warp_slopes"]

_OFF = 1e-7


def warp(u: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """w(u; a, b), elementwise; ``u`` itself where a = b = 1, whatever its range.

    Args:
        u: coordinates; those that are warped in [0, 1].
        a: of a shape that goes with ``u``.
        b: likewise.
    """
    inside = u.clamp(_OFF, 1 - _OFF)
    bent = -torch.expm1(b * torch.log(-torch.expm1(a * inside.log())))
    return torch.where((a == 1) & (b == 1), u, bent)


def warp_slopes(u: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """dw/da and dw/db, elementwise; arguments as for :func:`warp`."""
    log_u = u.clamp(_OFF, 1 - _OFF).log()
    power = torch.exp(a * log_u)
    log_rest = torch.log(-torch.expm1(a * log_u))
    by_a = b * torch.exp((b - 1) * log_rest) * power * log_u
    return by_a, -torch.exp(b * log_rest) * log_rest
