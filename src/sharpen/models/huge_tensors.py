"""Tensors on the CPU in huge pages, whose memory is taken only as it is written."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from sharpen.core.huge_pages import reserve

__all__ = ["huge_zeros"]


def huge_zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Zeros; outside of Linux, plain ones.

    Args:
        shape: without a size of 0.
        dtype: any.
    """
    if not sys.platform.startswith("linux"):
        return torch.zeros(tuple(shape), dtype=dtype)
    memory = reserve(math.prod(shape) * dtype.itemsize)
    return torch.frombuffer(memory, dtype=dtype).view(tuple(shape))
