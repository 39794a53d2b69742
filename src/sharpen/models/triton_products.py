"""Matrix products of one row as Triton kernels: y [1, N] = x [1, K] W [N, K]^T + b.

Such a product reads W once and does little else, so what counts is how many of its bytes are under
way at a time: a program takes a few rows of W, and multiplies and adds by element. For two rows and
more cuBLAS is as fast.

The product of gates and values takes a row of each, and leaves silu(g) u.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["gated_one", "linear_one"]

_COLUMNS = 1024
_LONG = 4096  # inputs above which a program takes one row of W, else four


@triton.jit
def _one(
    x,
    weight,
    bias,
    y,
    outputs,
    inputs,
    BIASED: tl.constexpr,
    GATED: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = tl.arange(0, COLUMNS)
    is_row = row < outputs
    source = weight + (row.to(tl.int64) * inputs)[:, None] + at[None, :]
    other = weight + ((row + outputs).to(tl.int64) * inputs)[:, None] + at[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    values = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, inputs, COLUMNS):
        if EVEN:
            w = tl.load(source + start, eviction_policy="evict_first")
            v = tl.load(x + start + at).to(tl.float32)[None, :]
            if GATED:
                values += tl.load(other + start, eviction_policy="evict_first").to(tl.float32) * v
        else:
            inside = start + at < inputs
            both = is_row[:, None] & inside[None, :]
            w = tl.load(source + start, mask=both, other=0.0)
            v = tl.load(x + start + at, mask=inside, other=0.0).to(tl.float32)[None, :]
            if GATED:
                values += tl.load(other + start, mask=both, other=0.0).to(tl.float32) * v
        total += w.to(tl.float32) * v
    out = tl.sum(total, 1)
    if BIASED:
        out += tl.load(bias + row, mask=is_row, other=0.0).to(tl.float32)
    if GATED:
        up = tl.sum(values, 1)
        if BIASED:
            up += tl.load(bias + outputs + row, mask=is_row, other=0.0).to(tl.float32)
        out = out * tl.sigmoid(out) * up
    tl.store(y + row, out, mask=is_row)


def linear_one(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[1, N] of x [1, K] and W [N, K]; contiguous, any float type."""
    return _product(x, weight, bias, weight.shape[0], gated=False)


def gated_one(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[1, N] of x [1, K] and W [2 N, K], gates before values; contiguous, any float type."""
    return _product(x, weight, bias, weight.shape[0] // 2, gated=True)


def _product(
    x: Tensor, weight: Tensor, bias: Tensor | None, outputs: int, *, gated: bool
) -> Tensor:
    inputs = weight.shape[1]
    y = torch.empty((1, outputs), dtype=x.dtype, device=x.device)
    rows = 1 if inputs > _LONG else 2 if gated else 4
    _one[(triton.cdiv(outputs, rows),)](
        x,
        weight,
        bias if bias is not None else x,
        y,
        outputs,
        inputs,
        BIASED=bias is not None,
        GATED=gated,
        EVEN=inputs % _COLUMNS == 0 and outputs % rows == 0,
        ROWS=rows,
        COLUMNS=_COLUMNS,
    )
    return y
