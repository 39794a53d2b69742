"""DoRA: adapters that turn a weight and scale its rows apart (Liu et al., 2024, arXiv 2402.09353).

::

    W' = m (W + s B A) / ||W + s B A||          one norm and one magnitude m for each output (eq. 5)
    m starts as ||W||, so W' starts as W

The norm counts as a constant in the backward pass (section 4.3), so that gradients are those of
LoRA, scaled. It is computed without forming W + s B A::

    ||w_i + s b_i A||^2 = ||w_i||^2 + 2 s b_i . (A w_i) + s^2 b_i (A A^T) b_i^T

Differs from the paper: None. Under dropout W x keeps the whole input; only A sees the dropped one.
Memory: ``out`` parameters a layer beside LoRA's. Time: one more product W A^T a forward pass,
``out in r`` multiplications.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["adapted_row_norms", "row_squares"]


def row_squares(weight: Tensor) -> Tensor:
    """||w_i||^2 of each row of ``weight`` [out, in]; [out], float32 at least."""
    exact = torch.promote_types(weight.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(weight, dim=1, dtype=exact)
    return norms.square()


@torch.no_grad()
def adapted_row_norms(
    squares: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float
) -> Tensor:
    """||W + s B A|| of each row; a constant of the backward pass.

    Args:
        squares: [out], from :func:`row_squares`.
        weight: [out, in], any float type; the product with A^T runs in it.
        a: [r, in].
        b: [out, r].
        scale: s.

    Returns:
        [out], in the type of ``squares``.
    """
    with torch.autocast(weight.device.type, enabled=False):
        exact = squares.dtype
        cross = (weight @ a.to(weight.dtype).T).to(exact)
        a, b = a.to(exact), b.to(exact)
        inner = (b * (2 * scale * cross + scale**2 * (b @ (a @ a.T)))).sum(1)
        # Rounding may take a row that the adapter cancels just below zero.
        return (squares + inner).clamp_(min=torch.finfo(exact).tiny).sqrt_()
