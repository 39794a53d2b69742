"""Truncation of probabilities and the draw of a token, for all rows of a round in one call.

For logits l [V] of a row, in float64::

    q = softmax(l / T)
    top-k      the k largest stay; q <- q / sum(q)
    top-p      the fewest largest whose sum reaches p stay
               (Holtzman et al., 2020, arXiv 1904.09751)
    min-p      those of at least m * max(q) stay (Nguyen et al., 2024, arXiv 2407.01082)
    draw       the first whose running sum passes u * sum(q)

Running sums go from the largest on, the smaller id first among equals; without top-k and top-p they
go by ids. T = 0 takes the largest, the smallest id among equals.

``native/sampling.cpp`` does it; :func:`truncate` is its twin, and what runs off the CPU, in other
types and without a compiler. Cost: O(V) a row; the twin sorts V where the nucleus has more than
1,024 tokens.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sharpen.core.errors import ExecutionError
from sharpen.native.build import function, load

__all__ = ["Draw", "draw", "truncate"]

_NUCLEUS = 1024


@dataclass(frozen=True, slots=True)
class Draw:
    """How the token of one row is drawn."""

    temperature: float = 0.0
    """0 takes the largest logit."""

    top_k: int = 0
    """0 for all."""

    top_p: float = 1.0
    """In (0, 1]."""

    min_p: float = 0.0
    """In [0, 1]."""

    u: float = 0.0
    """The random number, in [0, 1)."""


_SETTINGS = struct.Struct("=ddddq")  # temperature, top-p, min-p, u, top-k
_LEFT_OUT = _SETTINGS.pack(-1.0, 1.0, 0.0, 0.0, 0)
_LARGEST = _SETTINGS.pack(0.0, 1.0, 0.0, 0.0, 0)


def draw(logits: Tensor, draws: Sequence[Draw | None]) -> list[int | None]:
    """Tokens of rows.

    Args:
        logits: [R, V], any float type.
        draws: R; None leaves a row out.

    Raises:
        ExecutionError: a row that is drawn from holds NaN, plus infinity, or nothing but minus
            infinity.
    """
    native = _native(logits.dtype) if logits.device.type == "cpu" else None
    rows = len(draws)
    if native is None:
        return [_by_torch(logits[i], one) if one else None for i, one in enumerate(draws)]
    logits = logits.contiguous()
    settings = b"".join([_packed(one) for one in draws])
    tokens = array("q", bytes(8 * rows))
    native(
        logits.data_ptr(),
        rows,
        logits.shape[1],
        settings,
        tokens.buffer_info()[0],
        torch.get_num_threads(),
    )
    if any(token < 0 and one for token, one in zip(tokens, draws, strict=True)):
        raise _no_probabilities()
    return [token if token >= 0 else None for token in tokens]


def _packed(one: Draw | None) -> bytes:
    if one is None:
        return _LEFT_OUT
    if one.temperature == 0:
        return _LARGEST
    return _SETTINGS.pack(one.temperature, one.top_p, one.min_p, one.u, one.top_k)


@functools.cache
def _native(dtype: torch.dtype) -> Any:
    suffix = {torch.float32: "f32", torch.bfloat16: "bf16"}.get(dtype)
    library = load("sampling") if suffix is not None else None
    if library is None:
        return None
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    types = (pointer, integer, integer, pointer, pointer, ctypes.c_int)
    return function(library, f"draw_{suffix}", *types)


def _by_torch(logits: Tensor, one: Draw) -> int:
    if one.temperature == 0:
        return int(logits.argmax())
    if not bool(logits.max().isfinite()):
        raise _no_probabilities()
    values, ids = truncate(
        logits,
        temperature=one.temperature,
        top_k=one.top_k,
        top_p=one.top_p,
        min_p=one.min_p,
    )
    position = int(torch.searchsorted(values.cumsum(0), one.u, right=True))
    return int(ids[min(position, ids.numel() - 1)])


def _no_probabilities() -> ExecutionError:
    return ExecutionError(
        "the model's logits are not finite, so no token can be drawn; its weights or its type "
        "(float16 overflows) may be at fault."
    )


def truncate(
    logits: Tensor, *, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> tuple[Tensor, Tensor]:
    """What stays of a row's probabilities.

    Args:
        logits: [V] float.
        temperature: above 0.
        top_k: 0 for all.
        top_p: in (0, 1].
        min_p: in [0, 1].

    Returns:
        Probabilities [M] float64 that sum to 1, and ids [M].
    """
    q = torch.softmax(logits.double() / temperature, -1)
    if not top_k and top_p == 1:
        ids = (q >= min_p * q.max()).nonzero().squeeze(1)
        values = q[ids]
        return values / values.sum(), ids
    k = min(top_k or q.numel(), q.numel())
    values, ids = torch.topk(q, min(k, _NUCLEUS))
    if ids.numel() < k and (top_k or float(values.sum()) < top_p):
        values, ids = torch.topk(q, k)  # the nucleus reaches beyond the nearest tokens
    ids, order = ids.sort()
    values, order = values[order].sort(descending=True, stable=True)
    ids = ids[order]
    if top_k:
        values = values / values.sum()
    if top_p < 1:
        before = values.cumsum(0) - values
        kept = int((before < top_p).sum())
        values, ids = values[:kept], ids[:kept]
    if min_p > 0:
        kept = int((values >= min_p * values[0]).sum())
        values, ids = values[:kept], ids[:kept]
    return values / values.sum(), ids
