"""Float32 products on CPUs by the library that is faster on this processor.

On AMD's processors torch's float32 products, which are oneMKL's, stay with vectors of 256 bits even
where there are 512: oneDNN's take about half the time. oneDNN compiles code for each size that it
meets and keeps it, megabytes for an odd one: rows that are multiples of 32 go there, all others and
small products stay with torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sharpen.native.info import is_amd_with_avx512

__all__ = ["ROUND", "goes_to_onednn", "mm", "prefers_onednn"]

ROUND = 32
"""Rows of which a multiple goes to oneDNN."""
_LEAST = 1 << 21  # products of two numbers; below, starting it costs more than it saves
_PLAIN = {Tensor, nn.Parameter}  # no DTensor


def prefers_onednn() -> bool:
    """Whether oneDNN is the faster library here."""
    return torch._C._has_mkldnn and is_amd_with_avx512()


def mm(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """``left @ right`` by the faster library; no gradients.

    Args:
        left: [R, K], of any strides.
        right: [K, C].
        out: [R, C], where it goes; None for a new tensor.
    """
    if not goes_to_onednn(left, right):
        return torch.mm(left, right) if out is None else torch.mm(left, right, out=out)
    multiply: Any = torch.ops.mkldnn._linear_pointwise.default
    found: Tensor = multiply(left, right.T, None, "none", [], "")
    return found if out is None else out.copy_(found)


def goes_to_onednn(left: Tensor, right: Tensor) -> bool:
    """Whether :func:`mm` of these two is oneDNN's."""
    rows, inner = left.shape
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == "cpu"
        and {type(left), type(right)} <= _PLAIN
        and rows % ROUND == 0 == inner % 16
        and rows * inner * right.shape[1] >= _LEAST
        and prefers_onednn()
    )
