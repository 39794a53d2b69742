"""Matrix products of few rows as Triton kernels: y [R, N] = x [R, K] W [N, K]^T + b.

Such a product reads W once and does little else, so what counts is how many of its bytes are under
way at a time. One row is a sum of products by element, each program a few rows of W; up to 16 are
one matrix product of W's rows with x filled up to 16.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["linear_few", "linear_one"]


@triton.jit
def _one(
    x,
    weight,
    bias,
    y,
    outputs,
    inputs,
    BIASED: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = tl.arange(0, COLUMNS)
    source = weight + (row.to(tl.int64) * inputs)[:, None] + at[None, :]
    is_row = row < outputs
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, inputs, COLUMNS):
        if EVEN:
            w = tl.load(source + start, eviction_policy="evict_first")
            v = tl.load(x + start + at)
        else:
            inside = start + at < inputs
            w = tl.load(source + start, mask=is_row[:, None] & inside[None, :], other=0.0)
            v = tl.load(x + start + at, mask=inside, other=0.0)
        total += w.to(tl.float32) * v.to(tl.float32)[None, :]
    out = tl.sum(total, 1)
    if BIASED:
        out += tl.load(bias + row, mask=is_row, other=0.0).to(tl.float32)
    tl.store(y + row, out, mask=is_row)


@triton.jit
def _few(
    x,
    weight,
    bias,
    y,
    rows,
    outputs,
    inputs,
    BIASED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FILLED: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = tl.arange(0, COLUMNS)
    one = tl.arange(0, FILLED)
    is_row, is_one = row < outputs, one < rows
    source = weight + (row.to(tl.int64) * inputs)[:, None] + at[None, :]
    other = x + (one * inputs)[None, :] + at[:, None]
    total = tl.zeros((ROWS, FILLED), tl.float32)
    for start in range(0, inputs, COLUMNS):
        inside = start + at < inputs
        w = tl.load(source + start, mask=is_row[:, None] & inside[None, :], other=0.0)
        v = tl.load(other + start, mask=inside[:, None] & is_one[None, :], other=0.0)
        total += tl.dot(w, v)
    if BIASED:
        total += tl.load(bias + row, mask=is_row, other=0.0).to(tl.float32)[:, None]
    target = y + one[None, :] * outputs + row[:, None]
    tl.store(target, total, mask=is_row[:, None] & is_one[None, :])


def linear_one(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    rows: int = 4,
    columns: int = 1024,
    warps: int = 4,
) -> Tensor:
    """[1, N] of x [1, K]; both contiguous, any float type."""
    outputs, inputs = weight.shape
    y = x.new_empty((1, outputs))
    _one[(triton.cdiv(outputs, rows),)](
        x,
        weight,
        bias if bias is not None else x,
        y,
        outputs,
        inputs,
        BIASED=bias is not None,
        EVEN=inputs % columns == 0 and outputs % rows == 0,
        ROWS=rows,
        COLUMNS=columns,
        num_warps=warps,
    )
    return y


def linear_few(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    rows: int = 16,
    columns: int = 256,
    warps: int = 4,
    stages: int = 4,
) -> Tensor:
    """[R, N] of x [R, K], R up to 16; both contiguous, bfloat16 or float16."""
    outputs, inputs = weight.shape
    y = x.new_empty((x.shape[0], outputs))
    _few[(triton.cdiv(outputs, rows),)](
        x,
        weight,
        bias if bias is not None else x,
        y,
        x.shape[0],
        outputs,
        inputs,
        BIASED=bias is not None,
        ROWS=rows,
        COLUMNS=columns,
        FILLED=16,
        num_warps=warps,
        num_stages=stages,
    )
    return y
