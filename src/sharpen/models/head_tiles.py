"""Logits of a few rows at a time, in memory that every tile uses again.

For hidden states h and a head W (V rows) with a bias, and a cap t (Gemma Team, 2024)::

    l = W h + bias,   with a cap: l <- t tanh(l / t), whose slope is 1 - (l / t)^2

A tile takes 4 V bytes a row, 2 V more in 16-bit types and 4 V more with a cap. No size depends on
how many rows there are, which differs from step to step and would leave holes in the heap. Matrix
products run in the hidden states' type; logits are float32 (float64 for float64).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.models.matmul import mm

__all__ = ["HeadGradients", "HeadTiles", "LogitsTile", "row_tiles"]

_ROUND = 32


def row_tiles(rows: Tensor, tile: int) -> Iterator[tuple[Tensor, int]]:
    """Row numbers of each tile, and how many of them are real.

    oneDNN compiles and keeps a kernel for every row count it meets: the last tile is filled up to a
    multiple of 32 with row 0, which must get no weight.
    """
    for at in torch.split(rows, tile):
        spare = min(-at.numel() % _ROUND, tile - at.numel())
        yield F.pad(at, (0, spare)), at.numel()


@dataclass(frozen=True, slots=True)
class LogitsTile:
    """What :meth:`HeadTiles.logits` returns: views of its memory, until the next tile."""

    logits: Tensor
    """[rows, V]; may be changed in place."""
    slope: Tensor | None
    """[rows, V] of the cap; None without one."""


class HeadTiles:
    """The head over one tile after the other; without gradients.

    ``memory`` is [tile, V], of the type of the logits: what a tile's logits are a view of.

    Args:
        hidden: [N, H].
        weight: [V, H], of any float type.
        bias: [V]; None for none.
        tile: rows that a tile may have.
        softcap: the cap t; None for none.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *,
        tile: int,
        softcap: float | None,
    ) -> None:
        self.hidden, self.tile, self.softcap = hidden, tile, softcap
        self.exact = torch.promote_types(hidden.dtype, torch.float32)
        self.weight = weight.detach().to(hidden.dtype)
        self.bias = None if bias is None else bias.detach()
        self._narrow = hidden.new_empty((tile, weight.shape[0]))
        same = self.exact == hidden.dtype
        self.memory = self._narrow if same else torch.empty_like(self._narrow, dtype=self.exact)
        self._slopes = None if softcap is None else torch.empty_like(self.memory)
        self._gathered = hidden.new_empty((tile, hidden.shape[1]))

    def logits(self, at: Tensor) -> LogitsTile:
        """Of the rows ``at`` of the hidden states."""
        count = at.shape[0]
        product, logits, rows = self._narrow[:count], self.memory[:count], self._gathered[:count]
        torch.index_select(self.hidden, 0, at, out=rows)
        mm(rows, self.weight.T, product)
        if logits.dtype != product.dtype:
            logits.copy_(product)
        if self.bias is not None:
            logits += self.bias
        if self.softcap is None or self._slopes is None:
            return LogitsTile(logits, None)
        slope = self._slopes[:count]
        torch.square(logits.div_(self.softcap).tanh_(), out=slope).neg_().add_(1)
        logits.mul_(self.softcap)
        return LogitsTile(logits, slope)

    def backward(
        self, delta: Tensor, at: Tensor, slope: Tensor | None, gradients: HeadGradients
    ) -> None:
        """Add what a tile sends back, right after its :meth:`logits`.

        Args:
            delta: [rows, V] gradient of the capped logits; changed in place.
            at: the tile's rows.
            slope: that of the tile.
            gradients: where it goes.
        """
        count = at.shape[0]
        rows = self._gathered[:count]
        if slope is not None:
            delta.mul_(slope)
        if gradients.bias is not None:
            gradients.bias.add_(delta.sum(0))
        if delta.dtype != self.hidden.dtype:
            delta = self._narrow[:count].copy_(delta)
        if gradients.weight is not None:
            gradients.weight.add_(mm(delta.T, rows))
        if gradients.hidden is not None:
            mm(delta, self.weight, rows)
            gradients.hidden.index_add_(0, at, rows)


@dataclass(frozen=True, slots=True)
class HeadGradients:
    """Sums over tiles; None where no gradient is wanted."""

    hidden: Tensor | None
    """[N, H], of the hidden states' type."""
    weight: Tensor | None
    """[V, H], float32 at least."""
    bias: Tensor | None
    """[V], float32 at least."""

    @classmethod
    def zeros(
        cls, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: tuple[bool, bool, bool]
    ) -> HeadGradients:
        """For those of the three that want one."""
        exact = torch.promote_types(hidden.dtype, torch.float32)
        return cls(
            torch.zeros_like(hidden) if wanted[0] else None,
            torch.zeros_like(weight, dtype=exact) if wanted[1] else None,
            torch.zeros_like(bias, dtype=exact) if bias is not None and wanted[2] else None,
        )
