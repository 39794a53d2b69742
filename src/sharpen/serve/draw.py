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

``native/sampling.cpp`` does it. Its twin in torch, :func:`probabilities` and :func:`truncate`, is
what runs off the CPU, in other types and without a compiler. Cost: O(V) a row; the twin sorts V
where the nucleus has more than 1,024 tokens.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sharpen.core.errors import ExecutionError
from sharpen.native.build import function, load

__all__ = ["Draw", "draw", "probabilities", "truncate"]

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
        return _by_torch(logits, draws)
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


def _by_torch(logits: Tensor, draws: Sequence[Draw | None]) -> list[int | None]:
    """Rows of a kind go together, so that a round waits for the device twice at most."""
    found: list[int | None] = [None] * len(draws)
    kinds: dict[_Way | None, list[int]] = {}
    for i, one in enumerate(draws):
        if one is not None:
            kinds.setdefault(_way(one), []).append(i)
    chosen = []
    for way, rows in kinds.items():
        kept = logits if len(rows) == len(draws) else logits[rows]
        largest, tokens = kept.max(-1)
        if way is not None:
            tokens = way(kept, [one for i in rows if (one := draws[i]) is not None])
        chosen.append((rows, torch.where(largest.isfinite(), tokens, -1)))
    for rows, picked in chosen:
        for i, token in zip(rows, picked.tolist(), strict=True):
            if token < 0:
                raise _no_probabilities()
            found[i] = token
    return found


_Way = Callable[[Tensor, Sequence[Draw]], Tensor]


def _way(one: Draw) -> _Way | None:
    if one.temperature == 0:
        return None
    return _any_of_nucleus if one.top_k or one.top_p < 1 else _any_of_all


def _any_of_all(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    return _at(probabilities(logits, draws), draws)


def _any_of_nucleus(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    values, ids = truncate(logits, draws)
    return ids.gather(1, _at(values, draws)[:, None])[:, 0]


def _at(values: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Where running sums of values [R, M] pass the random numbers."""
    sums = values.nan_to_num().cumsum(-1)
    passed = _column([one.u for one in draws], sums) * sums[:, -1:]
    last = values.shape[1] - 1 - (values > 0).flip(-1).int().argmax(-1)
    return torch.searchsorted(sums, passed, right=True)[:, 0].minimum(last)


def _column(numbers: Sequence[float], like: Tensor) -> Tensor:
    """[R, 1] float64 beside ``like``."""
    return torch.tensor(numbers, dtype=torch.float64, device=like.device)[:, None]


def _softmax(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    return torch.softmax(logits.double() / _column([one.temperature for one in draws], logits), -1)


def _no_probabilities() -> ExecutionError:
    return ExecutionError(
        "the model's logits are not finite, so no token can be drawn; its weights or its type "
        "(float16 overflows) may be at fault."
    )


def probabilities(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """What stays of rows' probabilities without top-k and top-p, by ids.

    Args:
        logits: [R, V] float.
        draws: R, of temperatures above 0.

    Returns:
        [R, V] float64; zeros have fallen.
    """
    q = _softmax(logits, draws)
    least = _column([one.min_p for one in draws], q) * q.amax(-1, keepdim=True)
    return q * (q >= least)


def truncate(logits: Tensor, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
    """What stays of rows' probabilities, from the largest on, the smaller id first among equals.

    Args:
        logits: [R, V] float.
        draws: R, of temperatures above 0.

    Returns:
        Probabilities [R, M] float64 that sum to 1, zeros after them, and ids [R, M].
    """
    size = logits.shape[1]
    q = _softmax(logits, draws)
    top_k = _column([min(one.top_k or size, size) for one in draws], q)
    top_p = _column([one.top_p if one.top_p < 1 else 2.0 for one in draws], q)
    count = min(size, _NUCLEUS)  # more than top-k, so that equal ones at its border go by ids
    values, ids = torch.topk(q, count)
    reached = values.sum(-1, keepdim=True) >= top_p
    whole = torch.tensor([[bool(one.top_k)] for one in draws], device=q.device)
    enough = (top_k <= count) | (reached & ~whole)
    if bool(enough.all()):
        ids, order = ids.sort(-1)
        values, order = values.gather(1, order).sort(dim=-1, descending=True, stable=True)
        ids = ids.gather(1, order)
    else:  # a nucleus reaches beyond the nearest tokens
        values, ids = q.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(values.shape[1], device=q.device)
    values = values * (rank < top_k)
    values = torch.where(whole, values / values.sum(-1, keepdim=True), values)
    values = values * (values.cumsum(-1) - values < top_p)
    least = _column([one.min_p for one in draws], q) * values[:, :1]
    values = values * (values >= least)
    return values / values.sum(-1, keepdim=True), ids
