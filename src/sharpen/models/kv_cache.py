"""Keys and values of positions already seen, in one growing buffer a layer.

A batch shares one length: shorter prompts are padded on the left, and ``starts`` says where each
row begins. Memory: 2 L B S h_kv e bytes for capacity S.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharpen.core.model_spec import ModelSpec

__all__ = ["KVCache"]

_GROW = 256


class KVCache:
    """Keys and values [B, kv_heads, S, D] of every layer.

    Args:
        spec: the model's shape.
        batch: number of rows.
        capacity: positions to reserve; the buffer grows when they do not suffice.
        dtype: of keys and values.
        device: where they lie.
        starts: [B] int64, number of padding positions on the left of each row, or None for none.
    """

    def __init__(
        self,
        spec: ModelSpec,
        batch: int,
        *,
        capacity: int = _GROW,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        starts: Tensor | None = None,
    ) -> None:
        self.spec = spec
        self.length = 0
        self.starts = starts if starts is not None and bool(starts.any()) else None
        self._shape = (batch, spec.num_kv_heads, max(capacity, 1), spec.head_dim)
        self._keys = [torch.zeros(self._shape, dtype=dtype, device=device) for _ in self._layers()]
        self._values = [torch.zeros_like(k) for k in self._keys]

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self._keys[0].shape[0]

    @property
    def device(self) -> torch.device:
        """Where the buffers lie."""
        return self._keys[0].device

    def _layers(self) -> range:
        return range(self.spec.num_layers)

    @property
    def num_bytes(self) -> int:
        """Bytes of the buffers."""
        return 2 * sum(k.numel() * k.element_size() for k in self._keys)

    def reserve(self, extra: int) -> None:
        """Make room for ``extra`` more positions."""
        needed = self.length + extra
        capacity = self._keys[0].shape[2]
        if needed <= capacity:
            return
        size = max(needed, 2 * capacity)
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                grown = old.new_zeros((*old.shape[:2], size, old.shape[3]))
                grown[:, :, : self.length] = old[:, :, : self.length]
                buffers[layer] = grown

    def buffers(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [B, kv_heads, capacity, D] of a layer, to be written in place."""
        return self._keys[layer], self._values[layer]

    def put(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [B, kv_heads, T, D] of a layer; returns all of them so far.

        The length moves on by :meth:`advance`, after the last layer.
        """
        end = self.length + keys.shape[2]
        self._keys[layer][:, :, self.length : end] = keys
        self._values[layer][:, :, self.length : end] = values
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]

    def advance(self, count: int) -> None:
        """``count`` more positions are stored in every layer."""
        self.length += count

    def select(self, rows: Tensor) -> None:
        """Keep only ``rows`` [R] of the batch, and no padding that all of them share."""
        self._keys = [k.index_select(0, rows) for k in self._keys]
        self._values = [v.index_select(0, rows) for v in self._values]
        if self.starts is not None:
            self.starts = self.starts.index_select(0, rows)
            shared = int(self.starts.min()) if rows.numel() else 0
            if shared:
                self._keys = [k[:, :, shared:].contiguous() for k in self._keys]
                self._values = [v[:, :, shared:].contiguous() for v in self._values]
                self.length -= shared
                self.starts = self.starts - shared if bool((self.starts != shared).any()) else None
