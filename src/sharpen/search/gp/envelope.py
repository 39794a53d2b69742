"""The expected maximum of lines over a standard normal, exactly.

Peter I. Frazier, Warren B. Powell and Savas Dayanik, "The Knowledge-Gradient Policy for Correlated
Normal Beliefs", INFORMS Journal on Computing 21(4), 2009, equation 14 and algorithm 1; with h of
:mod:`sharpen.search.gp.normal`, phi and Phi of the standard normal::

    c_ij            = (a_i - a_j) / (b_j - b_i)            where the lines i and j cross
    (lo_i, hi_i)    = (max of c_ij over b_j < b_i, min of c_ij over b_j > b_i): where i is highest
    E[max a_i + b_i Z] - max a_i = sum over neighbours i, j on top of (b_j - b_i) h(-|hi_i|)
    d/da_i = Phi(hi_i) - Phi(lo_i),  d/db_i = phi(lo_i) - phi(hi_i)   (the envelope theorem)

Differs from the paper: all pairs of lines are compared at once instead of one pass over sorted
lines, which suits arrays; of lines with equal slopes the highest counts. Every term of the sum is
positive, so its logarithm keeps its precision however small it is. Time and memory O(q n^2) for q
sets of n lines.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sharpen.search.gp.normal import LOG_SQRT_2PI, log_h

__all__ = ["log_expected_rise"]


class _LogExpectedRise(torch.autograd.Function):
    """log(E[max_i a_i + b_i Z] - max_i a_i), with the gradient by the envelope theorem."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        high = a[..., :, None] - a[..., None, :]  # a_i - a_j
        steep = b[..., None, :] - b[..., :, None]  # b_j - b_i
        cross = high / steep
        infinite = torch.full_like(cross, math.inf)
        hi = torch.where(steep > 0, cross, infinite).min(-1).values
        lo = torch.where(steep < 0, cross, -infinite).max(-1).values
        # Of parallel lines the first of the highest stands for all.
        order = torch.arange(a.shape[-1])
        earlier = order[None, :] < order[:, None]
        hidden = (steep == 0) & ((high < 0) | ((high == 0) & earlier))
        top = (lo < hi) & ~hidden.any(-1)
        # Two lines that cross the same one at one place: the steeper comes after.
        meets = torch.where(steep > 0, cross, infinite) == hi[..., None]
        step = torch.where(meets, steep, -infinite).max(-1).values
        term = torch.where(top & hi.isfinite(), step.log() + log_h(-hi.abs()), -infinite[..., 0])
        value = torch.logsumexp(term, -1)
        # Lines that are highest on one side of 0 have shares and tilts as small as the value; what
        # is left belongs to the line that is highest at 0, so that no small difference is taken.
        right = lo >= 0
        near, beyond = torch.where(right, lo, -hi), torch.where(right, hi, -lo)
        share = _log_difference(torch.special.log_ndtr(-near), torch.special.log_ndtr(-beyond))
        tilt = _log_difference(-near * near / 2 - LOG_SQRT_2PI, -beyond * beyond / 2 - LOG_SQRT_2PI)
        first = (top & (lo <= 0) & (hi >= 0)).to(torch.int64).argmax(-1, keepdim=True)
        side = top.scatter(-1, first, False) & value.isfinite()[..., None]
        zero = torch.zeros_like(share)
        share = torch.where(side, torch.exp(share - value[..., None]), zero)
        tilt = torch.where(side, torch.exp(tilt - value[..., None]), zero)
        tilt = torch.where(right, tilt, -tilt)
        share.scatter_(-1, first, -share.sum(-1, keepdim=True))
        tilt.scatter_(-1, first, -tilt.sum(-1, keepdim=True))
        ctx.save_for_backward(share, tilt)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        share, tilt = ctx.saved_tensors
        return share * gradients[0][..., None], tilt * gradients[0][..., None]


def _log_difference(larger: Tensor, smaller: Tensor) -> Tensor:
    """log(e^larger - e^smaller)."""
    return larger + torch.log(-torch.expm1(smaller - larger))


def log_expected_rise(a: Tensor, b: Tensor) -> Tensor:
    """log(E[max_i (a_i + b_i Z)] - max_i a_i) for Z ~ N(0, 1).

    Args:
        a: [..., n] heights of the lines at 0.
        b: [..., n] their slopes.

    Returns:
        [...]; minus infinity where one line stays highest.
    """
    value: Tensor = _LogExpectedRise.apply(a, b)  # type: ignore[no-untyped-call]
    return value
