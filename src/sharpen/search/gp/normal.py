"""log h of the standard normal, the function under expected improvement.

Sebastian Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization",
NeurIPS 2023, equation 9 and appendix A.1::

    h(z) = phi(z) + z Phi(z)
    log h(z) = log of that                                                         -1 < z
             = -z^2/2 - log(2 pi)/2 + log(1 - sqrt(pi/2) |z| erfcx(|z|/sqrt(2)))   -6.7e7 < z <= -1
             = -z^2/2 - log(2 pi)/2 - 2 log|z|                                     z <= -6.7e7
    d/dz log h(z) = Phi(z) / h(z)

Differs from the paper: the derivative is taken in this closed form. Its relative error, like
that of log h beyond its leading term, grows as 1e-16 z^2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["LOG_SQRT_2PI", "log_h"]

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_FAR = -6.7e7  # below, the correction to the leading term vanishes


class _LogH(torch.autograd.Function):
    """log h(z), h(z) = phi(z) + z Phi(z), for every z; its derivative is Phi(z) / h(z)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        near = z.clamp(min=-1)
        direct = torch.log(
            torch.exp(-near * near / 2 - LOG_SQRT_2PI) + near * torch.special.ndtr(near)
        )
        mid = z.clamp(min=_FAR, max=-1)
        # log(1 - |z| Phi(z) / phi(z)), the ratio by the scaled complementary error function.
        u = torch.log(torch.special.erfcx(-mid / math.sqrt(2)) * -mid) + 0.5 * math.log(math.pi / 2)
        rest = torch.where(u > -math.log(2), torch.log(-torch.expm1(u)), torch.log1p(-torch.exp(u)))
        far = z.clamp(max=_FAR)
        tail = torch.where(z > _FAR, rest, -2 * torch.log(-far))
        below = z.clamp(max=-1)
        value = torch.where(z > -1, direct, -below * below / 2 - LOG_SQRT_2PI + tail)
        ctx.save_for_backward(z, value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        z, value = ctx.saved_tensors
        return gradients[0] * torch.exp(torch.special.log_ndtr(z) - value)


def log_h(z: Tensor) -> Tensor:
    """log(phi(z) + z Phi(z)), without underflow; see the module."""
    value: Tensor = _LogH.apply(z)  # type: ignore[no-untyped-call]
    return value
