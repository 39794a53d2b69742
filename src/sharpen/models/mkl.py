"""A guard against a race in oneMKL's vector functions, which torch uses for whole tensors on CPUs.

oneMKL 2024.2 finds the kernel of a function (``cos``, ``sqrt`` ...) when it is first called. When
two threads make that first call together, one of them may run a kernel with errors of 1e-4 over its
part of the tensor, that one time: tables of positions differ from process to process
(pytorch/pytorch issue 188792). One call on one number from one thread settles the choice.
"""

from __future__ import annotations

import torch

__all__ = ["settle_kernels"]

_FUNCTIONS = (
    "acos",
    "asin",
    "atan",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "expm1",
    "log",
    "log10",
    "log1p",
    "log2",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
)


def settle_kernels() -> None:
    """Call every such function once for each type, which takes milliseconds."""
    for dtype in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in _FUNCTIONS:
            getattr(torch, name)(number)
